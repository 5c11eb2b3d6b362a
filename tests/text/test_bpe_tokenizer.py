"""BPETokenizer: every string comes back; merges are those of the definition; training depends on the texts alone."""

import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hard_texts import SAMPLES
from hypothesis import given
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.data import tinyshakespeare
from tinytorch.ir.errors import DTypeError, FormatError, OpError, ShapeError
from tinytorch.text import GPT2_PATTERN, BPETokenizer
from tinytorch.text.bytelevel import shown, splitter, to_bytes, to_text, unshown
from tinytorch.text.merging import apply_merges, learn_merges

STRINGS = st.text(st.characters(exclude_categories=()))  # surrogates too
WORDS = st.text("ab", max_size=12).map(str.encode)
LITTLE = "a tree, the theme, bananas, bandanas, lower, lowest, newer, newest " * 3
SMALL = BPETokenizer.train(LITTLE, 285, special_tokens=["<|end|>", "<|end|>!"])

# --- round trips


@given(STRINGS)
def test_round_trip_of_every_string(text: str) -> None:
    assert SMALL.decode(SMALL.encode(text)) == text
    assert SMALL.decode(SMALL.encode(text, allow_special=True)) == text


@given(STRINGS)
def test_ids_are_bytes_that_join(text: str) -> None:
    ids = SMALL.encode(text)
    assert b"".join(map(SMALL.token_bytes, ids)) == SMALL.decode_bytes(ids) == to_bytes(text)


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, r"[aeiou]", r"(\w)(\w)", r"[\s\S]+", r"x*", r"\p{Han}|(?i:THE)"])
def test_round_trip_whatever_the_pattern_leaves_out(pattern: str) -> None:
    tokenizer = BPETokenizer.train(SAMPLES.values(), 300, pattern=pattern)
    for text in SAMPLES.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(STRINGS, st.sampled_from([GPT2_PATTERN, r"a", r"(a)|b?", r""]))
def test_splitter_loses_nothing(text: str, pattern: str) -> None:
    parts = splitter(pattern)(text)
    assert "".join(parts) == text and "" not in parts


def test_pre_tokens_of_gpt2() -> None:
    parts = splitter(GPT2_PATTERN)("I've  2 naïve cats!!\n\n ok ")
    assert parts == ["I", "'ve", " ", " 2", " naïve", " cats", "!!", "\n\n", " ok", " "]


@given(st.binary(), st.binary())
def test_text_of_bytes_cut_anywhere(first: bytes, second: bytes) -> None:
    assert to_text(to_bytes(to_text(first + second))) == to_text(first + second)
    if "\\ud" not in ascii(to_text(first)):  # without surrogates it is what Python makes of broken UTF-8
        assert to_text(first) == first.decode("utf-8", "replace")


def test_ids_that_cut_a_character() -> None:
    ids = BPETokenizer.train("", 256).encode("\ud800né🙂")
    assert BPETokenizer.train("", 256).decode(ids[:-1]) == "\ud800né\ufffd"
    assert BPETokenizer.train("", 256).decode(ids[1:5]) == "\ufffd\ufffdn\ufffd"


def test_bytes_have_printable_names() -> None:
    names = [shown(bytes([byte])) for byte in range(256)]
    assert len(set(names)) == 256 and all(name.isprintable() and not name.isspace() for name in names)
    assert [unshown(name) for name in names] == [bytes([byte]) for byte in range(256)]
    assert shown(b" \n\0") == "ĠĊĀ" and unshown("a b") is None


# --- learning and applying merges, by definition


def slow_learn(counts: dict[bytes, int], tokens: list[bytes], size: int, least: int) -> list[tuple[int, int]]:
    """Count all pairs anew for each merge."""
    words = {word: [tokens.index(bytes([byte])) for byte in word] for word in counts}
    merges = []
    while len(tokens) < size:
        pairs: Counter[tuple[int, int]] = Counter()
        for word, ids in words.items():
            for pair in pairwise(ids):
                pairs[pair] += counts[word]
        if not pairs or max(pairs.values()) < least:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        words = {word: joined(ids, best, len(tokens)) for word, ids in words.items()}
        tokens.append(tokens[best[0]] + tokens[best[1]])
        merges.append(best)
    return merges


