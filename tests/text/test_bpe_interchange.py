"""The ids are those of the peers: `tiktoken` for GPT-2, `tokenizers` for files and training, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest
from hard_texts import SAMPLES

from tinytorch.data import names, tinyshakespeare
from tinytorch.ir.errors import FormatError
from tinytorch.text import GPT2_PATTERN, BPETokenizer

TEXTS = list(SAMPLES.values())
GPT4_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")  # fmt: skip

# --- GPT-2


@pytest.fixture(scope="session")
def tiktoken_gpt2(gpt2_folder: Path) -> Any:
    """tiktoken's GPT-2, from the same two files."""
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    ranks = data_gym_to_mergeable_bpe_ranks(str(gpt2_folder / "vocab.bpe"), str(gpt2_folder / "encoder.json"))
    return tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks,
                             special_tokens={"<|endoftext|>": 50256})  # fmt: skip


def test_gpt2_known_ids(gpt2: BPETokenizer) -> None:
    assert gpt2.vocab_size == 50257 and gpt2.special_tokens == ("<|endoftext|>",) and len(gpt2.merges) == 50_000
    assert gpt2.encode("Hello world").tolist() == [15496, 995]
    assert gpt2.encode("<|endoftext|>", allow_special=True).tolist() == [50256]
    assert gpt2.merges[0] == (b" ", b"t") and gpt2.token_to_id("Ġthe") == 262 and gpt2.token_bytes(262) == b" the"


@pytest.mark.parametrize("sample", SAMPLES)
def test_gpt2_samples_as_tiktoken(sample: str, gpt2: BPETokenizer, tiktoken_gpt2: Any) -> None:
    text = SAMPLES[sample]
    assert gpt2.encode(text).tolist() == tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.encode(text, allow_special=True).tolist() == tiktoken_gpt2.encode(text, allowed_special="all")
    assert gpt2.decode(gpt2.encode(text)) == text


@pytest.mark.parametrize("corpus", ["tinyshakespeare", "names", "code"])
def test_gpt2_real_text_as_tiktoken(corpus: str, gpt2: BPETokenizer, tiktoken_gpt2: Any) -> None:
    code = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))
    text = {"tinyshakespeare": tinyshakespeare(), "names": "\n".join(names()), "code": code}[corpus]
    ids = gpt2.encode(text)
    assert ids.tolist() == tiktoken_gpt2.encode_ordinary(text) and len(ids) > 5_000
    assert gpt2.decode(ids) == text


def test_gpt2_every_character_as_tiktoken(gpt2: BPETokenizer, tiktoken_gpt2: Any) -> None:
    codes = [code for code in range(0x3000) if not 0xD800 <= code < 0xE000]  # every class of sign and blank
    for code in codes:
        text = f"a{chr(code)}b 1{chr(code) * 2} "
        assert gpt2.encode(text).tolist() == tiktoken_gpt2.encode_ordinary(text), hex(code)


def test_gpt2_broken_characters_as_tiktoken(gpt2: BPETokenizer, tiktoken_gpt2: Any) -> None:
    ids = gpt2.encode("🙂東é").tolist()
    for start in range(len(ids)):
        for end in range(start, len(ids) + 1):
            assert gpt2.decode(ids[start:end]) == tiktoken_gpt2.decode(ids[start:end])


# --- files of the tokenizers library


@pytest.fixture(scope="session")
def library() -> Any:
    """The `tokenizers` library."""
    return pytest.importorskip("tokenizers")


def same_ids(ours: BPETokenizer, theirs: Any) -> None:
    """Compare ids, text and names on all samples."""
    for text in TEXTS:
        encoding = theirs.encode(text)
        assert ours.encode(text, allow_special=True).tolist() == encoding.ids
        assert theirs.decode(encoding.ids, skip_special_tokens=False) == text == ours.decode(encoding.ids)
        assert [ours.id_to_token(i) for i in encoding.ids] == encoding.tokens
    assert ours.vocab_size == theirs.get_vocab_size() and theirs.get_vocab() == ours._id_of


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, GPT4_PATTERN, r"[aeiou]+"])
def test_library_loads_our_file_and_we_load_what_it_saves(
    pattern: str, corpus: str, library: Any, tmp_path: Path
) -> None:
    ours = BPETokenizer.train(corpus, 500, special_tokens=["<|endoftext|>", "<|a b|>"], pattern=pattern)
    ours.save(tmp_path / "ours.json")
    theirs = library.Tokenizer.from_file(str(tmp_path / "ours.json"))
    same_ids(ours, theirs)
    theirs.save(str(tmp_path / "theirs.json"))
    again = BPETokenizer.load(tmp_path / "theirs.json")
    assert again.merges == ours.merges and again.pattern == pattern and again.special_tokens == ours.special_tokens
    same_ids(again, theirs)


