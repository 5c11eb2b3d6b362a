"""Make a decoder remember: from the graph of a whole sequence, the graph of a few new tokens and caches.

    graph = tt.trace(model.eval(), tokens)                   # (batch, capacity) -> logits (batch, capacity, vocabulary)
    extend = InsertKVCache(steps=1)(graph)                   # tokens (batch, 1), positions (batch,), caches
                                                             #   -> logits (batch, 1, vocabulary), caches

`extend` takes `steps` new tokens, which stand at positions[b], positions[b] + 1, … of sequence b, and computes their
logits from what the caches hold of the tokens before; the caches are inputs that it overwrites with the new rows in
place. Prefill and decoding are the same program for other numbers of steps. The caches follow from the analysis in
`time_flow.py`, which proves that the graph is causal, or says which line is in the way. Nothing here knows of models.

Of a table of positions, a mask, or a bias by distance, the rows at the new positions are taken, or computed there.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinytorch.ir import Graph, as_dtype
from tinytorch.ir.errors import PassError

from .remove_dead import RemoveDead
from .time_flow import Flow
from .time_rules import check_numbers, follow
from .write_extension import Extension

CACHE_TYPES = ("f32", "f16", "bf16", "i8")


@dataclass(frozen=True)
class InsertKVCache:
    """The graph of `steps` new tokens a sequence, from that of a sequence as long as the cache's capacity.

    Args:
        steps: new tokens a call.
        last: take an input `last` (batch,) too, and give the row with that number of each sequence only, (batch, 1, …);
            what later tokens do not need is computed for that row alone.
        prefill: the positions are all 0: attention need look at the new rows only.
        cache_dtype: what floating point rows are kept as: "f32" (as they are), "f16", "bf16", or "i8", with a scale for
            each row and head.
        window: have attention see so many of the latest tokens only, which changes what the graph means.
    Raises:
        PassError: the graph is not causal, or not shown to be; the message has the op, the line and the reason.
    """

    steps: int = 1
    last: bool = False
    prefill: bool = False
    cache_dtype: str = "f32"
    window: int | None = None

    def __call__(self, graph: Graph, /) -> Graph:
        return self.extend(self.follow(graph))

    @staticmethod
    def follow(graph: Graph, *shorter: Graph) -> Flow:
        """The analysis alone, which serves for all options.

        Args:
            shorter: the same model's graphs for fewer tokens, two of them, to see that no number follows from the
                length, which one graph cannot show.
        """
        if shorter:
            check_numbers(*(follow(each, merge=False) for each in shorter))
        return follow(graph)

    def extend(self, flow: Flow) -> Graph:
        """The graph of new tokens, from the analysis."""
        if not 1 <= self.steps <= flow.capacity:
            raise PassError(f"InsertKVCache(steps={self.steps}): expected 1 to {flow.capacity} steps, the time that "
                            "the graph was traced with")
        if self.cache_dtype not in CACHE_TYPES:
            raise PassError(f"InsertKVCache(cache_dtype={self.cache_dtype!r}): expected one of {CACHE_TYPES}")
        kept = as_dtype(self.cache_dtype)
        if self.window is not None and (self.window < 1 or not flow.bands):
            raise PassError(f"InsertKVCache(window={self.window}): expected 1 or more tokens, and causal attention "
                            "that is an op (`F.scaled_dot_product_attention`); this graph has masks of its own")
        return RemoveDead()(Extension(flow, self.steps, self.last, self.prefill, kept, self.window).finished())
