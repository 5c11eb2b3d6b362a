"""The pipelines that `tt.compile` knows by name; read one to see what happens to a graph, in order.

    PIPELINES["train"], PIPELINES["infer"]    the standard passes (the same so far)
    PIPELINES["none"]                         only what the runtime cannot do without: every op a kernel
"""

from typing import Any

from .assign_layout import AssignLayout
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