def test_library_loads_gpt2_from_us(gpt2: BPETokenizer, library: Any, tmp_path: Path) -> None:
    gpt2.save(tmp_path / "gpt2.json")
    same_ids(gpt2, library.Tokenizer.from_file(str(tmp_path / "gpt2.json")))
    assert BPETokenizer.load(tmp_path / "gpt2.json").merges == gpt2.merges


def their_training(library: Any, texts: list[str], size: int, least: int, special: list[str]) -> Any:
    """A byte-level BPE that the library trains."""
    level = library.pre_tokenizers.ByteLevel
    theirs = library.Tokenizer(library.models.BPE())
    theirs.pre_tokenizer, theirs.decoder = level(add_prefix_space=False), library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(vocab_size=size, min_frequency=least, initial_alphabet=level.alphabet(),
                                          special_tokens=special, show_progress=False)  # fmt: skip
    theirs.train_from_iterator(texts, trainer)
    return theirs


@pytest.mark.parametrize(("size", "least", "special"), [(900, 2, []), (700, 1, ["<pad>", "<eos>"]), (9000, 5, [])])
def test_training_is_that_of_the_library(
    size: int, least: int, special: list[str], corpus: str, library: Any, tmp_path: Path
) -> None:
    ours = BPETokenizer.train(corpus, size, special_tokens=special, min_frequency=least)
    theirs = their_training(library, [corpus], size, least, special)
    theirs.save(str(tmp_path / "theirs.json"))
    loaded = BPETokenizer.load(tmp_path / "theirs.json")
    assert loaded.merges == ours.merges and loaded.special_tokens == tuple(special)
    same_ids(ours, theirs)
    same_ids(loaded, theirs)


def test_added_tokens_outside_the_model(library: Any, tmp_path: Path) -> None:
    theirs = their_training(library, TEXTS, 300, 2, [])
    theirs.add_special_tokens(["<|endoftext|>", "<new>"])
    theirs.save(str(tmp_path / "theirs.json"))
    ours = BPETokenizer.load(tmp_path / "theirs.json")
    assert ours.token_to_id("<new>") == 301 and ours.special_tokens == ("<|endoftext|>", "<new>")
    same_ids(ours, theirs)


# --- files that are none

TINY = BPETokenizer.train("the theme", 259, special_tokens=["<|end|>"])


def changed(path: str, value: Any) -> bytes:
    """The file of a small tokeniser with one member, "a.b", replaced."""
    document = json.loads(json.dumps(TINY._document()))
    *above, last = path.split(".")
    inner = document
    for key in above:
        inner = inner[key]
    inner[last] = value
    return json.dumps(document).encode()


