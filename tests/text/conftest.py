"""What the tests of text share: real text, a trained tokeniser, and GPT-2's files where they are at hand."""

from pathlib import Path

import pytest
from hard_texts import SAMPLES

from tinytorch.data import tinyshakespeare
from tinytorch.text import BPETokenizer

GPT2 = Path(__file__).parents[3] / "shared" / "data" / "gpt2_bpe"

@pytest.fixture(scope="session")
def gpt2_folder() -> Path:
    """The folder of GPT-2's two files, or the test is skipped, saying where they would be."""
    if not (GPT2 / "encoder.json").exists():
        pytest.skip("GPT-2's encoder.json and vocab.bpe are absent: put them into ../shared/data/gpt2_bpe")
    return GPT2


@pytest.fixture(scope="session")
def gpt2(gpt2_folder: Path) -> BPETokenizer:
    """GPT-2's tokeniser."""
    return BPETokenizer.from_gpt2(gpt2_folder)


@pytest.fixture(scope="session")
def corpus() -> str:
    """Some 40 kB of real text that ships: the letters of Latin, Greek and code are all in there."""
    return tinyshakespeare()[:40_000] + "".join(SAMPLES.values())


@pytest.fixture(scope="session")
def trained(corpus: str) -> BPETokenizer:
    """A tokeniser with two special tokens and some 400 merges."""
    return BPETokenizer.train(corpus, 660, special_tokens=["<|endoftext|>", "<|pad|>"])
