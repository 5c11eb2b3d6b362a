"""What a compiled function prepares of its parameters is never stale, whichever way they change, and made but once."""

import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, optim
from tinytorch.ir import Graph, ops
from tinytorch.nn import functional as F
from tinytorch.train import ExponentialMovingAverage

Array = np.ndarray


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


class Net(nn.Module):
    """Two tensors from which something is prepared, `w` and `scale`, and one that is only read."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(tt.tensor(numbers(6, 4)))
        self.scale = nn.Parameter(tt.tensor(numbers(6, seed=1)))
        self.shift = nn.Parameter(tt.zeros(6))
        self.register_buffer("mask", tt.ones(6, 4))

    def forward(self, x: Any) -> Any:
        return F.linear(x, self.w * self.mask * self.scale.reshape(6, 1), self.shift)


X = tt.tensor(numbers(5, 4, seed=2))


def is_right(fast: Any, net: Net) -> bool:
    """Whether the compiled function gives what the numbers in the net's memory give."""
    found = fast(X).payload  # before we take hold of what it is made of
    w, mask, scale, shift = (t.payload for t in (net.w, net.mask, net.scale, net.shift))
    return np.allclose(found, X.payload @ (w * mask * scale[:, None]).T + shift, 1e-5, 1e-6)


def test_it_runs_once_over_ten_calls_and_again_after_an_optimiser_step() -> None:
    net = Net()
    fast, other = tt.compile(net), tt.compile(net)
    for _ in range(10):
        assert is_right(fast, net) and is_right(other, net)
    assert fast.preparation.runs == other.preparation.runs == 1 and len(fast.program.steps) == 1
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    (net(X) ** 2).sum().backward()
    optimizer.step()
    for _ in range(10):
        assert is_right(fast, net)
    assert fast.preparation.runs == 2 and "run 2 times" in repr(fast.preparation)
    X.detach().add_(0.0), tt.ones(3).mul_(2.0), net.shift.detach().add_(1.0)  # nothing that it was made of
    assert is_right(fast, net) and fast.preparation.runs == 2
    assert fast.preparation.nbytes == 6 * 4 * 4 and "96 bytes" in repr(fast.preparation)


def test_the_graph_that_runs_can_still_be_read_and_evaluated() -> None:
    net = Net()
    fast = tt.compile(net)
    for _ in range(2):
        expected = fast(X).numpy()
        assert isinstance(fast.graph, Graph) and fast.history[-1].graph is fast.graph
        assert "HoistBound" in [stage.name for stage in fast.history]
        np.testing.assert_allclose(fast.graph(X.numpy()), expected, 1e-5, 1e-6)
        np.testing.assert_allclose(fast.history[0].graph(X.numpy()), expected, 1e-5, 1e-6)
        made = fast.preparation.graph()
        np.testing.assert_allclose(made, net.w.payload * net.scale.payload[:, None], 1e-6)
        net.w.detach().mul_(2.0)
    assert "w_prepared" in str(fast.graph)
    why = fast.explain(repeats=1)
    assert len(why.rows) == 1 and "not in a call: 1 values, 96 bytes, made of 3 tensors" in str(why)


# -- every way in which numbers change ---------------------------------------------------------------------------------
#
# Each is a generator: it may take hold of something before the function is first called; each `yield` after that comes
# after a change.


def _in_place(net: Net) -> Iterator[None]:
    yield
    for change in (lambda w: w.add_(1.0), lambda w: w.sub_(0.5), lambda w: w.mul_(-2.0), lambda w: w.fill_(0.25),
                   lambda w: w.zero_(), lambda w: w.copy_(numbers(6, 4, seed=7)), lambda w: w.add_(numbers(4))):
        with tt.no_grad():
            change(net.w)
        yield


def _items(net: Net) -> Iterator[None]:
    yield
    with tt.no_grad():
        net.w[0] = 3.0
        yield
        net.w[1:, 2] = tt.ones(5) * 4
        yield


def _buffer(net: Net) -> Iterator[None]:
    yield
    net.mask.fill_(0.5)
    yield
    net.mask[0, 0] = 7.0
    yield


def _through(look: Callable[[Any], Any]) -> Callable[[Net], Iterator[None]]:
    """By tensors that share the memory: made anew for each change, or kept from the start."""
    def way(net: Net) -> Iterator[None]:
        with tt.no_grad():
            kept = look(net.w)
        yield
        with tt.no_grad():
            look(net.w).mul_(3.0)
            yield
            kept.add_(1.0)
            yield
            del kept
            look(net.w).sub_(0.125)
            yield
            look(net.w).numpy()[...] = 2.0
            yield
    return way


