"""Run a test file again as a script, in a process with other settings: another instruction set, or no compiler."""

import os
import subprocess
import sys

import pytest


def run_again(file: str, settings: dict[str, str], *arguments: str) -> None:
    """`python file *arguments` with these environment variables must end well; skips what this processor cannot run."""
    done = subprocess.run([sys.executable, file, *arguments], env=os.environ | settings, capture_output=True, text=True,
                          timeout=300)
    if "has no AVX2" in done.stderr:
        pytest.skip("this processor has no AVX2")
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-3000:]}"
