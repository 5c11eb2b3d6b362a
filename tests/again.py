"""Run a test file again as a script, in a process with other settings: another instruction set, or no compiler."""

import os
import subprocess
import sys

import pytest

# What other processors have: half of the lanes, and none but the oldest instructions.
OTHER_ISAS = ["avx2", pytest.param("generic", marks=pytest.mark.slow)]
OTHER_SETTINGS = [{}, {"TINYTORCH_ISA": "avx2"}, pytest.param({"TINYTORCH_ISA": "generic"}, marks=pytest.mark.slow),
                  {"NUMBA_DISABLE_JIT": "1"}]


def run_again(file: str, settings: dict[str, str], *arguments: str) -> None:
    """`python file *arguments` with these environment variables must end well; skips what this processor cannot run."""
    done = subprocess.run([sys.executable, file, *arguments], env=os.environ | settings, capture_output=True, text=True,
                          timeout=300)
    if "has no AVX2" in done.stderr:
        pytest.skip("this processor has no AVX2")
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-3000:]}"
