"""Offloaded models of accelerate: weights that are in memory only while their module computes.

Between passes the parameters of an offloaded module lie on the meta device, without values. Its
``AlignDevicesHook`` reads them from ``weights_map`` (tensors on the CPU, or files) just before the
module's forward and drops them just after it. So there is nothing to swap and nothing to put back:
a point is reached by moving each parameter when it has been read, and left when it is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.weak import WeakTensorKeyDictionary

from landscope.errors import ParamsError
from landscope.extras import import_optional

Change = Callable[[str, Tensor], None]


def names(model: nn.Module) -> list[str]:
    """Return the names of the offloaded parameters in module order, tied ones once.

    Ties are known where the stored values share memory, or from what a model of transformers says
    of itself; tied copies on disk of any other model count as two parameters.

    Raises:
        ParamsError: when of two tied parameters only one is offloaded, or a batch norm's statistics
            are, too.

    Example:
        >>> import torch
        >>> from landscope.objective import offloaded
        >>> offloaded.names(torch.nn.Linear(2, 1))
        []
    """
    places = _places(model)
    found = {name for place in places for name in place.names.values()}
    return [n for n, _ in _parameters(model) if n in found] if found else []


def device(model: nn.Module) -> torch.device | None:
    """Return where the first offloaded weights are computed with; None where there are none.

    Inputs may lie anywhere, for hooks move them; the outputs come back to where the inputs were.
    """
    found = next((place.hook.execution_device for place in _places(model)), None)
    return None if found is None else torch.device(found)


def resident(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of a model, detached, those that are offloaded as they are stored.

    Ones that are tied to an earlier one of them are left out. No memory is taken, but for what
    reading from a file takes.
    """
    places = _places(model)
    read = {place.prefix + local for place in places for local in place.names}
    kept = {first for place in places for first in place.names.values()}
    return {
        name: original(model, name) if name in kept else tensor.detach()
        for name, tensor in tensors.items()
        if name in kept or not (tensor.is_meta or name in read)
    }


def original(model: nn.Module, name: str) -> Tensor:
    """Return the value of one offloaded parameter, on the device where it is stored.

    It may be the memory that the model is read from: do not write to it.

    Args:
        model: with hooks of accelerate.
        name: one of :func:`names`, or a name that is tied to it.

    Raises:
        ParamsError: when no offloaded parameter has this name.

    Cost: what reading this one parameter costs; a file is read again each time.
    """
    for place in _places(model):
        for local, first in place.names.items():
            if name in (first, place.prefix + local):
                kind = place.module.get_parameter(local).dtype
                value: Tensor = place.hook.weights_map[local]
                return value.detach().to(kind)
    raise ParamsError(
        f"name={name!r} is no offloaded parameter of this {type(model).__name__}: take one of"
        " landscope.objective.offloaded.names(model)."
    )


@contextlib.contextmanager
def moved(model: nn.Module, change: Change) -> Iterator[None]:
    """Change each offloaded parameter in every pass, between its being read and its being used.

    What is stored is never written to. Afterwards hooks are as before, and no weight is left in
    memory, also when a pass broke off in the middle.

    Args:
        model: with hooks of accelerate.
        change: ``change(name, tensor)`` writes to the tensor, which lies where the module computes;
            the name is one of :func:`names`. It is called once for each time that a parameter is
            read.

    Cost: on a CPU a copy of one module's own weights at a time, elsewhere nothing.
    """
    passing = _Passing(change)
    with contextlib.ExitStack() as stack:
        stack.callback(passing.drop_all)
        for place in _places(model):
            stack.enter_context(passing.through(place))
        yield


@final
@dataclass(frozen=True, eq=False)
class _Place:
    """A module whose parameters are offloaded.

    Args:
        module: that reads them.
        prefix: of its names in the model, with a dot.
        hook: an ``AlignDevicesHook``.
        names: name in the module -> first name in the model.
    """

    module: nn.Module
    prefix: str
    hook: Any
    names: Mapping[str, str]


