"""sensitivity: the layer that costs most is found, and left out first."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch import nn, quant
from tinytorch.ir.errors import DataError, OpError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, 12)).astype(np.float32)


def made() -> nn.Module:
    """Three layers, of which the second is hard to round: one element of each row is far greater than the others."""
    tt.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 4))
    with tt.no_grad():
        weight = model[1].weight.numpy().copy()
        weight[:, 0] *= 3
        weight[:, 1:] *= 0.02
        model[1].weight.copy_(weight)
        bias = model[0].bias.numpy().copy()
        first = model[0].weight.numpy().copy()
        first[0], bias[0] = 0, 0  # and that element meets zeros
        model[0].weight.copy_(first)
        model[0].bias.copy_(bias)
    return model


def test_the_costly_layer_is_found() -> None:
    found = quant.sensitivity(made(), X)
    alone = {row.name: row.alone for row in found.rows}
    assert min(alone, key=alone.__getitem__) == "1" and alone["1"] < min(alone["0"], alone["2"]) - 5
    assert found.exact == np.inf and found.rounded <= alone["1"] + 0.5
    assert max(found.rows, key=lambda row: row.without).name == "1"
    assert found.keep(found.rounded - 1) == []
    assert found.keep(found.rounded + 3)[0] == "1"
    assert set(found.keep(1000)) == {"0", "1", "2"}  # nothing is rounded: it is exact
    assert "all but this one" in str(found)


def test_rounding_all_is_what_quantize_does() -> None:
    from tinytorch.quant.plan import decibels

    model = made()
    small = tt.quantize(model, X)
    measured = decibels(model.eval()(tt.tensor(X)).numpy(), small(X).numpy())
    assert quant.sensitivity(model, X).rounded == pytest.approx(measured, abs=0.2)


def test_metrics() -> None:
    model = made()
    labels = model(tt.tensor(X)).numpy().argmax(1)
    data = [(X[:32], labels[:32]), (X[32:], labels[32:])]
    accuracy = quant.sensitivity(model, data, "accuracy")
    agreement = quant.sensitivity(model, data, "agreement")
    assert accuracy.exact == agreement.exact == 100 and accuracy.rounded == agreement.rounded > 80
    own = quant.sensitivity(model, X, lambda y, exact, labels: -float(np.abs(y - exact).max()))
    assert own.exact == 0 and own.rounded < 0 and own.keep(1e-9) == [r.name for r in sorted(
        own.rows, key=lambda row: -row.without)]


def test_refusals() -> None:
    with pytest.raises(DataError, match="needs labels"):
        quant.sensitivity(made(), X, "accuracy")
    with pytest.raises(OpError, match="expected one of accuracy, agreement, sqnr"):
        quant.sensitivity(made(), X, "loss")
    with pytest.raises(DataError, match="data are empty"):
        quant.sensitivity(made(), [])
