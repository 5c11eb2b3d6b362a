"""CharTokenizer: one id a character, whatever the characters; unknown ones are told or replaced; files go both ways."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.ir.errors import DTypeError, FormatError, OpError, ShapeError
from tinytorch.text import CharTokenizer

STRINGS = st.text(st.characters(exclude_categories=()))  # surrogates too


@given(STRINGS)
def test_round_trip_of_every_string(text: str) -> None:
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert ids.shape == (len(text),) and ids.dtype == np.int32
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == len(set(text))


@given(STRINGS, STRINGS)
def test_unknown_characters_become_unk(known: str, text: str) -> None:
    tokenizer = CharTokenizer.train(known, unk="<unk>")
    expected = "".join(char if char in known else "<unk>" for char in text)
    assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_ids_follow_the_code_points_as_in_sorted_set() -> None:
    text = "to be, or not to be é 🙂"
    chars = sorted(set(text))
    assert CharTokenizer.train(text).encode(text).tolist() == [chars.index(char) for char in text]
    assert CharTokenizer.train([text[:5], text[5:]]).encode(text).tolist() == [chars.index(char) for char in text]


@pytest.mark.parametrize(
    ("text", "told"),
    [("abé", r"'é' \(U\+00E9, LATIN SMALL LETTER E WITH ACUTE\) at position 2 .* the 3"),
     ("\U0010ffff", r"U\+10FFFF, without a name\) at position 0"), ("\x00", "position 0"), ("bbbb cA", "position 4"),
     ("ac\ud800", r"U\+D800")],
)  # fmt: skip
def test_unknown_character_is_told_with_its_position(text: str, told: str) -> None:
    with pytest.raises(FormatError, match=told):
        CharTokenizer("abc").encode(text)


def test_unk_may_be_one_of_the_characters() -> None:
    tokenizer = CharTokenizer("ab?", unk="?")
    assert tokenizer.vocab_size == 3 and tokenizer.encode("a!?").tolist() == [0, 2, 2]
    assert CharTokenizer("ab", unk="<unk>").encode("<a").tolist() == [2, 0]  # the text of unk is a text like any other


def test_nothing_to_encode() -> None:
    tokenizer = CharTokenizer("ab")
    assert tokenizer.encode("").shape == (0,) and tokenizer.encode("").dtype == np.int32
    assert tokenizer.decode([]) == "" and tokenizer.encode_batch([]) == []
    with pytest.raises(FormatError, match="position 0"):
        CharTokenizer.train("").encode("a")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_dtype_is_what_was_asked_for(dtype: type) -> None:
    assert CharTokenizer("ab").encode("ba", dtype=dtype).dtype == dtype


def test_ids_come_from_lists_arrays_and_tensors() -> None:
    tokenizer = CharTokenizer("abc")
    for ids in ([2, 0], (2, 0), np.array([2, 0], np.uint8), tt.tensor([2, 0])):
        assert tokenizer.decode(ids) == "ca"


BAD_CALLS: list[tuple[Any, type[Exception], str]] = [
    (lambda t: t.encode(b"ab"), OpError, "bytes become text"),
    (lambda t: t.encode(None), OpError, "got a NoneType"),
    (lambda t: t.encode("a", dtype=np.float32), DTypeError, "np.int32 can"),
    (lambda t: t.decode([0, 3]), IndexError, "id 3 at position 1 is not one of the 3"),
    (lambda t: t.decode([-1]), IndexError, "id -1 at position 0"),
    (lambda t: t.decode([[0], [1]]), ShapeError, r"\(2, 1\).*row by row"),
    (lambda t: t.decode(1), ShapeError, r"expected \(n,\)"),
    (lambda t: t.decode([0.5]), DTypeError, "float64"),
    (lambda t: t.encode_batch("ab"), OpError, "several texts"),
    (lambda t: t.token_to_id("z"), FormatError, "'z'"),
    (lambda t: t.id_to_token(3), IndexError, "id 3"),
    (lambda t: CharTokenizer(["a", "bc"]), OpError, "'bc' is not one character"),
    (lambda t: CharTokenizer("aba"), OpError, "'a' is there twice"),
    (lambda t: CharTokenizer("ab", unk=""), OpError, "unk=''"),
    (lambda t: CharTokenizer("ab", unk="\ud800"), OpError, "stand for unknown"),
    (lambda t: CharTokenizer.train([b"ab"]), OpError, "got a bytes"),
    (lambda t: CharTokenizer([chr(i) for i in range(300)]).encode("", dtype=np.uint8), DTypeError, "0 … 299"),
]


@pytest.mark.parametrize(("call", "error", "told"), BAD_CALLS)
def test_bad_calls_are_told(call: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call(CharTokenizer("abc"))


@pytest.mark.parametrize("unk", [None, "<unk>", "b"])
def test_file_gives_the_same_tokenizer(unk: str | None, tmp_path: Path) -> None:
    tokenizer = CharTokenizer.train("abc é🙂\n\x00\ud800", unk=unk)
    tokenizer.save(tmp_path / "chars.json")
    for again in (CharTokenizer.load(tmp_path / "chars.json"), pickle.loads(pickle.dumps(tokenizer))):
        assert again.unk == unk and repr(again) == repr(tokenizer)
        assert again.encode("cab\n🙂\x00\ud800").tolist() == tokenizer.encode("cab\n🙂\x00\ud800").tolist()


@pytest.mark.peers("tokenizers")
@pytest.mark.parametrize("unk", [None, "<unk>"])
def test_library_loads_our_file(unk: str | None, tmp_path: Path, peer: Any) -> None:
    text = "First Citizen:\n\nBefore  we proceed é東🙂 <unk>"
    tokenizer = CharTokenizer.train(text, unk=unk)
    tokenizer.save(tmp_path / "chars.json")
    theirs = peer("tokenizers").Tokenizer.from_file(str(tmp_path / "chars.json"))
    assert theirs.encode(text).ids == tokenizer.encode(text).tolist()
    assert theirs.decode(theirs.encode(text).ids) == text
    if unk:
        assert theirs.encode("F!Z").ids == tokenizer.encode("F!Z").tolist()
    else:
        with pytest.raises(Exception, match="UNK"):
            theirs.encode("F!Z")
    theirs.save(str(tmp_path / "theirs.json"))
    assert CharTokenizer.load(tmp_path / "theirs.json").encode(text).tolist() == tokenizer.encode(text).tolist()


def _changed(**changes: Any) -> bytes:
    document = CharTokenizer("ab")._document()
    return json.dumps({**document, **changes}).encode()


def _model(**changes: Any) -> bytes:
    return _changed(model={"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "", **changes})


BAD_FILES: list[tuple[bytes, str]] = [
    (b"", "no JSON"),
    (b"\xff\xfe", "no JSON"),
    (b"[" * 100_000, "no JSON"),
    (_changed()[:100], "no JSON, or damaged"),
    (b"[]", "the whole is .*expected an object"),
    (b"{}", "'model' is null"),
    (_model(type="BPE"), "'BPE' model, expected 'WordLevel'; BPETokenizer.load"),
    (_model(type=3), "3 model"),
    (_model(vocab=["a"]), "'vocab' is"),
    (_model(vocab={"a": 0, "b": 2}), "'b' has 2 where 1"),
    (_model(vocab={"a": 0, "b": 0}), "each once"),
    (_model(vocab={"a": 0, "b": True}), "id of 'b' is true"),
    (_model(vocab={"a": 0, "b": -1}), "each once"),
    (_model(vocab={"a": 0, "the": 1}), "'the' is not one character"),
    (_model(unk_token=None), "'unk_token' is null"),
    (_changed(normalizer={"type": "NFC"}), "normalizer is .*NFC"),
    (_changed(pre_tokenizer={"type": "Whitespace"}), "Whitespace.*does not do"),
    (_changed(added_tokens=[{"id": 9, "content": "<s>"}]), "added_tokens is"),
]


@pytest.mark.parametrize(("content", "told"), BAD_FILES)
def test_bad_files_are_told(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"bad.json: .*{told}") as error:
        CharTokenizer.load(path)
    assert "\ntry: " in str(error.value)


def test_file_that_is_absent_or_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        CharTokenizer.load(tmp_path / "none.json")
    with pytest.raises(OSError):
        CharTokenizer("ab").save(tmp_path / "no folder" / "chars.json")
    assert not list(tmp_path.iterdir())
