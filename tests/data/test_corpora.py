"""tinytorch.data.corpora: the texts that ship are the published ones."""

import hashlib
import string
from pathlib import Path

import pytest

from tinytorch import data
from tinytorch.data.corpora import _read
from tinytorch.data.files import SMALL

SHA256 = {
    "tinyshakespeare.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "names.txt": "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
    "tinytalks-train.txt": "734520b4597276ba75949402962ecb94c5e463ed8af1460eac86fbba2a1922be",
    "tinytalks-val.txt": "938da1b38d15c1f253bd3a6deb4f546df73d6a5e456d1f6220db280118819c1d",
    "tinytalks-test.txt": "4a44d204594c7f0a31202758de75af7fc8a1d17565423004ce8dd9d28bea99cb",
}


@pytest.mark.parametrize("name", SHA256)
def test_what_ships_is_the_published_text_zipped_without_a_time(name: str) -> None:
    assert hashlib.sha256(_read(name).encode()).hexdigest() == SHA256[name]
    assert (SMALL / f"{name}.gz").read_bytes()[4:8] == bytes(4)


def test_every_text_has_its_terms() -> None:
    terms = (SMALL / "LICENSE.md").read_text()
    for word in ("tinyshakespeare", "public domain", "names", "MIT", "Karpathy", "tinytalks", "CC BY 4.0"):
        assert word in terms


def test_texts() -> None:
    text = data.tinyshakespeare()
    assert len(text) == 1_115_394 and len(set(text)) == 65
    assert len(data.names()) == 32_033 and set("".join(data.names())) == set(string.ascii_lowercase)
    pairs = [pair for split in ("train", "val", "test") for pair in data.tinytalks(split)]  # type: ignore[arg-type]
    assert len(pairs) == 301 and all(q and a and "\n" not in q + a and not q.startswith("Q:") for q, a in pairs)
    with pytest.raises(ValueError, match="no split 'all'"):
        data.tinytalks("all")  # type: ignore[arg-type]


def test_texts_beside_the_full_sets_are_the_same(full_data: Path) -> None:
    assert (full_data / "text" / "tinyshakespeare.txt").read_text() == data.tinyshakespeare()
    assert (full_data / "text" / "names.txt").read_text().split() == data.names()
