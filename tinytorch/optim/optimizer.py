"""The base of optimisers: parameters in groups, a learning rate in a tensor, and state that exists from the start.

All that a step changes is a tensor that was there before (parameters, state, the step count), and the learning rate is
one too. So `@tt.compile` on a step finds them, updates them in place, and takes a new learning rate without compiling
again. What one writes to have an optimiser of one's own is `slots` and `update`:

    >>> import tinytorch as tt
    >>> class SignSGD(tt.optim.Optimizer):
    ...     def __init__(self, params, lr=0.5):
    ...         super().__init__(params, {"lr": lr})
    ...     def update(self, group):
    ...         for p, g, _ in self.gradients(group):
    ...             p.sub_(tt.where(g > 0, 1.0, -1.0) * group["lr"])
    >>> w = tt.tensor([3.0, -3.0], requires_grad=True)
    >>> opt = SignSGD([w])
    >>> (w * w).sum().backward(); opt.step(); w
    tensor([ 2.5, -2.5], requires_grad=True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinytorch.autograd import enable_grad, no_grad
from tinytorch.frontends.trace import Tracer
from tinytorch.ir import current, dtypes, is_tracing
from tinytorch.ir.errors import FormatError, GradientError, OpError, TracingError
from tinytorch.tensor import Tensor, as_tensor, tensor

NOT_NEGATIVE = ("lr", "eps", "weight_decay", "momentum", "alpha", "lr_decay", "initial_accumulator_value")


def outside_traces(what: str) -> None:
    """Complain (TracingError) if a function is being traced: a Python number read or written now would stay for good in
    its program."""
    if is_tracing():
        raise TracingError(f"{what} inside a traced or compiled function would happen once, while it is traced, and "
                           "never again; do it outside, before or after the call: the learning rate is an input of a "
                           "compiled step, so a new one compiles nothing")


class Group(dict[str, Any]):
    """Parameters with their options. `group["lr"] = 0.1` writes into the tensor that holds the learning rate."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        params = options["params"]
        dtype = dtypes.f64 if params and all(p.dtype is dtypes.f64 for p in params) else dtypes.f32
        self._given = float(options["lr"])  # as it was given, in Python's precision
        dict.__setitem__(self, "lr", tensor(self._given, dtype))
        dict.__setitem__(self, "step", tensor(0.0, dtype))

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(self.get(key), Tensor):
            super().__setitem__(key, value)
            return
        if not isinstance(value, Tensor):
            outside_traces(f'a number for group["{key}"]')
            value = float(value)
            self._given = value if key == "lr" else self._given
        with no_grad():
            self[key].copy_(value)

    @property
    def rate(self) -> float:
        """The learning rate as a Python number: the one that was assigned, or the shortest decimal of the tensor's."""
        outside_traces('a learning rate as a Python number (use group["lr"], a tensor)')
        held = self["lr"].numpy()
        return self._given if held.dtype.type(self._given) == held else float(str(held))


