"""Graph to graph: one file a pass, named by its verb."""

assert __name__ == "tinytorch.passes", f"import this package as tinytorch.passes, not as {__name__}"

from .assign_layout import AssignLayout
from .autodiff import Differentiate, reverse
from .bisect import find_culprit
from .compare import check_same_meaning
from .expand_composites import ExpandComposites
from .fold_constants import FoldConstants
from .fuse import Fuse
from .merge_common import MergeCommon
from .pack_operands import PackOperands
from .pipeline import History, Pass, Pipeline, Stage, launches
from .plan_memory import plan_memory
from .remove_dead import RemoveDead
from .rewrite import By, Rule, Table, rewrite
from .simplify import Simplify
from .standard import LOWERING, PIPELINES, STANDARD

__all__ = [
    "LOWERING", "PIPELINES", "STANDARD",
    "AssignLayout", "By", "Differentiate", "ExpandComposites", "FoldConstants", "Fuse", "History", "MergeCommon",
    "PackOperands", "Pass", "Pipeline", "RemoveDead", "Rule", "Simplify", "Stage", "Table", "check_same_meaning",
    "find_culprit", "launches", "plan_memory", "reverse", "rewrite",
]