def joined(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """A pair joined from left to right."""
    for i, here in enumerate(pairwise(ids)):
        if here == pair:
            return [*ids[:i], new, *joined(ids[i + 2 :], pair, new)]
    return ids


@given(st.dictionaries(st.text("abc", max_size=12).map(str.encode), st.integers(1, 5), max_size=12), st.integers(1, 3))
def test_learning_is_counting_anew_each_time(counts: dict[bytes, int], least: int) -> None:
    fast, slow = [b"a", b"b", b"c"], [b"a", b"b", b"c"]
    assert learn_merges(counts, fast, 30, min_frequency=least) == slow_learn(counts, slow, 30, least)
    assert fast == slow and len(set(fast)) == len(fast)


@given(st.lists(st.text("ab", max_size=9).map(str.encode), max_size=8), WORDS)
def test_applying_is_the_first_learned_pair_again_and_again(corpus: list[bytes], word: bytes) -> None:
    tokens = [b"a", b"b"]
    merges = learn_merges(Counter(corpus), tokens, 20)
    ids = slow = [tokens.index(bytes([byte])) for byte in word]
    for order, pair in enumerate(merges):
        slow = joined(slow, pair, 2 + order)
    assert apply_merges(ids, {pair: i for i, pair in enumerate(merges)}, range(2, len(tokens))) == slow
    assert ids == [tokens.index(bytes([byte])) for byte in word]  # the word itself is left alone


def test_words_of_training_become_one_token() -> None:
    tokenizer = BPETokenizer.train(" banana bandana banana bandana", 300)
    assert [tokenizer.decode([i]) for i in tokenizer.encode(" banana bandana")] == [" banana", " bandana"]


def test_vocabulary_is_specials_bytes_merges() -> None:
    tokenizer = BPETokenizer.train(["low lower", "lowest"], 261, special_tokens=["<|b|>", "<|a|>"])
    assert tokenizer.special_tokens == ("<|b|>", "<|a|>") and tokenizer.vocab_size == 261
    assert [tokenizer.id_to_token(i) for i in (0, 1, 2, 257, 258)] == ["<|b|>", "<|a|>", "!", "Ń", "lo"]
    assert tokenizer.merges == ((b"l", b"o"), (b"lo", b"w"), (b"low", b"e"))
    for i in range(tokenizer.vocab_size):
        assert tokenizer.token_to_id(tokenizer.id_to_token(i)) == i
    assert tokenizer.token_bytes(258) == b"lo" and tokenizer.token_bytes(0) == b"<|b|>"


def test_min_frequency_and_the_end_of_pairs() -> None:
    assert BPETokenizer.train("ab ab cd", 1000, min_frequency=2).merges == ((b"a", b"b"),)
    everything = BPETokenizer.train("ab ab cd", 1000, min_frequency=1)
    assert everything.merges == ((b"a", b"b"), (b"c", b"d"), (b" ", b"ab"), (b" ", b"cd"))
    assert BPETokenizer.train("", 1000).vocab_size == BPETokenizer.train([], 256).vocab_size == 256


def test_one_string_is_one_text() -> None:
    assert BPETokenizer.train("abab abab", 300).merges == BPETokenizer.train(["abab abab"], 300).merges != ()
    assert BPETokenizer.train(iter(["abab", " abab"]), 300).merges == BPETokenizer.train("abab abab", 300).merges


def test_training_depends_on_nothing_else() -> None:
    code = ("from tinytorch.data import tinyshakespeare; from tinytorch.text import BPETokenizer; import hashlib; "
            "t = BPETokenizer.train(tinyshakespeare()[:60_000], 700, special_tokens=['<|e|>']); "
            "print(hashlib.sha256(repr((t.merges, t._id_of)).encode()).hexdigest())")  # fmt: skip
    seeds = ("0", "1")
    runs = [subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed},
                           capture_output=True, text=True, check=True).stdout for seed in seeds]  # fmt: skip
    assert runs[0] == runs[1] and len(runs[0]) == 65


def test_4096_merges_of_shakespeare_take_seconds() -> None:
    begun = time.process_time()
    tokenizer = BPETokenizer.train(tinyshakespeare(), 256 + 4096)
    assert time.process_time() - begun < 10
    assert len(tokenizer.merges) == 4096
    assert tokenizer.decode(tokenizer.encode(tinyshakespeare())) == tinyshakespeare()


def test_long_words_are_no_trap() -> None:
    begun = time.process_time()
    text = "ab" * 30_000
    assert SMALL.decode(SMALL.encode(text)) == text
    assert time.process_time() - begun < 5  # 0.3 s; trying each pair anew would take minutes


# --- special tokens


def test_special_tokens_are_text_unless_allowed() -> None:
    text = "a<|end|>!b<|end|><|en"
    plain, special = SMALL.encode(text), SMALL.encode(text, allow_special=True)
    assert not {0, 1} & set(plain.tolist()) and SMALL.decode(plain) == text
    names = [SMALL.id_to_token(i) for i in special]
    assert names[:4] == ["a", "<|end|>!", "b", "<|end|>"] and SMALL.decode(special) == text  # the longest that fits
    assert SMALL.encode("<|end|>", allow_special=True).tolist() == [0]