class Optimizer:
    """What all optimisers share.

    Args:
        params: tensors that require gradients, or dictionaries {"params": tensors, option: value, …} with options of
            their own.
        defaults: the options of all groups that do not say otherwise.
    Attributes:
        param_groups: dictionaries of options; "lr" holds a 0-d tensor (f64 if all parameters are, else f32). Other
            options are Python values, and constants of a compiled step, which is compiled again when one was changed or
            a group added.
        state: for each parameter, its tensors by name.
    Raises:
        OpError: there is nothing to optimise, a parameter is given twice, an option is unknown or makes no sense.
        GradientError: a parameter does not require a gradient.

    The parameters of a group share one step count, so that a compiled step works out what depends on it once. PyTorch
    counts for each parameter the steps in which it had a gradient: it differs for a parameter that has none in some
    steps, and if the optimiser looks at the count (Adam's bias correction, Adagrad's lr_decay, SGD's dampening). Give
    such parameters a group of their own.

    >>> import tinytorch as tt
    >>> model = tt.nn.Linear(3, 2)
    >>> groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
    >>> opt = tt.optim.AdamW(groups, lr=0.5, weight_decay=0.1)
    >>> [(group["lr"], group["weight_decay"]) for group in opt.param_groups]
    [(tensor(0.5), 0.1), (tensor(0.5), 0.0)]
    """

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        if not isinstance(params, Iterable):
            raise OpError(f"{type(self).__name__}: expected parameters, such as model.parameters(), got "
                          f"{type(params).__name__}")
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
        slots = self.slots(options)
        state: dict[Tensor, dict[str, Tensor]] = {}
        for p in params:
            self.check_parameter(p)
            if p in self.state or p in state:
                raise OpError(f"{name}: a parameter of type {p.type} is given twice")
            state[p] = {key: _filled(p, fill) for key, fill in slots.items()}
        self.state.update(state)
        self.param_groups.append(Group({**options, "params": params}))

    def __repr__(self) -> str:
        groups = []
        for group in self.param_groups:
            options = {key: group.rate if key == "lr" else group[key] for key in self.defaults}
            told = ", ".join(f"{key}={value}" for key, value in options.items())
            groups.append(f"{told}: {len(group['params'])} parameters")
        return f"{type(self).__name__}({'; '.join(groups)})"

    # -- what an optimiser says ----------------------------------------------------------------------------------------

    def check(self, options: Mapping[str, Any]) -> None:
        """Complain (OpError) about options that make no sense."""
        for key in NOT_NEGATIVE:
            if key in options and not _at_least_0(options[key]):
                what = "a learning rate" if key == "lr" else "a number"
                raise OpError(f"{type(self).__name__}({key}={options[key]}): expected {what} ≥ 0")
        betas = options.get("betas", (0.0, 0.0))
        pair = isinstance(betas, (tuple, list)) and len(betas) == 2
        if not pair or not all(_at_least_0(beta) and beta < 1 for beta in betas):
            raise OpError(f"{type(self).__name__}(betas={betas}): expected two numbers, 0 ≤ beta < 1")

    def check_parameter(self, p: Any) -> None:
        """Complain (GradientError) about what is not a parameter."""
        if not isinstance(p, Tensor) or not p.requires_grad or not p.is_leaf:
            raise GradientError(f"{type(self).__name__}: expected parameters, tensors with requires_grad=True that "
                                f"nothing computed; got {p!r:.80}")

    def slots(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """The tensors to keep for each parameter, of its type: their names, and what they are filled with at first."""
        return {}

    def update(self, group: Group) -> None:
        """One step of the parameters of a group; `group["step"]` counts it already."""
        raise NotImplementedError(f"{type(self).__name__} has no update(self, group): write how it moves parameters")

    def gradients(self, group: Group, weight_decay: float = 0.0) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
        """(p, g, state of p) for the parameters that have a gradient: g = ±gradient + weight_decay · p."""
        slots = self.slots(group)
        for p in group["params"]:
            if p.grad is not None:
                state = self.state[p]
                for key in slots.keys() - state.keys():  # an option such as momentum was changed since
                    state[key] = _filled(p, slots[key])
                g = -p.grad if group.get("maximize") else p.grad
                yield p, g + p * weight_decay if weight_decay else g, state

    # -- what users call -----------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move each parameter that has a gradient.

        Args:
            closure: computes the loss and its gradients first; its result is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        interpreter = current()
        if isinstance(interpreter, Tracer):
            interpreter.rely(self._options)
        with no_grad():
            for group in self.param_groups:
                group["step"].add_(1.0)
                self.update(group)
        return loss

    def _options(self) -> list[Any]:
        """What a compiled step takes for granted."""
        return [group[key] for group in self.param_groups for key in self.defaults if key != "lr"]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters (or fill them with 0)."""
        for p in self.state:
            p.grad = None if set_to_none or p.grad is None else p.grad.zeros_like()

    @property
    def lr(self) -> float:
        """The learning rate of the first group; assigning sets that of all groups, for steps already compiled too.

        Raises:
            TracingError: a function is being traced, where the number would be a constant; `param_groups[0]["lr"]` is a
                tensor, and may be used there.
        """
        return self.param_groups[0].rate

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
            groups.append({**options, "lr": group.rate, "params": [numbers[p] for p in group["params"]]})
            for p in group["params"]:
                slots = self.state[p].keys() & self.slots(group).keys()
                tensors = {key: slot.detach() for key, slot in self.state[p].items() if key in slots}
                state[numbers[p]] = {"step": group["step"].clone(), **tensors}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of this optimiser or PyTorch's of the same name, over the same parameters in order.

        Raises:
            FormatError: groups, parameters or shapes differ; then nothing was changed.
            OpError: an option makes no sense; then nothing was changed.
        """
        outside_traces("load_state_dict of an optimiser")
        name = type(self).__name__
        if missing := {"state", "param_groups"} - state_dict.keys():
            raise FormatError(f"load_state_dict of {name}, nothing was changed: {', '.join(sorted(missing))} missing; "
                              "is it of an optimiser?")
        given, state = state_dict["param_groups"], state_dict["state"]
        sizes, wanted = [len(group["params"]) for group in given], [len(group["params"]) for group in self.param_groups]
        if sizes != wanted:
            raise FormatError(f"load_state_dict of {name}: expected groups of {wanted} parameters, got {sizes}")
        loads = [_Load(self, group, new, state) for group, new in zip(self.param_groups, given, strict=True)]
        if faults := [fault for load in loads for fault in load.faults]:
            raise FormatError(f"load_state_dict of {name}, nothing was changed: {', '.join(faults)}")
        for load in loads:
            load.apply()

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) for the parameters, `param_0`, …: how a compiled function that sees the optimiser and not the
        model knows whose gradients it uses."""
        return ((f"param_{number}", p) for number, p in enumerate(self.state))

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) for what a step uses besides parameters and gradients: `lr`, `step`, `exp_avg_0`, …"""
        for number, group in enumerate(self.param_groups):
            after = f"_{number}" if len(self.param_groups) > 1 else ""
            yield from ((key + after, group[key]) for key in ("lr", "step"))
        for number, slots in enumerate(self.state.values()):
            yield from ((f"{key}_{number}", slot) for key, slot in slots.items())


