"""Byte-pair encoding itself: `learn_merges` finds which pairs to join, `apply_merges` joins them in a word.

A word is a list of ids, at first one a byte. Learning joins the most frequent pair of neighbours into a new token,
everywhere, again and again. Encoding a word applies the same joins in the order in which they were learned.

    >>> from tinytorch.text.merging import apply_merges, learn_merges
    >>> tokens = [b"a", b"b", b"n"]
    >>> merges = learn_merges({b"banana": 1, b"ban": 1}, tokens, vocab_size=6)
    >>> merges, tokens                                   # "an" three times; then "ban" and "anan", twice and once
    ([(0, 2), (1, 3), (3, 0)], [b'a', b'b', b'n', b'an', b'ban', b'ana'])
    >>> apply_merges([1, 0, 2, 0, 2, 0], {pair: i for i, pair in enumerate(merges)}, [3, 4, 5])
    [4, 5]

Learning keeps an index from each pair to the words that have it, so a merge touches only those; and a heap of pairs
by count, whose outdated entries are put right when they come up. Source: Sennrich, Haddow and Birch, "Neural Machine
Translation of Rare Words with Subword Units" (2016), on bytes as in Radford et al. (2019).
"""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from .progress import bar

Pair = tuple[int, int]


def learn_merges(
    counts: Mapping[bytes, int],
    tokens: list[bytes],
    vocab_size: int,
    *,
    min_frequency: int = 1,
    reserved: Container[bytes] = (),
    progress: bool = False,
) -> list[Pair]:
    """Join pairs until there are `vocab_size` tokens, or no pair occurs `min_frequency` times; return the pairs.

    `counts` says how often each word occurs; `tokens`, at first the single bytes, is extended by what the pairs
    make. Of pairs equally frequent the one with the smaller ids goes first, the rule of the `tokenizers` library:
    the result depends on nothing else. What is `reserved` is never made.
    """
    index = _PairIndex(counts, {token[0]: i for i, token in enumerate(tokens)})
    merges = []
    with bar("Learning merges", vocab_size - len(tokens), progress) as done:
        while len(tokens) < vocab_size and (pair := index.most_frequent(min_frequency)):
            token = tokens[pair[0]] + tokens[pair[1]]
            if token in reserved:
                index.forget(pair)
                continue
            # Always a new token: as long as no merge has crossed their ends, equal bytes are cut alike everywhere.
            index.join(pair, len(tokens))
            tokens.append(token)
            merges.append(pair)
            done(1)
    return merges


class _PairIndex:
    """Words as lists of ids, and for each pair of neighbours its count and where it stands."""

    def __init__(self, counts: Mapping[bytes, int], ids: Mapping[int, int]) -> None:
        self.words = [[ids[byte] for byte in word] for word in counts]
        self.weights = list(counts.values())
        self.count: defaultdict[Pair, int] = defaultdict(int)
        self.where: defaultdict[Pair, set[int]] = defaultdict(set)  # pair → words that have it, or once had
        for i in range(len(self.words)):
            self._add(i)
        self.heap = [(-count, pair) for pair, count in self.count.items()]
        heapify(self.heap)

    def most_frequent(self, at_least: int) -> Pair | None:
        """The pair with the highest count, of equal ones the smallest; None if none occurs `at_least` times."""
        while self.heap:
            count, pair = heappop(self.heap)
            now = self.count.get(pair, 0)
            if now == -count:
                return pair if now >= at_least else None
            if 0 < now < -count:  # it has become rarer since: back into the line; if more frequent, it stands there
                heappush(self.heap, (-now, pair))
        return None

    def join(self, pair: Pair, new: int) -> None:
        """Replace a pair by one id in all words."""
        changed: set[Pair] = set()
        for i in self.forget(pair):
            old, weight = self.words[i], self.weights[i]
            self.words[i] = _joined(old, pair, new)
            if len(self.words[i]) == len(old):
                continue  # an earlier merge has taken the pair from this word
            for gone in pairwise(old):
                self.count[gone] -= weight
            changed.update(made for made in self._add(i) if new in made)
        self.count.pop(pair, None)
        for made in changed:
            heappush(self.heap, (-self.count[made], made))

    def forget(self, pair: Pair) -> set[int]:
        """Take a pair out of the index; return the words that may have it."""
        return self.where.pop(pair, set())

    def _add(self, i: int) -> list[Pair]:
        """Count the pairs of a word; return them."""
        pairs, weight = list(pairwise(self.words[i])), self.weights[i]
        for pair in pairs:
            self.count[pair] += weight
            self.where[pair].add(i)
        return pairs


def _joined(word: list[int], pair: Pair, new: int) -> list[int]:
    """A word in which each occurrence of the pair, from left to right, is one id."""
    left, right = pair
    out, i, last = [], 0, len(word) - 1
    while i <= last:
        here = i < last and word[i] == left and word[i + 1] == right
        out.append(new if here else word[i])
        i += 2 if here else 1
    return out


def apply_merges(word: Sequence[int], rank: Mapping[Pair, int], made: Sequence[int]) -> list[int]:
    """The ids of a word after all merges: always the pair learned first, of equal ones the leftmost.

    `rank` gives the place of each pair in the order of learning, `made` the id that the merge of a rank makes. A heap
    of the pairs that can be joined takes n log n steps, so that a word of a million bytes is no trap.
    """
    ids = list(word)
    before, after = list(range(-1, len(ids) - 1)), list(range(1, len(ids) + 1))  # neighbours, as a linked list
    heap = [(rank[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in rank]
    heapify(heap)
    while heap:
        order, i = heappop(heap)
        j = after[i]
        if j == len(ids) or rank.get((ids[i], ids[j])) != order:
            continue  # one of the two has been joined with another neighbour since
        ids[i], ids[j], after[i] = made[order], -1, after[j]
        if after[i] < len(ids):
            before[after[i]] = i
        for left, right in ((before[i], i), (i, after[i])):
            if left >= 0 and right < len(ids) and (pair := (ids[left], ids[right])) in rank:
                heappush(heap, (rank[pair], left))
    return [id for id in ids if id >= 0]
