"""A real model tells its story to the letter; without its cache, a head or its angles it does not. And its files."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.frontends.llama2c import read_checkpoint, read_vocabulary
from tinytorch.generate import Decoder
from tinytorch.ir.errors import FormatError
from tinytorch.text import PieceTokenizer

Patch = pytest.MonkeyPatch
BYTES = [(b"<unk>", 0.0), (b"<s>", 0.0), (b"</s>", 0.0), *((f"<0x{n:02X}>".encode(), 0.0) for n in range(256))]


@pytest.fixture
def script(monkeypatch: Patch) -> ModuleType:
    """The example, which does not measure here."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples" / "stories"))
    module = importlib.import_module("tell_story")
    monkeypatch.setattr(module, "speeds", lambda *given: (1.0, 1.0))
    return module


def forgetful(patch: Patch, script: ModuleType) -> None:
    """Nothing stays in the caches."""
    real = Decoder.extend

    def extend(self: Decoder, *given: Any, **options: Any) -> np.ndarray:
        logits = real(self, *given, **options)
        self.reset()
        return logits

    patch.setattr(Decoder, "extend", extend)


def changed(change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Callable[[Patch, ModuleType], None]:
    """A knock-out of the checkpoint."""
    def knock_out(patch: Patch, script: ModuleType) -> None:
        def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            config, state = read_checkpoint(path)
            state = {name: array.copy() for name, array in state.items()}
            change(config, state)
            return config, state

        patch.setattr(script, "read_checkpoint", read)

    return knock_out


KNOCK_OUTS: dict[str, Callable[[Patch, ModuleType], None]] = {
    "caches that are never written": forgetful,
    "a head without keys": changed(lambda config, state: state["model.layers.0.self_attn.k_proj.weight"][:8].fill(0)),
    "other angles": changed(lambda config, state: config.update(rope_theta=1000.0)),
    "halves of a head turned, not pairs": changed(lambda config, state: config.update(interleaved=False)),
}


def test_the_story_is_told_to_the_letter(script: ModuleType, stories: Path, tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--folder", str(stories), "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith((stories / "expected_greedy.txt").read_text())


@pytest.mark.parametrize("part", KNOCK_OUTS)
def test_another_story_without(part: str, script: ModuleType, stories: Path, tmp_path: Path,
                               monkeypatch: Patch) -> None:
    KNOCK_OUTS[part](monkeypatch, script)
    assert script.main(["--folder", str(stories), "--output", str(tmp_path), "--quick"]) == 1


def test_files_that_are_not_there_are_told(script: ModuleType, tmp_path: Path, monkeypatch: Patch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        script.main(["--output", str(tmp_path)])
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and "tok512.bin and expected_greedy.txt there, or say --folder" in told


# -- files -------------------------------------------------------------------------------------------------------------


def checkpoint(*, tied: bool = True, heads: int = 2, cut: int = 0, sizes: dict[int, int] | None = None) -> bytes:
    """A checkpoint of 8 features, 6 hidden units, 2 layers, a key head, 5 tokens, sequences of 4."""
    header = [8, 6, 2, heads, 1, 5 if tied else -5, 4]
    for place, size in (sizes or {}).items():
        header[place] = size
    count = 5 * 8 + 2 * (8 + 64 + 32 + 32 + 64 + 8 + 3 * 48) + 8 + 4 * 4 + (0 if tied else 40)
    return struct.pack("<7i", *header) + np.arange(count - cut, dtype="<f4").tobytes()


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_fills_a_llama(tied: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(checkpoint(tied=tied))
    config, state = read_checkpoint(path)
    model = nn.Llama(nn.LlamaConfig(**config))
    model.load_state_dict(state)
    assert model(tt.tensor([[0, 4, 1]])).shape == (1, 3, 5) and config["num_key_value_heads"] == 1
    place = 5 * 8  # kinds follow each other, each for both layers
    for kind, shape in (("input_layernorm", (8,)), ("self_attn.q_proj", (8, 8)), ("self_attn.k_proj", (4, 8))):
        for layer in range(2):
            found = state[f"model.layers.{layer}.{kind}.weight"]
            assert found.shape == shape and found.ravel()[0] == place
            place += found.size
    assert (state["lm_head.weight"] is state["model.embed_tokens.weight"]) == tied


@pytest.mark.parametrize(("data", "says"), [
    (b"", "it has 0 bytes, and a header alone is 28"), (checkpoint(cut=1), "and the sizes in its header make"),
    (checkpoint() + b"\0", "and the sizes in its header make"), (checkpoint(sizes={2: 0}), "not positive"),
    (checkpoint(heads=3), "3 heads, 1 key heads and 8 features"), (checkpoint(heads=8), "do not fit together"),
    (checkpoint(sizes={5: 2**31 - 1, 0: 2**30}), "sizes in its header make")])
def test_a_damaged_checkpoint_is_refused(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"model.bin: .*{says}"):
        read_checkpoint(path)


def vocabulary(*pieces: tuple[bytes, float], lie: int = 0) -> bytes:
    """A tokenizer file; `lie` is added to the length of its last piece."""
    rows = [struct.pack("<fi", score, len(piece) + (lie if n == len(pieces) - 1 else 0)) + piece
            for n, (piece, score) in enumerate(pieces)]
    return struct.pack("<i", 9) + b"".join(rows)


def test_pieces_are_read_and_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tok.bin"
    path.write_bytes(vocabulary((b"<unk>", 0.0), ("né".encode(), -1.5)))
    assert read_vocabulary(path) == [(b"<unk>", 0.0), ("né".encode(), -1.5)]
    for data in (b"", vocabulary((b"a", 0.0), lie=1), vocabulary((b"a", 0.0), lie=-9), vocabulary((b"a", float("nan"))),
                 vocabulary((b"a", 0.0)) + b"\0"):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"tok.bin: piece [01] is damaged"):
            read_vocabulary(path)


def test_pieces_join_by_their_scores() -> None:
    words = [(b" ", -9.0), (b"a", -9.0), (b"b", -9.0), (b"c", -9.0), (b"ab", -2.0), (b"bc", -1.0), (b" abc", -1.0),
             (b"abc", -3.0), (b" ab", -4.0)]
    tokenizer = PieceTokenizer([*BYTES, *words])
    names = [tokenizer.id_to_token(int(i)) for i in tokenizer.encode("abc")]
    assert names == [" abc"]
    assert [tokenizer.id_to_token(int(i)) for i in tokenizer.encode("ab bcx")] == [" ab", " ", "bc", "<0x78>"]
    for said in ("", "a b", "naïve 東京 🙂", "  two", "<s>"):
        assert tokenizer.decode(tokenizer.encode(said)) == said
    assert tokenizer.decode([1, *tokenizer.encode("ab"), 2]) == "ab" and tokenizer.vocab_size == 268
    with pytest.raises(IndexError, match="id 268"):
        tokenizer.decode([268])
    with pytest.raises(FormatError, match="piece 4 is no byte"):
        PieceTokenizer(BYTES[:4])