class _Load:
    """What `load_state_dict` found for one group, to be written once all is known to fit."""

    def __init__(self, optimizer: Optimizer, group: Group, new: Mapping[str, Any], state: Mapping[Any, Any]) -> None:
        self.group, self.faults = group, list[str]()
        known = [key for key in (*optimizer.defaults, "initial_lr") if key in new]
        self.options = {key: tuple(new[key]) if isinstance(new[key], list) else new[key] for key in known}
        options = {**group, **self.options}
        optimizer.check(options)
        self.slots: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # of each parameter: its own, and the new
        steps, found = list[float](), False
        for p, number in zip(group["params"], new["params"], strict=True):
            given = state.get(number, {})
            fresh = {key: _filled(p, fill) for key, fill in optimizer.slots(options).items()}
            for key in fresh:
                if given.get(key) is None:  # PyTorch has none before the first step
                    continue
                found, value = True, as_tensor(given[key])
                if value.shape == p.shape:
                    fresh[key].copy_(value)
                else:
                    self.faults.append(f"{number}.{key}: expected {p.shape}, got {value.shape}")
            steps += [float(given["step"])] if "step" in given else []
            self.slots.append((optimizer.state[p], fresh))
        self.step = max(steps) if steps else float(found)  # PyTorch's SGD and Muon do not count: state, so a step

    def apply(self) -> None:
        """Overwrite the tensors that are there, in place, and those options that the state names."""
        for own, fresh in self.slots:
            for key, value in fresh.items():
                own.setdefault(key, value).copy_(value)
        for key, option in self.options.items():
            self.group[key] = option
        self.group["step"] = self.step


def _at_least_0(value: Any) -> bool:
    try:
        return float(value) >= 0
    except (TypeError, ValueError):  # not a number
        return False


def _filled(p: Tensor, fill: float) -> Tensor:
    return Tensor(np.full(p.shape, fill, p.dtype.np))
