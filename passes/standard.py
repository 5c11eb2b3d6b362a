"""The pipelines that `tt.compile` knows by name; read one to see what happens to a graph, in order.

    PIPELINES["train"], PIPELINES["infer"]    the standard passes (the same so far)
    PIPELINES["none"]                         only what the runtime cannot do without: every op a kernel
"""

from typing import Any

from .assign_layout import AssignLayout
from .expand_composites import ExpandComposites
from .fold_constants import FoldConstants
from .fuse import Fuse
from .merge_common import MergeCommon
from .pack_operands import PackOperands
from .remove_dead import RemoveDead
from .simplify import Simplify

LOWERING = (ExpandComposites(), PackOperands())  # what the runtime cannot do without
STANDARD = (Simplify(), FoldConstants(), ExpandComposites(), Simplify(), AssignLayout(), MergeCommon(), RemoveDead(),
            Fuse(), PackOperands())
PIPELINES: dict[str, tuple[Any, ...]] = {"train": STANDARD, "infer": STANDARD, "none": LOWERING}
