"""Losses beside PyTorch's: results and gradients for all options, empty and ignored batches; labels out of range."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from against_torch import check_module, near

import tinytorch as tt
from tinytorch import nn
from tinytorch.ir.errors import OpError, ShapeError
from tinytorch.nn import functional as F

Peer = Callable[[str], ModuleType]
RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    """Random numbers to feed."""
    return RNG.standard_normal(shape).astype(np.float32)


def shares(*shape: int) -> np.ndarray:
    """Random numbers between 0 and 1, that add up to 1 along axis 1 (or the only one)."""
    e = np.exp(floats(*shape))
    return e / e.sum(min(1, len(shape) - 1), keepdims=True)


def its(m: Any, array: np.ndarray) -> Any:
    """`array` as a tensor of ours, or of PyTorch."""
    return tt.tensor(array) if m is nn else pytest.importorskip("torch").tensor(array)


LOGITS, LABELS = floats(4, 3), np.array([0, 2, 1, 1])
SOME, NONE = np.array([0, -100, 1, 1]), np.array([-100] * 4)  # that count
IMAGE, MAP = floats(2, 3, 4, 5), RNG.integers(0, 3, (2, 4, 5))
W3, W4 = np.array([0.5, 2.0, 0.0], np.float32), np.abs(floats(4))
SIDES = np.array([1, -1, -1, 1])
A, B, C = floats(4, 6), floats(4, 6), floats(4, 6)
STEPS = np.array([-3, -1, -0.5, 0, 0.5, 1, 2], np.float32)  # differences at the kinks

Make = Callable[[Any, str], Any]
ROWS: list[tuple[Make, list[np.ndarray]]] = [
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [LOGITS, LABELS]),
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [50 * LOGITS[0], np.array(1)]),
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [IMAGE, MAP]),
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [LOGITS[:1, :1], np.array([0])]),
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [LOGITS[:0], LABELS[:0]]),
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [LOGITS, SOME]),
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [LOGITS, NONE]),
    (lambda m, r: m.CrossEntropyLoss(ignore_index=1, reduction=r), [IMAGE, MAP]),
    (lambda m, r: m.CrossEntropyLoss(its(m, W3), reduction=r), [LOGITS, LABELS]),
    (lambda m, r: m.CrossEntropyLoss(its(m, W3), ignore_index=0, reduction=r), [IMAGE, MAP]),
    (lambda m, r: m.CrossEntropyLoss(label_smoothing=0.2, reduction=r), [LOGITS, SOME]),
    (lambda m, r: m.CrossEntropyLoss(its(m, W3), label_smoothing=0.3, ignore_index=2, reduction=r), [IMAGE, MAP]),
    (lambda m, r: m.CrossEntropyLoss(label_smoothing=1.0, reduction=r), [LOGITS[0], np.array(2)]),
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [LOGITS, shares(4, 3)]),
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [LOGITS[0], shares(3)]),
    (lambda m, r: m.CrossEntropyLoss(its(m, W3), label_smoothing=0.2, reduction=r), [IMAGE, shares(2, 3, 4, 5)]),
    (lambda m, r: m.CrossEntropyLoss(reduction=r), [LOGITS[:0], shares(4, 3)[:0]]),
    (lambda m, r: m.NLLLoss(reduction=r), [LOGITS, LABELS]),
    (lambda m, r: m.NLLLoss(its(m, W3), reduction=r), [IMAGE, MAP]),
    (lambda m, r: m.NLLLoss(ignore_index=1, reduction=r), [LOGITS, LABELS]),
    (lambda m, r: m.NLLLoss(reduction=r), [LOGITS[0], np.array(1)]),
    (lambda m, r: m.BCELoss(reduction=r), [shares(4, 3), shares(4, 3)]),
    (lambda m, r: m.BCELoss(its(m, W4), reduction=r), [shares(3, 4), shares(3, 4)]),
    (lambda m, r: m.BCEWithLogitsLoss(reduction=r), [5 * LOGITS, shares(4, 3)]),
    (lambda m, r: m.BCEWithLogitsLoss(its(m, W4), pos_weight=its(m, W4 + 1), reduction=r), [A[:, :4], shares(4, 4)]),
    (lambda m, r: m.BCEWithLogitsLoss(reduction=r), [100 * STEPS, np.array([0, 1] * 3 + [0], np.float32)]),
    (lambda m, r: m.KLDivLoss(reduction=r), [np.log(shares(4, 3)), shares(4, 3)]),
    (lambda m, r: m.KLDivLoss(log_target=True, reduction=r), [np.log(shares(4, 3)), np.log(shares(4, 3))]),
    (lambda m, r: m.MSELoss(reduction=r), [A, B]),
    (lambda m, r: m.MSELoss(reduction=r), [A[:0], B[:0]]),
    (lambda m, r: m.L1Loss(reduction=r), [STEPS, 0 * STEPS]),
    (lambda m, r: m.SmoothL1Loss(reduction=r), [STEPS, 0 * STEPS]),
    (lambda m, r: m.SmoothL1Loss(beta=0.5, reduction=r), [STEPS, 0 * STEPS]),
    (lambda m, r: m.SmoothL1Loss(beta=0.0, reduction=r), [STEPS, 0 * STEPS]),
    (lambda m, r: m.HuberLoss(reduction=r), [A, B]),
    (lambda m, r: m.HuberLoss(delta=0.5, reduction=r), [STEPS, 0 * STEPS]),
    (lambda m, r: m.CosineEmbeddingLoss(reduction=r), [A, B, SIDES]),
    (lambda m, r: m.CosineEmbeddingLoss(margin=-0.3, reduction=r), [A, B, SIDES]),
    (lambda m, r: m.CosineEmbeddingLoss(reduction=r), [A[0], B[0], np.array(1)]),
    (lambda m, r: m.TripletMarginLoss(reduction=r), [A, B, C]),
    (lambda m, r: m.TripletMarginLoss(margin=0.1, p=1, reduction=r), [A, B, C]),
    (lambda m, r: m.TripletMarginLoss(margin=2.0, p=3, swap=True, eps=1e-3, reduction=r), [A, B, C]),
    (lambda m, r: m.TripletMarginLoss(p=float("inf"), reduction=r), [A[0], B[0], C[0]]),
]


@pytest.mark.filterwarnings("ignore:.*batchmean")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("number", range(len(ROWS)))
def test_losses_are_pytorchs(number: int, reduction: str, peer: Peer) -> None:
    make, inputs = ROWS[number]
    check_module(lambda m: make(m, reduction), inputs, peer("torch"), compiled=False)


DISTANCES: list[tuple[Callable[[Any], Any], list[np.ndarray]]] = [
    (lambda m: m.KLDivLoss(reduction="batchmean"), [np.log(shares(4, 3)), shares(4, 3)]),
    (lambda m: m.KLDivLoss(reduction="batchmean"), [np.log(shares(4, 3))[:0], shares(4, 3)[:0]]),
    (lambda m: m.CosineSimilarity(), [A, B]),
    (lambda m: m.CosineSimilarity(dim=0, eps=10.0), [A, B]),
    (lambda m: m.CosineSimilarity(dim=-1), [IMAGE, IMAGE[:, :1]]),
    (lambda m: m.CosineSimilarity(), [0 * A, B]),
    (lambda m: m.PairwiseDistance(), [A, B]),
    (lambda m: m.PairwiseDistance(p=1, keepdim=True), [A, B]),
    (lambda m: m.PairwiseDistance(p=3.5, eps=0.1), [IMAGE, IMAGE[0]]),
]


@pytest.mark.parametrize("number", range(len(DISTANCES)))
def test_distances_are_pytorchs(number: int, peer: Peer) -> None:
    make, inputs = DISTANCES[number]
    torch = peer("torch")
    if number == 3:  # below eps PyTorch lets the gradient of the norm through, which is not the derivative
        near(make(nn)(*map(tt.tensor, inputs)), make(torch.nn)(*map(torch.tensor, inputs)))
    else:
        check_module(make, inputs, torch, compiled=False)


def test_targets_of_0_and_1_are_pytorchs(peer: Peer) -> None:
    """There the gradient of the target is infinite or nan in PyTorch, that of the input agrees where they differ."""
    torch = peer("torch")
    p, t = np.array([0, 1, 0, 1, 1e-30], np.float32), np.array([1, 0, 0, 1, 1], np.float32)
    for name, x, target in (("binary_cross_entropy", p[:4], t[:4]), ("kl_div", np.log(shares(5)), t)):
        ours, theirs = tt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        mine = getattr(F, name)(ours, tt.tensor(target), reduction="sum")
        other = getattr(torch.nn.functional, name)(theirs, torch.tensor(target), reduction="sum")
        near(mine, other)
        mine.backward()
        other.backward()
        near(ours.grad[:2], theirs.grad[:2])


def test_compiled_as_eager_with_gradients() -> None:
    weight, soft, half = tt.tensor(W3), tt.tensor(shares(4, 3)), tt.tensor(shares(4, 3))
    losses: list[Callable[[Any, Any], Any]] = [
        F.cross_entropy,
        lambda x, y: F.cross_entropy(x, y, weight, label_smoothing=0.2),
        lambda x, y: F.nll_loss(x, y, reduction="none").sum(),
        lambda x, y: F.cross_entropy(x, soft, weight, label_smoothing=0.2),
        lambda x, y: F.binary_cross_entropy(x.sigmoid(), half),
        lambda x, y: F.binary_cross_entropy_with_logits(x, half, pos_weight=weight),
        lambda x, y: F.kl_div(x.log_softmax(-1), half, reduction="batchmean"),
        lambda x, y: F.mse_loss(x, half) + F.l1_loss(x, half) + F.huber_loss(x, half) + F.smooth_l1_loss(x, half),
        lambda x, y: F.cosine_embedding_loss(x, half, tt.tensor(SIDES)) + F.triplet_margin_loss(x, half, soft),
    ]

    def all_of(x: Any, y: Any) -> Any:
        found = [loss(x, y) for loss in losses]
        total: Any = sum(found)
        total.backward()
        return found, x.grad

    compiled = tt.compile(all_of)
    for labels in (LABELS, SOME):
        x, y = tt.tensor(LOGITS, requires_grad=True), tt.tensor(labels)
        expected, gradient = all_of(x, y)
        x.grad = None
        found, its_gradient = compiled(x, y)
        for a, e in zip([*found, its_gradient], [*expected, gradient], strict=True):
            near(a, e)


def test_a_plain_cross_entropy_is_one_op() -> None:
    graph = tt.trace(lambda x, y: F.cross_entropy(x, y, ignore_index=None), tt.tensor(LOGITS), tt.tensor(LABELS))
    assert [node.op.name for node in graph.nodes] == ["cross_entropy", "mean"]
    graph = tt.trace(F.cross_entropy, tt.tensor(LOGITS), tt.tensor(LABELS))
    assert [node.op.name for node in graph.nodes].count("cross_entropy") == 1


def test_labels_out_of_range_are_errors_eager_and_compiled() -> None:
    logits, good = tt.tensor(LOGITS), tt.tensor(LABELS)
    losses: list[Callable[[Any, Any], Any]] = [
        F.cross_entropy,
        lambda x, y: F.cross_entropy(x, y, tt.tensor(W3), reduction="none"),
        lambda x, y: F.nll_loss(x, y, ignore_index=1),
    ]
    for loss in losses:
        fast = tt.compile(loss)
        near(fast(logits, good), loss(logits, good))
        for wrong in (3, -1):
            labels = tt.tensor([0, wrong, 1, 1])
            with pytest.raises(IndexError, match=f"label {wrong} is not one of the 3 classes"):
                loss(logits, labels)
            with pytest.raises(IndexError, match="out of range"):
                fast(logits, labels)
        near(fast(logits, good), loss(logits, good))


def test_weights_are_buffers(peer: Peer) -> None:
    torch = peer("torch")
    for make in (lambda m: m.CrossEntropyLoss(its(m, W3)), lambda m: m.BCELoss(its(m, W4)),
                 lambda m: m.BCEWithLogitsLoss(pos_weight=its(m, W3)), lambda m: m.NLLLoss()):  # fmt: skip
        assert list(make(nn).state_dict()) == list(make(torch.nn).state_dict())
    assert nn.NLLLoss(tt.tensor(W3)).double().weight.dtype is tt.f64


def test_wrong_calls_say_what_is_wrong() -> None:
    logits, labels = tt.zeros(2, 3), tt.tensor([0, 1])
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: F.cross_entropy(logits, tt.tensor([0, 3])), IndexError, "label 3 is not one of the 3 classes"),
        (lambda: F.cross_entropy(logits, tt.tensor([-100, 1]), ignore_index=None), IndexError, "label -100"),
        (lambda: F.cross_entropy(logits, tt.tensor([0, 1, 2])), ShapeError, "one integer label for each"),
        (lambda: F.cross_entropy(logits, tt.tensor([0.0, 1.0])), ShapeError, "integer label"),
        (lambda: F.cross_entropy(tt.tensor(1.0), tt.tensor(0)), ShapeError, "classes"),
        (lambda: F.cross_entropy(logits, labels, tt.ones(2)), ShapeError, "each of the 3 classes"),
        (lambda: F.cross_entropy(logits, logits, tt.ones(2)), ShapeError, "each of the 3 classes"),
        (lambda: F.cross_entropy(logits, labels, reduction="avg"), OpError, "'mean', 'sum' or 'none'"),
        (lambda: F.cross_entropy(logits, labels, label_smoothing=2.0), OpError, "from 0 to 1"),
        (lambda: F.nll_loss(logits, tt.tensor([[0, 1, 2]])), ShapeError, "one integer label for each"),
        (lambda: F.mse_loss(tt.zeros(3, 1), tt.zeros(3)), ShapeError, "must be the same"),
        (lambda: F.l1_loss(tt.zeros(3, 1), tt.zeros(3)), ShapeError, "l1_loss.*must be the same"),
        (lambda: F.kl_div(logits, logits, reduction="batch"), OpError, "'mean', 'sum' or 'none'"),
        (lambda: F.binary_cross_entropy(logits + 1.5, logits), OpError, "binary_cross_entropy_with_logits"),
        (lambda: F.huber_loss(logits, logits, delta=0.0), OpError, "delta > 0"),
        (lambda: F.smooth_l1_loss(logits, logits, beta=-1.0), OpError, "beta ≥ 0"),
        (lambda: F.triplet_margin_loss(logits, logits, logits, margin=0.0), OpError, "margin > 0"),
        (lambda: F.triplet_margin_loss(logits, logits, tt.zeros(3)), ShapeError, "must be the same"),
        (lambda: F.cosine_embedding_loss(logits, logits, tt.tensor([1, 1, 1])), ShapeError, "targets"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()