@final
class _Passing:
    """What is loaded at the moment, and how it is changed.

    Args:
        change: of a parameter that was read.
    """

    def __init__(self, change: Change) -> None:
        self.change = change
        self.changed: Any = WeakTensorKeyDictionary()  # tied ones that are loaded may be one tensor
        self.loaded: list[tuple[Callable[..., Any], nn.Module]] = []

    @contextlib.contextmanager
    def through(self, place: _Place) -> Iterator[None]:
        """Let the hook of a module load changed parameters."""
        hook = place.hook
        load, drop = hook.pre_forward, hook.post_forward
        own = {n: vars(hook)[n] for n in ("pre_forward", "post_forward") if n in vars(hook)}

        def loading(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            self.loaded.append((drop, module))
            found = load(module, *args, **kwargs)
            for local, name in place.names.items():
                self._change(name, module.get_parameter(local))
            return found

        def dropping(module: nn.Module, output: Any) -> Any:
            self.loaded.remove((drop, module))
            return drop(module, output)

        hook.pre_forward, hook.post_forward = loading, dropping
        try:
            yield
        finally:
            del hook.pre_forward, hook.post_forward
            vars(hook).update(own)

    def _change(self, name: str, parameter: nn.Parameter) -> None:
        if parameter in self.changed or not parameter.is_floating_point():
            return
        if parameter.device.type == "cpu":  # where it may be the stored tensor itself
            parameter.data = parameter.data.clone()
        self.changed[parameter] = True
        self.change(name, parameter.data)

    def drop_all(self) -> None:
        """Drop what a pass that broke off has left in memory."""
        while self.loaded:
            drop, module = self.loaded.pop()
            drop(module, None)


def _places(model: nn.Module) -> list[_Place]:
    """Return the modules with offloaded parameters, in module order."""
    hooked = [(n, m, hook) for n, m in model.named_modules() for hook in _hooks(m)]
    first = _first_names(model) if hooked else {}
    found = []
    for prefix, module, hook in hooked:
        dotted = f"{prefix}." if prefix else ""
        own = {n: first[dotted + n] for n, _ in _own(module, hook)}
        found.append(_Place(module, dotted, hook, own))
        _check_statistics(prefix, module, hook)
    _check_ties(model, found, first)
    return found


def _check_statistics(prefix: str, module: nn.Module, hook: Any) -> None:
    """Raise a sentence when statistics are offloaded: a pass may write to what is stored of them.

    And what is computed anew for a point would be replaced by what is stored.
    """
    read = module.modules() if hook.place_submodules else [module]
    norms = [m for m in read if isinstance(m, _NormBase) and m.running_mean is not None]
    if hook.offload_buffers and norms:
        raise ParamsError(
            f"{prefix or 'the model'}: the statistics of a {type(norms[0]).__name__} in it are"
            " offloaded, and a pass may write to them: offload with offload_buffers=False."
        )


def _check_ties(model: nn.Module, places: list[_Place], first: Mapping[str, str]) -> None:
    """Raise a sentence when of two tied parameters only one is offloaded."""
    read = {_holder(place.module, name) for place in places for name in place.names}
    ways: dict[str, set[bool]] = {}
    for name, origin in first.items():
        ways.setdefault(origin, set()).add(_holder(model, name) in read)
    mixed = next((origin for origin, kinds in ways.items() if len(kinds) > 1), None)
    if mixed is not None:
        tied = ", ".join(name for name, origin in first.items() if origin == mixed)
        raise ParamsError(
            f"{tied} are one tensor, of which a part is offloaded and another is not: put them on"
            " the same device in device_map."
        )


def _holder(module: nn.Module, name: str) -> tuple[int, str]:
    """Return what a parameter is known by: who holds it, which may have several names, and how."""
    prefix, _, own = name.rpartition(".")
    return id(module.get_submodule(prefix)), own


def _hooks(module: nn.Module) -> list[Any]:
    """Return the hooks of a module that offload."""
    hook: Any = getattr(module, "_hf_hook", None)
    chain = getattr(hook, "hooks", (hook,))
    return [h for h in chain if getattr(h, "offload", False) and h.weights_map is not None]


def _own(module: nn.Module, hook: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that the hook of a module reads."""
    return module.named_parameters(recurse=hook.place_submodules, remove_duplicate=False)


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return model.named_parameters(remove_duplicate=False)


def _first_names(model: nn.Module) -> dict[str, str]:
    """Return name -> first name among those tied to it, for every parameter."""
    declared = _declared(model)
    stored = _in_memory(model)
    known: dict[Hashable, str] = {}
    found = {}
    for name, parameter in _parameters(model):
        keys: list[Hashable] = [id(parameter), declared.get(name, name)]
        if name in stored:
            keys.append((stored[name].data_ptr(), stored[name].shape))
        found[name] = next((known[k] for k in keys if k in known), name)
        known |= dict.fromkeys(keys, found[name])
    return found


def _declared(model: nn.Module) -> dict[str, str]:
    """Return which parameters are tied to which, by what models of transformers say."""
    found = {}
    for prefix, module in model.named_modules():
        ties = getattr(module, "all_tied_weights_keys", None)
        dotted = f"{prefix}." if prefix else ""
        for name, source in (ties if isinstance(ties, dict) else {}).items():
            found[dotted + name] = dotted + source
    return found


def _in_memory(model: nn.Module) -> dict[str, Tensor]:
    """Return the stored values that are in memory: no file is read."""
    found = {}
    for prefix, module in model.named_modules():
        for hook in _hooks(module):
            for local, _ in _own(module, hook):
                value = _without_reading(hook.weights_map, local)
                if value is not None:
                    found[f"{prefix}.{local}" if prefix else local] = value
    return found


def _without_reading(weights: Any, name: str) -> Tensor | None:
    offload = import_optional("accelerate.utils.offload", extra="transformers")
    if isinstance(weights, offload.PrefixedDataset):
        return _without_reading(weights.dataset, weights.prefix + name)
    if isinstance(weights, offload.OffloadedWeightsLoader):
        weights = weights.state_dict
    return weights.get(name) if isinstance(weights, dict) else None
