"""Measure speed: `tt.bench(fn, *examples)` for your own function, `tito bench` for the project's figures.

    print(tt.bench(model, x))               # eager against compiled, in turns, medians with quartiles
    tito bench --list                       # workloads against PyTorch, JAX, ONNX Runtime and NumPy, with their targets
    tito bench --quick --html bench.html    # all of them in some minutes, and a page with pictures
    tito bench model.py:f --vs torch        # your own f, eager and compiled, and f_torch that stands beside it

`workloads.WORKLOADS` names them; `timing.paired` is how all of them are timed, once `same.check_same` has seen that all
sides compute the same; `models.NETWORKS` are the networks, which `in_torch`, `in_jax` and `in_onnx` build for peers.
"""

from .compare import Result, bench

__all__ = ["Result", "bench"]
