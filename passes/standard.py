"""The pipelines that `tt.compile` knows by name; read one to see what happens to a graph, in order.

    PIPELINES["train"], PIPELINES["infer"]    the standard passes (the same so far)
    PIPELINES["none"]                         only what the runtime cannot do without: every op a kernel
"""

from collections.abc import Sequence
from typing import Any

from .assign_layout import AssignLayout
from .cast_precision import CastPrecision
from .expand_composites import ExpandComposites
from .filter_minimally import FilterMinimally
from .fold_batch_norm import FoldBatchNorm
from .fold_constants import FoldConstants
from .fuse import Fuse
from .hoist_bound import HoistBound
from .merge_common import MergeCommon
from .order_nodes import OrderNodes
from .pack_operands import PackOperands
from .recompute import Recompute
from .remake_late import RemakeLate
from .remove_dead import RemoveDead
from .simplify import Simplify
from .sink_transposes import SinkTransposes
from .split_sums import SplitSums

LOWERING = (ExpandComposites(), PackOperands())  # what the runtime cannot do without
STANDARD = (Simplify(), FoldBatchNorm(), FoldConstants(), ExpandComposites(), Simplify(), SinkTransposes(),
            FilterMinimally(), AssignLayout(), MergeCommon(), RemoveDead(), HoistBound(), SplitSums(), Fuse(),
            Recompute(), PackOperands(), OrderNodes(), RemakeLate())
PIPELINES: dict[str, tuple[Any, ...]] = {"train": STANDARD, "infer": STANDARD, "none": LOWERING}


def with_precision(steps: Sequence[Any], dtype: str) -> tuple[Any, ...]:
    """`steps` with `CastPrecision(dtype)` where composites are open, and products have not been given other forms.

    >>> print(*(type(step).__name__ for step in with_precision(STANDARD, "bf16")[5:9]))
    SinkTransposes CastPrecision ExpandComposites FilterMinimally
    """
    place = next((number for number, step in enumerate(steps) if isinstance(step, FilterMinimally)), 0)
    return *steps[:place], CastPrecision(dtype), ExpandComposites(), *steps[place:]