VOCAB: dict[str, Any] = TINY._document()["model"]["vocab"]
FEWER = {name: id for name, id in VOCAB.items() if id < 258}
END = {"id": 0, "content": "<|end|>"}
TWO = {"type": "Sequence"}
SPLIT = {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
BAD_FILES: list[tuple[bytes, str]] = [
    (b"", "no JSON"),
    (changed("model.type", "BPE")[:500], "no JSON, or damaged"),
    (b"[1]", r"the whole is \[1\]"),
    (changed("model", None), "'model' is null, expected an object"),
    (changed("model.type", "WordLevel"), "expected 'BPE'; CharTokenizer.load"),
    (changed("model.type", "Unigram"), "'Unigram' model, expected 'BPE'\n"),
    (changed("model.dropout", 0.1), "model.dropout is 0.1, which tinytorch does not do"),
    (changed("model.end_of_word_suffix", "</w>"), "end_of_word_suffix is .</w>"),
    (changed("model.byte_fallback", True), "byte_fallback is true"),
    (changed("model.ignore_merges", True), "ignore_merges is true"),
    (changed("model.vocab", 3), "'vocab' is 3"),
    (changed("model.vocab", {**VOCAB, "x y": 259}), "'x y' is neither special nor"),
    (changed("model.vocab", {**VOCAB, "": 259}), "'' is neither special nor"),
    (changed("model.vocab", {**VOCAB, "zz": 300}), "'zz' has 300 where 259"),
    (changed("model.vocab", {**VOCAB, "zz": "9"}), "id of 'zz' is \"9\""),
    (changed("model.vocab", FEWER), "'the' is not in the vocabulary, .* a merge makes"),
    (changed("model.vocab", {"<|end|>": 0, "a": 1}), "not in the vocabulary"),
    (changed("model.merges", {}), "'merges' is {}"),
    (changed("model.merges", ["t h e"]), 'a merge is "t h e", expected two tokens'),
    (changed("model.merges", [["t"]]), r"a merge is \[\"t\"\]"),
    (changed("model.merges", ["t "]), "a merge is"),
    (changed("model.merges", ["t q"]), "'tq' is not in the vocabulary"),
    (changed("model.merges", ["t qq"]), "'qq' is not in the vocabulary, but it is part of a merge"),
    (changed("model.merges", ["<|end|> t"]), "is a special token, but it is part of a merge"),
    (changed("added_tokens", [3]), "an added token is 3"),
    (changed("added_tokens", [{**END, "id": 5}]), "has the id 5, in the model 0"),
    (changed("added_tokens", [{**END, "lstrip": True}]), "'<.end.>': lstrip is true"),
    (changed("added_tokens", [{"content": "<new>"}]), "'<new>' has the id None"),
    (changed("added_tokens", [END, {"id": VOCAB["$"], "content": "$"}]), "the name of a byte"),
    (changed("normalizer", {"type": "Lowercase"}), "normalizer is .*Lowercase"),
    (changed("truncation", {"max_length": 9}), "truncation is"),
    (changed("post_processor", {"type": "TemplateProcessing"}), "post_processor.type is"),
    (changed("decoder", {"type": "Metaspace"}), "decoder.type is"),
    (changed("pre_tokenizer", None), "'pre_tokenizer' is null"),
    (changed("pre_tokenizer.add_prefix_space", True), "add_prefix_space is true"),
    (changed("pre_tokenizer.use_regex", False), "use_regex is false"),
    (changed("pre_tokenizer", {"type": "Whitespace"}), "type is .Whitespace"),
    (changed("pre_tokenizer", {**TWO, "pretokenizers": []}), "expected ByteLevel, or Split and ByteLevel"),
    (changed("pre_tokenizer", {**TWO, "pretokenizers": [SPLIT, SPLIT, LEVEL]}), "has 3 steps"),
    (changed("pre_tokenizer", {**TWO, "pretokenizers": [SPLIT, LEVEL]}), "no regular expression"),
    (changed("pre_tokenizer", {**TWO, "pretokenizers": [{**SPLIT, "behavior": "Removed"}, LEVEL]}), "Removed"),
]  # fmt: skip


def test_older_way_of_writing_a_file(tmp_path: Path) -> None:
    document = json.loads(changed("post_processor", {"type": "ByteLevel", "trim_offsets": False}))
    del document["model"]["type"], document["pre_tokenizer"]["use_regex"]
    document["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "unk_token": ""}
    document["model"]["merges"] = [["h", "e"], ["t", "he"]]
    (tmp_path / "old.json").write_text(json.dumps(document))
    assert BPETokenizer.load(tmp_path / "old.json").merges == TINY.merges


@pytest.mark.parametrize(("content", "told"), BAD_FILES)
def test_bad_files_are_told(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=rf"(?s)bad\.json: .*{told}.*try: "):
        BPETokenizer.load(path)


def test_bad_files_of_gpt2(tmp_path: Path) -> None:
    vocab, merges = tmp_path / "encoder.json", tmp_path / "vocab.bpe"
    with pytest.raises(FileNotFoundError, match=r"encoder\.json"):
        BPETokenizer.from_gpt2(tmp_path)
    vocab.write_text(json.dumps(VOCAB))
    damaged = [(b"#version: 0.2\nt h e\n", '"t h e"'), (b"h e\nt he\nt z\n", "'tz' is not in"), (b"\xff", "no UTF-8")]
    for content, told in damaged:
        merges.write_bytes(content)
        with pytest.raises(FormatError, match=told):
            BPETokenizer.from_gpt2(tmp_path, special_tokens=["<|end|>"])
    merges.write_bytes(b"#version: 0.2\nh e\n")
    with pytest.raises(FormatError, match="vocab.bpe is cut off, or .* 1 tokens .* no merge, such as 'the'"):
        BPETokenizer.from_gpt2(tmp_path, special_tokens=["<|end|>"])
    merges.write_bytes(b"#version: 0.2\nh e\nt he\n")
    with pytest.raises(FormatError, match="special_tokens lacks some: 1 tokens .*, such as '<.end.>'"):
        BPETokenizer.from_gpt2(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (vocab if name == "vocab.json" else merges).rename(tmp_path / name)
    again = BPETokenizer.from_gpt2(tmp_path, encoder="vocab.json", merges="merges.txt", special_tokens=["<|end|>"])
    assert again.merges == TINY.merges and again.special_tokens == TINY.special_tokens


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokenizer.json"
    TINY.save(path)
    before = path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError("no space left on the device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        BPETokenizer.train("", 256).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
