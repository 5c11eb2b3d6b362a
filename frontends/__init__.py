"""Other things become graphs here: Python functions by tracing, files and other frameworks by importing."""

assert __name__ == "tinytorch.frontends", "import tinytorch.frontends, not the folder frontends"

from .trace import Trace, trace
from .tree import Tree, flatten, map_tree, paths, unflatten

__all__ = ["Trace", "Tree", "flatten", "map_tree", "paths", "trace", "unflatten"]
