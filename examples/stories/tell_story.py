"""A small Llama tells the story that it has to tell, token by token, with a cache that nobody has written.

The model is stories260K of the llama2.c family: 260,000 parameters, five layers of eight heads that share four heads of
keys, rotary positions, trained on short stories (Eldan and Li, "TinyStories", 2023). It is defined as nn.Llama is: a
function of a whole sequence, which knows nothing of caches. `tt.stream` traces it, and a compiler pass works out from
the graph what of earlier tokens has to be kept, and writes the program that computes one more.

    x (1, t)  ->  logits (1, t, 512)                     what the model is
    x (1, 1), position, caches  ->  logits (1, 1, 512)   what runs

Look at the two speeds at the end: with the cache, and computing everything anew for each token.

    python examples/stories/tell_story.py
    python examples/stories/tell_story.py --temperature 0.8 --seed 7     # another story each seed

The three files, stories260K.bin, tok512.bin and expected_greedy.txt, belong to $TINYTORCH_DATA/stories260k, or to the
folder that --folder names.
"""

import argparse
import os
import time
from pathlib import Path

import tinytorch as tt
from tinytorch import nn, text
from tinytorch.frontends.llama2c import read_checkpoint, read_vocabulary
from tinytorch.train import Gate, Report

NAME = "stories/tell_story"
LENGTH, QUICK_LENGTH = 256, 64  # tokens
CHECKPOINT, VOCABULARY, EXPECTED = "stories260K.bin", "tok512.bin", "expected_greedy.txt"


def load(folder: Path) -> tuple[nn.Llama, text.PieceTokenizer, str]:
    """The model, what makes text of its tokens, and the text that it must give when nothing is left to chance."""
    config, state = read_checkpoint(folder / CHECKPOINT)
    model = nn.Llama(nn.LlamaConfig(**config))
    model.load_state_dict(state)
    tokenizer = text.PieceTokenizer(read_vocabulary(folder / VOCABULARY))
    return model.eval(), tokenizer, (folder / EXPECTED).read_text(encoding="utf-8").removesuffix("\n")


def tell(model: nn.Llama, tokenizer: text.PieceTokenizer, length: int, temperature: float, seed: int) -> str:
    """The story, printed as it comes."""
    story = ""
    for token in tt.stream(model, [tokenizer.bos], length, temperature=temperature, top_p=0.9, seed=seed,
                           tokenizer=tokenizer, eos=(tokenizer.bos, tokenizer.eos)):
        print(token.text, end="", flush=True)
        story += token.text
    print()
    return story


def speeds(model: nn.Llama, length: int, eager: bool) -> tuple[float, float]:
    """Tokens a second with the cache, and without one; both are run twice, for the first time compiles."""
    forward = model if eager else tt.compile(model)
    start = tt.tensor([[1]])
    with_cache = [tt.generate(model, start, length, temperature=0).writing_rate for _ in range(2)]
    without = []
    for _ in range(2):
        began = time.perf_counter()
        model.generate(start, length, temperature=0, forward=forward)
        without.append(length / (time.perf_counter() - began))
    return with_cache[1], without[1]


def alike(story: str, expected: str) -> float:
    """The share of the expected text that the story begins with."""
    same = next((n for n, (a, b) in enumerate(zip(story, expected)) if a != b), min(len(story), len(expected)))
    return same / max(len(story), len(expected), 1)


def main(argv: list[str] | None = None) -> int:
    """Tell, measure, and say whether it was the right story."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where the three files are ($TINYTORCH_DATA/stories260k)")
    parser.add_argument("--temperature", type=float, default=0.0, help="above 0, a story by chance, without a gate (0)")
    parser.add_argument("--seed", type=int, default=0, help="of chance (0)")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK_LENGTH} tokens")
    parser.add_argument("--eager", action="store_true", help="without the cache, do not compile either")
    parser.add_argument("--output", type=Path, default=Path("tinytorch-examples", NAME), help="for all it writes")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)

    began, length = time.perf_counter(), QUICK_LENGTH if args.quick else LENGTH
    folder = args.folder or Path(os.environ.get("TINYTORCH_DATA", "."), "stories260k")
    try:
        model, tokenizer, expected = load(folder)
    except FileNotFoundError as error:
        parser.error(f"{error}; put {CHECKPOINT}, {VOCABULARY} and {EXPECTED} there, or say --folder")
    story = tell(model, tokenizer, length, args.temperature, args.seed)
    first = time.perf_counter() - began
    cached, recomputed = speeds(model, length, args.eager)
    print(f"{cached:,.0f} tokens/s with the cache, {recomputed:,.0f} without")

    wanted = expected[:max(len(story), QUICK_LENGTH)] if args.quick else expected
    gates = [] if args.temperature > 0 else [Gate("the expected text", alike(story, wanted), at_least=1)]
    report = Report(NAME, seed=args.seed, seconds=time.perf_counter() - began, gates=gates,
                    figures={"tokens/s with a cache": cached, "without": recomputed, "first call, s": first})
    report.print().write(args.output)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