def test_special_tokens_are_never_learned_as_merges() -> None:
    text = "the<|end|> then<|end|> the<|end|> " * 5
    tokenizer = BPETokenizer.train(text, 300, special_tokens=["the", "<|end|>"])
    assert not {b"the", b"end"} & {left + right for left, right in tokenizer.merges}
    assert tokenizer.token_to_id("the") not in tokenizer.encode("the then")
    assert tokenizer.encode("the then", allow_special=True)[0] == tokenizer.token_to_id("the")
    named_alike = BPETokenizer.train("the the the the", 300, special_tokens=["Ġthe"])  # as files write " the"
    assert 0 not in named_alike.encode(" the the") and named_alike.decode([0]) == "Ġthe"
    reserved = learn_merges({b"abab": 3, b"abc": 2}, tokens := [b"a", b"b", b"c"], 9, reserved=[b"ab"])
    assert b"ab" not in tokens and reserved[0] == (1, 0)


@pytest.mark.parametrize("name", ["", "a", "Ġ", "\ud800"])
def test_special_tokens_that_cannot_be(name: str) -> None:
    with pytest.raises(OpError, match="the special token"):
        BPETokenizer.train("", 300, special_tokens=[name])


# --- the rest of the surface


def test_batch_empty_string_and_dtype() -> None:
    batch = SMALL.encode_batch([" lower", "", "<|end|>"], allow_special=True, dtype=np.uint16)
    assert [ids.shape for ids in batch] == [(1,), (0,), (1,)] and {ids.dtype for ids in batch} == {np.dtype(np.uint16)}
    assert SMALL.encode("").dtype == np.int32 and SMALL.decode([]) == ""
    assert SMALL.decode(tt.tensor(SMALL.encode("the band"))) == "the band"


def test_pickle_for_worker_processes() -> None:
    SMALL.encode("fills the cache")
    again = pickle.loads(pickle.dumps(SMALL))
    assert repr(again) == repr(SMALL) == "BPETokenizer(vocab_size=285, special_tokens=('<|end|>', '<|end|>!'))"
    for text in SAMPLES.values():
        assert again.encode(text).tolist() == SMALL.encode(text).tolist()


def test_cache_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinytorch.text.bpe._MOST_WORDS", 3)
    tokenizer = BPETokenizer.train("a thin band a thin band", 270)
    text = " a b c d e f g thin band " + "x" * 1000
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert 0 < len(tokenizer._cache) <= 3 and "x" * 1000 not in tokenizer._cache


def test_progress_is_shown_on_a_terminal_after_a_while(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    BPETokenizer.train("abab", 257)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    BPETokenizer.train("abab", 257, progress=False)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("tinytorch.text.progress._PATIENCE", -1.0)
    BPETokenizer.train("abab", 257)
    out, err = capsys.readouterr()
    assert out == "" and "Learning merges" in err


BAD_CALLS: list[tuple[Any, type[Exception], str]] = [
    (lambda: SMALL.encode(b"the"), OpError, "bytes become text"),
    (lambda: SMALL.encode("the", dtype=np.uint8), DTypeError, "0 … 284; np.int32 can"),
    (lambda: SMALL.encode_batch("the"), OpError, "several texts"),
    (lambda: SMALL.decode([1, 285]), IndexError, "id 285 at position 1 is not one of the 285"),
    (lambda: SMALL.decode([[1]]), ShapeError, "row by row"),
    (lambda: SMALL.decode("the"), ShapeError, "expected"),
    (lambda: SMALL.token_bytes(-1), IndexError, "id -1"),
    (lambda: SMALL.token_to_id("zzz"), FormatError, "no such token among 285"),
    (lambda: BPETokenizer.train("", 255), OpError, "256 at least, the 256 bytes"),
    (lambda: BPETokenizer.train("", 257, special_tokens=["<a>", "<b>"]), OpError, "258 .* and 2 special"),
    (lambda: BPETokenizer.train("", 300, special_tokens=["<a>", "<a>"]), OpError, "twice"),
    (lambda: BPETokenizer.train([b"a"], 300), OpError, "got a bytes"),
    (lambda: BPETokenizer.train("", 300, pattern="("), OpError, "no regular expression"),
    (lambda: BPETokenizer({"a": 0}, []), FormatError, "not in the vocabulary, but it is one of the 256 bytes"),
]


@pytest.mark.parametrize(("call", "error", "told"), BAD_CALLS)
def test_bad_calls_are_told(call: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call()
