"""Tokenisers as JSON: `read_json(path)`, `write_json(path, document)`, and the frame of the `tokenizers` format.

A file of the `tokenizers` library can ask for much that changes ids: normalisers, prefixes, dropout. Whatever this
package does not do is refused by name, since a tokeniser that loads and gives other ids is worse than none.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinytorch.ir.errors import FormatError, OpError
from tinytorch.ir.files import write_atomically


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document, whole or not at all; in ASCII, so that any string can stand in it."""
    write_atomically(path, json.dumps(document, indent=1).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises FormatError for anything else."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is no JSON, or damaged ({error})") from None
    return member({"": found}, "", dict)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Whatever is wrong inside is told with the name of the file and the way out."""
    try:
        yield
    except (FormatError, OpError) as error:
        raise FormatError(f"{path}: {error}\ntry: train the tokeniser anew and save it, or get the file anew") from None


def frame(model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A whole document of the `tokenizers` library around a model."""
    steps = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    nothing: dict[str, Any] = dict.fromkeys(("truncation", "padding", *steps))
    return {"version": "1.0", **nothing, "added_tokens": [], **parts, "model": model}


def model_of(document: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The model of a document, which is of the kind that is wanted and asks for nothing that changes texts or ids."""
    model = member(document, "model", dict)
    if model.get("type", kind) != kind:
        reader = {"BPE": "; BPETokenizer.load reads it", "WordLevel": "; CharTokenizer.load reads it"}
        raise FormatError(f"it holds a {model['type']!r} model, expected {kind!r}{reader.get(str(model['type']), '')}")
    agree(document, {"truncation": (None,), "padding": (None,), "normalizer": (None,)})
    return model


def agree(found: Mapping[str, Any], wanted: Mapping[str, tuple[Any, ...]], of: str = "") -> None:
    """Raise FormatError unless each setting has one of the values that this package can do; absent is None."""
    for key, values in wanted.items():
        if found.get(key) not in values:
            raise FormatError(f"{of}{key} is {shortened(found.get(key))}, which tinytorch does not do; "
                              f"expected {shortened(values[0])}")  # fmt: skip


def member(found: Mapping[str, Any], key: str, kind: type) -> Any:
    """A member of a JSON object, which is of the type that is wanted. Raises FormatError otherwise."""
    value = found.get(key)
    if not isinstance(value, kind):
        what = f"{key!r}" if key else "the whole"
        raise FormatError(f"{what} is {shortened(value)}, expected {_KINDS[kind]}")
    return value


def names_of(vocab: Mapping[str, Any]) -> list[str]:
    """The names of a vocabulary by id. Raises FormatError unless the ids are 0, 1, 2 … without a gap."""
    for name, id in vocab.items():
        if type(id) is not int:
            raise FormatError(f"the id of {name!r} is {shortened(id)}, expected an integer")
    names = sorted(vocab, key=vocab.__getitem__)
    for expected, name in enumerate(names):
        if vocab[name] != expected:
            raise FormatError(f"the ids of {len(names):,} tokens must be 0 … {len(names) - 1}, each once; "
                              f"{name!r} has {vocab[name]} where {expected} was expected")  # fmt: skip
    return names


def shortened(value: object) -> str:
    """A value for messages: JSON, at most 60 characters."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
