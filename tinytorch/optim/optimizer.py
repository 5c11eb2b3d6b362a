"""The base of optimisers: parameters in groups, a learning rate in a tensor, and state that exists from the start.

All that a step changes is a tensor that was there before (parameters, state, the step count), and the learning rate is
one too. So `@tt.compile` on a step finds them, updates them in place, and takes a new learning rate without compiling
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.ir.errors import FormatError, GradientError, OpError
from tinytorch.tensor import Tensor, as_tensor, tensor


class Group(dict[str, Any]):
    """Parameters with their options. `group["lr"] = 0.1` writes into the tensor that holds the learning rate."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(self.get(key), Tensor):
            with no_grad():
                self[key].copy_(value)
        else:
            super().__setitem__(key, value)


class Optimizer:
    """What SGD, Adam and AdamW share.

    Args:
        params: tensors that require gradients, or dictionaries {"params": tensors, option: value, …} with options of
            their own.
        defaults: the options of all groups that do not say otherwise.
    Attributes:
        param_groups: dictionaries of options; "lr" holds a tensor (f32, 0-d), other options are Python values that a
            compiled step keeps.
        state: for each parameter, its tensors by name.
    Raises:
        OpError: there is nothing to optimise, a parameter is given twice, or an option is unknown.
        GradientError: a parameter does not require a gradient.
    """

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        given = [params] if isinstance(params, Tensor) else list(params)
        groups: list[Any] = given if given and isinstance(given[0], dict) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)
        if not self.state:
            raise OpError(f"{type(self).__name__}: there is nothing to optimise; "
                          "a generator such as model.parameters() is empty the second time")

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Optimise more parameters: {"params": tensors, option: value, …}."""
        name = type(self).__name__
        options = {key: value for key, value in group.items() if key != "params"}
        if unknown := set(options) - set(self.defaults):
            raise OpError(f"{name}: there is no option {', '.join(sorted(unknown))}; it has {', '.join(self.defaults)}")
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        options = {**self.defaults, **options}
        self.check(options)
        for p in params:
            if not isinstance(p, Tensor) or not p.requires_grad or not p.is_leaf:
                raise GradientError(f"{name}: expected parameters, tensors with requires_grad=True that nothing "
                                    f"computed; got {p!r:.80}")
            if p in self.state:
                raise OpError(f"{name}: a parameter of type {p.type} is given twice")
            self.state[p] = {key: Tensor(np.zeros(p.shape, p.dtype.np)) for key in self.slots(options)}
        lr, step = tensor(float(options["lr"])), tensor(0.0)
        self.param_groups.append(Group({**options, "params": params, "lr": lr, "step": step}))

    # -- what an optimiser says ----------------------------------------------------------------------------------------

    def check(self, options: Mapping[str, Any]) -> None:
        """Complain (OpError) about options that make no sense."""
        if options["lr"] < 0:
            raise OpError(f"{type(self).__name__}(lr={options['lr']}): expected a learning rate ≥ 0")

    def slots(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the tensors to keep for each parameter, of its shape, zeros at first."""
        return ()

    def update(self, group: Group) -> None:
        """One step of the parameters of a group; `group["step"]` counts it already."""
        raise NotImplementedError

    # -- what users call -----------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Move each parameter that has a gradient."""
        with no_grad():
            for group in self.param_groups:
                group["step"].add_(1.0)
                self.update(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters (or fill them with 0)."""
        for p in self.state:
            p.grad = None if set_to_none or p.grad is None else p.grad.zeros_like()

    @property
    def lr(self) -> float:
        """The learning rate of the first group; assigning sets that of all groups, for steps already compiled too."""
        return _number(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: Any) -> None:
        for group in self.param_groups:
            group["lr"] = value

    # -- state ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Step counts, state tensors and options, in PyTorch's form: {"state": {number: {…}}, "param_groups": […]}."""
        numbers = {p: number for number, p in enumerate(self.state)}
        state, groups = {}, []
        for group in self.param_groups:
            options = {key: value for key, value in group.items() if key != "step"}
            groups.append({**options, "lr": _number(group["lr"]), "params": [numbers[p] for p in group["params"]]})
            for p in group["params"]:
                slots = {key: slot.detach() for key, slot in self.state[p].items()}
                state[numbers[p]] = {"step": group["step"].clone(), **slots}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of this optimiser or PyTorch's of the same name, over the same parameters in order.

        Raises:
            FormatError: groups, parameters or shapes differ; then nothing was changed.
        """
        name, given = type(self).__name__, state["param_groups"]
        sizes, wanted = [len(group["params"]) for group in given], [len(group["params"]) for group in self.param_groups]
        if sizes != wanted:
            raise FormatError(f"load_state_dict of {name}: expected groups of {wanted} parameters, got {sizes}")
        order = [number for group in given for number in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        pairs = [(f"{number}.{key}", slot, as_tensor(state["state"][number][key]))
                 for number, p in zip(order, params, strict=True) if number in state["state"]
                 for key, slot in self.state[p].items() if key in state["state"][number]]
        faults = [f"{key}: expected {slot.shape}, got {new.shape}"
                  for key, slot, new in pairs if slot.shape != new.shape]
        if faults:
            raise FormatError(f"load_state_dict of {name}, nothing was changed: {', '.join(faults)}")
        for _, slot, new in pairs:
            slot.copy_(new)
        for group, new in zip(self.param_groups, given, strict=True):
            steps = [state["state"][n]["step"] for n in new["params"] if "step" in state["state"].get(n, {})]
            for key in set(self.defaults) & set(new):
                group[key] = new[key]
            group["step"] = max(map(float, steps), default=0.0)

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) for what a step uses besides parameters and gradients: `lr`, `step`, `exp_avg_0`, …"""
        for number, group in enumerate(self.param_groups):
            after = f"_{number}" if len(self.param_groups) > 1 else ""
            yield from ((key + after, group[key]) for key in ("lr", "step"))
        for number, slots in enumerate(self.state.values()):
            yield from ((f"{key}_{number}", slot) for key, slot in slots.items())


def _number(x: Tensor) -> float:
    """The shortest decimal that is this number: 0.1, not f32's 0.10000000149."""
    return float(str(x.numpy()))