def _array(take: Callable[[Any], Any]) -> Callable[[Net], Iterator[None]]:
    """By NumPy: an array taken for each change, one kept from the start, and one taken between calls and kept."""
    def way(net: Net) -> Iterator[None]:
        early = take(net.w)
        yield
        early[0] = 5.0
        yield
        early[1] = 6.0
        yield
        del early
        take(net.w)[2] = 7.0
        yield
        late = take(net.w)[3:]
        yield
        late[...] = 8.0
        yield
        late *= 0.5
        yield
    return way


def _state_dict(net: Net) -> Iterator[None]:
    state = net.state_dict()
    yield
    state["w"].mul_(2.0)
    yield
    state["scale"].numpy()[:] = 1.5
    yield
    net.load_state_dict({key: value + 1 for key, value in state.items()})
    yield
    del state
    net.load_state_dict({"w": numbers(6, 4, seed=9)}, strict=False)
    yield


def _optimizers(net: Net) -> Iterator[None]:
    yield
    for make in (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=0.1)):
        optimizer = make(net.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            (net(X) ** 2).sum().backward()
            optimizer.step()
            yield


def _compiled_step(net: Net) -> Iterator[None]:
    optimizer = optim.Adam(net.parameters(), lr=0.1)

    @tt.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (net(x) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    yield
    for _ in range(3):
        step(X)
        yield


def _compiled_alias(net: Net) -> Iterator[None]:
    alias = net.w.detach()
    grow = tt.compile(lambda: alias.mul_(1.5))
    yield
    for _ in range(2):
        grow()
        yield


def _average(net: Net) -> Iterator[None]:
    average = ExponentialMovingAverage(net, decay=0.5)
    net.w.detach().mul_(2.0)
    yield
    with average.applied():
        yield
    yield
    average.update()
    yield
    with average.applied():
        yield


def _replaced(net: Net) -> Iterator[None]:
    yield
    net.w = nn.Parameter(tt.tensor(numbers(6, 4, seed=11)))
    yield
    net.mask = tt.ones(6, 4) * 2
    yield
    net.w.payload = numbers(6, 4, seed=12)
    yield


def _users_array(net: Net) -> Iterator[None]:
    array = numbers(6, 4, seed=13)
    net.w = nn.Parameter(tt.from_numpy(array))
    yield
    array[0] = 9.0
    yield
    view = array[1:]
    del array
    view[...] = -1.0
    yield
    view[0, 0] = 4.0
    yield


def _one_block(net: Net) -> Iterator[None]:
    block = tt.tensor(numbers(2, 6, 4, seed=14))
    net.w, net.mask = nn.Parameter(block[0]), block[1]
    yield
    block.mul_(2.0)
    yield
    net.mask.detach().add_(1.0)
    yield
    memoryview(block.numpy())[1, 0, 0] = 30.0
    yield


WAYS: dict[str, Callable[[Net], Iterator[None]]] = {
    "in place": _in_place, "items": _items, "buffer": _buffer, "state_dict": _state_dict, "optimizers": _optimizers,
    "compiled step": _compiled_step, "compiled alias": _compiled_alias, "average": _average, "replaced": _replaced,
    "users array": _users_array, "one block": _one_block,
    "detach": _through(lambda w: w.detach()), "rows": _through(lambda w: w[1:4]), "turned": _through(lambda w: w.T),
    "reshape": _through(lambda w: w.reshape(-1)), "alias": _through(lambda w: w.alias()),
    "view of view": _through(lambda w: w[1:].detach().T[:2]),
    "numpy": _array(lambda w: w.numpy()), "asarray": _array(np.asarray), "view": _array(lambda w: w.numpy().view()),
    "memoryview": _array(lambda w: np.asarray(memoryview(w.numpy()))),
    "numpy of a view": _array(lambda w: w.detach().numpy()),
    "bytes": _array(lambda w: w.numpy().view(np.uint8).view(np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_results_are_never_stale(name: str) -> None:
    net = Net()
    way = WAYS[name](net)
    next(way)
    fast = tt.compile(net)
    before = [fast(X).payload for _ in range(2)][-1]
    changes = 0
    for _ in way:
        assert is_right(fast, net), f"stale after change {changes + 1}"
        changes += not np.array_equal(fast(X).payload, before)
        before = fast(X).payload
    assert changes, "the way changes something"
    runs = fast.preparation.runs
    del way
    assert is_right(fast, net) and fast.preparation.runs <= runs + 1


@pytest.mark.parametrize("take", [lambda w: w.numpy(), lambda w: w[2:], lambda w: w.detach(), lambda w: w.T.numpy()])
def test_while_somebody_may_write_it_runs_at_each_call_and_no_longer(take: Callable[[Any], Any]) -> None:
    net = Net()
    fast = tt.compile(net)
    fast(X)
    held = take(net.w)
    net.w.detach().mul_(2.0)
    runs = [(fast(X), fast.preparation.runs)[1] for _ in range(4)]
    assert runs == [2, 3, 4, 5]
    del held
    assert [(fast(X), fast.preparation.runs)[1] for _ in range(3)] == [6, 6, 6]


def test_programs_for_other_batch_sizes_share_what_is_prepared() -> None:
    net = Net()
    fast = tt.compile(net)
    first = [fast(X), fast.preparation][1]
    y = fast(X[:2]).numpy()
    assert fast.preparation is first and first.runs == 1 and len(first.results) == 1
    np.testing.assert_allclose(fast.graph(X.numpy()[:2]), y, 1e-5, 1e-6)
    net.w.detach().mul_(2.0)
    np.testing.assert_allclose(fast(X[:2]).numpy(), net(X[:2]).numpy(), 1e-5, 1e-6)
    np.testing.assert_allclose(fast.entries[next(iter(fast.entries))][0].program.graph(X.numpy()), net(X).numpy(), 1e-5,
                               1e-6)
    assert first.runs == 2


def test_reading_a_number_is_no_reason_to_run_again() -> None:
    net = Net()
    fast = tt.compile(net)
    fast(X)
    net.scale[0].item(), net.scale.tolist(), repr(net.w), float(net.scale[0]), tt.trace(net, X), tt.compile(net)(X)
    fast(X)
    assert fast.preparation.runs == 1


def test_a_tensor_of_another_library_on_the_same_memory(peer: Any) -> None:
    torch = peer("torch")
    net = Net()
    fast = tt.compile(net)
    fast(X)
    theirs = torch.from_numpy(net.w.numpy())
    for _ in range(3):
        theirs.add_(1.0)
        assert is_right(fast, net)


def test_it_is_found_out_if_writers_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knock-outs: without `touch`, or without counting references, results are stale and the tests above fail."""
    for name, file, knocked in (("in place", "tensor", "touch"), ("compiled step", "compile", "touch_all"),
                                ("numpy", "watch", "_is_private")):
        with monkeypatch.context() as patch:
            patch.setattr(import_module(f"tinytorch.{file}"), knocked, lambda thing: True)
            with pytest.raises(AssertionError, match="stale"):
                test_results_are_never_stale(name)


def test_threads_that_call_while_nothing_is_certain() -> None:
    net = Net()
    held = net.w.numpy()
    fast = tt.compile(net)
    expected, found = fast(X).payload, []
    threads = [threading.Thread(target=lambda: found.extend(fast(X).payload for _ in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200 and all(np.array_equal(expected, y) for y in found) and held.size


# -- what is prepared --------------------------------------------------------------------------------------------------


def test_a_training_step_prepares_nothing_of_what_it_updates() -> None:
    net, frozen = Net(), tt.tensor(numbers(6, 4, seed=3))
    optimizer = optim.SGD(net.parameters(), lr=0.01)

    def make(weight: Any) -> Any:
        @tt.compile
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (F.linear(net(x), weight(x)) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss
        step(X), step(X)
        return step

    assert make(lambda x: tt.ones(4, 6)).preparation is None
    some = make(lambda x: (frozen * frozen + 1).T * 2).preparation
    assert some.runs == 1 and {id(t) for t in some.tensors} == {id(frozen)}


def test_gradients_flow_through_what_is_prepared() -> None:
    net, net2 = Net(), Net()
    fast = tt.compile(net)
    for _ in range(2):
        (fast(X) ** 2).sum().backward()
        (net2(X) ** 2).sum().backward()
        for p, q in zip(net.parameters(), net2.parameters(), strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 1e-4, 1e-5)
    assert fast.preparation is not None


def test_a_position_out_of_range_in_what_is_prepared() -> None:
    table, where = tt.tensor(numbers(6, 4)), tt.tensor(np.array([1, 6, 2]))
    fast = tt.compile(lambda x: x @ ops.take(table, where).T)
    for _ in range(2):
        with pytest.raises(IndexError, match="out of range"):
            fast(X)
    where[1] = 5
    np.testing.assert_allclose(fast(X).numpy(), X.numpy() @ table.numpy()[[1, 5, 2]].T, 1e-5)
