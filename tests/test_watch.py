"""`Watch` is certain only as long as nothing can have written: who refers to memory, and who has said that it wrote."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn
from tinytorch.watch import Watch, lend, touch, touch_all


def is_sure(tensor: Any) -> bool:
    return Watch((tensor,)).is_sure


OWN: dict[str, Callable[[], Any]] = {
    "zeros": lambda: tt.zeros(3, 4), "number": lambda: tt.tensor(1.5), "random": lambda: tt.rand(3),
    "copied": lambda: tt.tensor(np.ones(3)), "result": lambda: tt.ones(3) * 2 + 1,
    "parameter": lambda: nn.Linear(3, 4).weight,
    "view of what is gone": lambda: tt.ones(3, 4)[1:].T, "reshaped": lambda: tt.arange(12).reshape(3, 4),
    "compiled": lambda: tt.compile(lambda x: x + 1)(tt.ones(3)), "empty": lambda: tt.zeros(0, 3),
    "given away": lambda: tt.from_numpy(np.ones(3)), "converted": lambda: tt.ones(3).to("bf16")}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_a_tensor_that_has_its_memory_to_itself(name: str) -> None:
    x = OWN[name]()
    assert is_sure(x)
    watch = Watch((x,))
    assert watch.holds() and watch.holds()
    lent = lend(x.payload)
    assert is_sure(x) and not lent.flags.writeable and lent.ctypes.data == x.payload.ctypes.data


ALIASES: dict[str, Callable[[Any], Any]] = {
    "array": lambda x: x.numpy(), "view": lambda x: x.numpy()[1:], "view of view": lambda x: x.numpy()[1:].T[0],
    "memoryview": lambda x: memoryview(x.numpy()), "detached": lambda x: x.detach(), "row": lambda x: x[0],
    "list": lambda x: [x.numpy()], "as bytes": lambda x: x.numpy().view(np.uint8),
    "iterator": lambda x: iter(x.numpy()),
    "flat": lambda x: x.numpy().flat, "closure": lambda x: (lambda a: lambda: a)(x.numpy()),
    "method": lambda x: x.numpy().fill, "interface": lambda x: np.asarray(_Interface(x.numpy()))}  # fmt: skip


class _Interface:
    def __init__(self, array: np.ndarray) -> None:
        self.array, self.__array_interface__ = array, array.__array_interface__


@pytest.mark.parametrize("lent", [0, 1, 3])
@pytest.mark.parametrize("name", ALIASES)
def test_nothing_is_certain_while_something_else_refers_to_the_memory(name: str, lent: int) -> None:
    for x in (tt.ones(4, 3), tt.ones(2, 4, 3)[1]):
        views = [lend(x.payload) for _ in range(lent)]
        assert is_sure(x)
        alias = ALIASES[name](x)
        assert not is_sure(x) and not Watch((tt.ones(1), x)).holds()
        del alias
        gc.collect()
        assert is_sure(x)
        views = views[1:]
        assert is_sure(x), "views that are gone are not counted"


def test_memory_that_numpy_does_not_own_is_never_certain(tmp_path: Any) -> None:
    np.zeros(3, np.float32).tofile(tmp_path / "numbers")
    mapped = np.memmap(tmp_path / "numbers", np.float32, "r+")
    assert not is_sure(tt.from_numpy(np.frombuffer(bytearray(12), np.float32)))
    assert not is_sure(tt.from_numpy(mapped)) and not is_sure(tt.from_numpy(np.asarray(mapped)))


def test_only_the_memory_that_was_touched() -> None:
    x, y = tt.ones(4), tt.ones(4)
    watches = [Watch((x,)), Watch((y,)), Watch((x, y))]
    touch(x.payload[1:][::2])
    assert [watch.holds() for watch in watches] == [False, True, False]
    watches = [Watch((x,)), Watch((y,)), Watch((x, y))]
    touch_all((y, tt.ones(3)))
    assert [watch.holds() for watch in watches] == [True, False, False]
    y.payload = y.payload.copy()
    assert not Watch((x, y)).holds() or is_sure(y)


def test_another_array_of_the_same_numbers_is_a_change() -> None:
    x = tt.ones(4)
    watch = Watch((x,))
    x.payload = np.ones(4, np.float32)
    assert not watch.holds() and Watch((x,)).holds()


def test_what_is_watched_does_not_keep_memory_alive() -> None:
    from tinytorch import watch as module

    before = len(module._memories)
    x = tt.ones(1000)
    kept = Watch((x,)), lend(x.payload)
    assert len(module._memories) == before + 1
    del x, kept
    gc.collect()
    assert len(module._memories) == before
