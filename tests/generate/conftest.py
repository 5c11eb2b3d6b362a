"""A small model, what it must say, and a real one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_gpt import make_gpt

import tinytorch as tt
from tinytorch import nn

STORIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "stories260k"


@pytest.fixture(scope="session")
def gpt() -> nn.GPT:
    """One for all tests that leave it as it is."""
    return make_gpt()


@pytest.fixture
def logits_of(gpt: nn.GPT) -> Callable[[list[int]], np.ndarray]:
    """The logits of the token after these, by the whole model: what all else is held against."""
    def compute(tokens: list[int]) -> np.ndarray:
        with tt.no_grad():
            return np.asarray(gpt(tt.tensor([tokens])).numpy()[0, -1].astype(np.float64))

    return compute


@pytest.fixture
def stories() -> Path:
    """The folder of stories260K."""
    if not STORIES.is_dir():
        pytest.skip("shared/data/stories260k is not beside the checkout")
    return STORIES
