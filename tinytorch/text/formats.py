"""The two file formats of byte-level BPE: a document of the `tokenizers` library, and GPT-2's pair of files.

Both give the parts that `BPETokenizer(**parts)` takes: names and ids, merges, special tokens, a pattern.

    >>> from tinytorch.text.formats import bpe_document, bpe_parts
    >>> document = bpe_document({"a": 0, "b": 1, "ab": 2}, [("a", "b")], [], r"\\S+|\\s+")
    >>> document["model"]["merges"], bpe_parts(document)["pattern"]
    (['a b'], '\\\\S+|\\\\s+')
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinytorch.ir.errors import FormatError

from .bytelevel import GPT2_PATTERN, unshown
from .files import agree, frame, member, model_of, read_json, shortened

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def bpe_document(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], specials: Sequence[str], pattern: str
) -> dict[str, Any]:
    """What the `tokenizers` library loads. Merges are written as "a b", which every release of it reads."""
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": dict(vocab), "merges": [f"{left} {right}" for left, right in merges]}  # fmt: skip
    added = [{"id": vocab[name], "content": name, **_SPECIAL} for name in sorted(specials, key=vocab.__getitem__)]
    return frame(model, added_tokens=added, pre_tokenizer=_pre_tokenizer(pattern), decoder=_BYTE_LEVEL)


def bpe_parts(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a byte-level BPE from a document. Raises FormatError for any other document."""
    model = model_of(document, "BPE")
    empty, no = (None, ""), (False, None)
    agree(model, {"dropout": (None, 0), "continuing_subword_prefix": empty, "end_of_word_suffix": empty,
                  "byte_fallback": no, "ignore_merges": no}, "model.")  # fmt: skip
    for step in ("post_processor", "decoder"):
        agree(document.get(step) or {}, {"type": ("ByteLevel", None)}, f"{step}.")
    vocab = dict(member(model, "vocab", dict))
    specials = _added_tokens(document, vocab)
    merges = [_pair(merge) for merge in member(model, "merges", list)]
    return {"vocab": vocab, "merges": merges, "special_tokens": specials, "pattern": _pattern(document)}


def read_gpt2(encoder: Path, merges: Path, specials: Sequence[str]) -> dict[str, Any]:
    """The parts of GPT-2's tokeniser from encoder.json and vocab.bpe. Raises FormatError for damaged files."""
    vocab = read_json(encoder)
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{merges.name} is no UTF-8 text ({error})") from None
    pairs = [_pair(line) for line in lines[lines[0].startswith("#version") :] if line]
    made = {left + right for left, right in pairs}.union(specials)
    if left_out := [name for name in vocab if name not in made and len(unshown(name) or b"") != 1]:
        raise FormatError(f"{merges.name} is cut off, or special_tokens lacks some: {len(left_out):,} tokens of "
                          f"{encoder.name} are made by no merge, such as {left_out[0]!r}")  # fmt: skip
    return {"vocab": vocab, "merges": pairs, "special_tokens": specials}


def _pre_tokenizer(pattern: str) -> dict[str, Any]:
    if pattern == GPT2_PATTERN:
        return _BYTE_LEVEL
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**_BYTE_LEVEL, "use_regex": False}]}


def _pattern(document: Mapping[str, Any]) -> str:
    """The pattern of one of the two documents that `_pre_tokenizer` makes."""
    found = member(document, "pre_tokenizer", dict)
    steps = found.get("pretokenizers") if found.get("type") == "Sequence" else [found]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise FormatError(f"'pre_tokenizer' is {shortened(found)}, expected ByteLevel, or Split and ByteLevel")
    *splits, last = steps
    agree(last, {"type": ("ByteLevel",), "add_prefix_space": (False,)}, "pre_tokenizer.")
    if not splits:
        agree(last, {"use_regex": (True, None)}, "pre_tokenizer.")
        return GPT2_PATTERN
    agree(last, {"use_regex": (False,)}, "pre_tokenizer.")
    if len(splits) > 1:
        raise FormatError(f"'pre_tokenizer' has {len(steps)} steps, expected ByteLevel, or Split and ByteLevel")
    agree(splits[0], {"type": ("Split",), "behavior": ("Isolated",), "invert": (False, None)}, "pre_tokenizer.")
    pattern: str = member(member(splits[0], "pattern", dict), "Regex", str)
    return pattern


def _added_tokens(document: Mapping[str, Any], vocab: dict[str, int]) -> list[str]:
    """The added tokens, all of which count as special; those that the model does not have join its vocabulary."""
    names = []
    for token in document.get("added_tokens") or []:
        if not isinstance(token, dict):
            raise FormatError(f"an added token is {shortened(token)}, expected an object")
        name = member(token, "content", str)
        agree(token, dict.fromkeys(("single_word", "lstrip", "rstrip"), (False, None)), f"added token {name!r}: ")
        if vocab.setdefault(name, token.get("id", -1)) != token.get("id"):
            raise FormatError(f"the added token {name!r} has the id {token.get('id')}, in the model {vocab[name]}")
        names.append(name)
    return names


def _pair(merge: object) -> tuple[str, str]:
    """A merge, written "a b" or ["a", "b"]."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise FormatError(f'a merge is {shortened(merge)}, expected two tokens, "a b" or ["a", "b"]')
    return parts[0], parts[1]
