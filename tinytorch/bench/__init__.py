"""Measure speed: `tt.bench(fn, *examples)` for your own function, `tito bench` for the project's figures.

    print(tt.bench(model, x))               # eager against compiled, in turns, medians with quartiles
    tito bench --list                       # workloads against PyTorch, JAX and NumPy, with the targets they must reach

`workloads.WORKLOADS` names them; `timing.paired` is how all of them are timed.
"""

from .compare import Result, bench

__all__ = ["Result", "bench"]
