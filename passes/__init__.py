"""Graph to graph: one file a pass, named by its verb."""

assert __name__ == "tinytorch.passes", f"import this package as tinytorch.passes, not as {__name__}"

from .assign_layout import AssignLayout
from .autodiff import Differentiate, reverse
from .bisect import find_culprit
from .cast_precision import CastPrecision
from .compare import check_same_meaning
from .expand_composites import ExpandComposites
from .filter_minimally import FilterMinimally
from .fold_batch_norm import FoldBatchNorm
from .fold_constants import FoldConstants
from .fuse import Fuse
from .hoist_bound import HoistBound
from .insert_kv_cache import InsertKVCache
from .jvp import Jvp
from .merge_common import MergeCommon
from .order_nodes import OrderNodes
from .pack_operands import PackOperands
from .pipeline import History, Pass, Pipeline, Stage
from .plan_memory import plan_memory
from .prune_channels import Family, RemoveChannels, Unit, find_units
from .prune_zeros import SkipZeroBlocks
from .quantize_layers import QuantizeLayers
from .quantize_moves import MoveGrids
from .quantize_simulate import SimulateLayers
from .quantize_weights import QuantizeWeights
from .recompute import Recompute
from .remake_late import RemakeLate
from .rematerialize import Rematerialize
from .remove_dead import RemoveDead
from .rewrite import By, Rule, Table, rewrite
from .simplify import Simplify
from .sink_transposes import SinkTransposes
from .sizes import Size, changes, launches, size_of
from .split_sums import SplitSums
from .stabilize import Stabilize
from .standard import LOWERING, PIPELINES, STANDARD, with_precision
from .vmap import Vmap

__all__ = [
    "LOWERING", "PIPELINES", "STANDARD", "AssignLayout", "By", "CastPrecision", "Differentiate", "ExpandComposites",
    "Family", "FilterMinimally", "FoldBatchNorm", "FoldConstants", "Fuse", "History", "HoistBound", "InsertKVCache",
    "Jvp", "MergeCommon", "MoveGrids", "OrderNodes", "PackOperands", "Pass", "Pipeline", "QuantizeLayers",
    "QuantizeWeights", "Recompute", "RemakeLate", "Rematerialize", "RemoveChannels", "RemoveDead", "Rule", "Simplify",
    "SimulateLayers", "SinkTransposes", "Size", "SkipZeroBlocks", "SplitSums", "Stabilize", "Stage", "Table",
    "Unit", "Vmap", "changes", "check_same_meaning", "find_culprit", "find_units", "launches", "plan_memory",
    "reverse", "rewrite", "size_of", "with_precision",
]
