"""Offloaded models of accelerate: weights that are in memory only while their module computes.

Between passes the parameters of an offloaded module are on the meta device, without values. Its
``AlignDevicesHook`` loads them from ``weights_map`` (tensors on the CPU, or files) before the
module's forward and drops them after it. So there is nothing to swap and nothing to restore: each
parameter is moved to a point when it has been loaded, and forgotten when it is dropped.
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

from landscope.errors import ObjectiveError, ParamsError
from landscope.extras import import_optional

Change = Callable[[str, Tensor], None]


def list_names(model: nn.Module) -> list[str]:
    """Return the names of the offloaded parameters in module order, tied ones only once.

    Ties are known where the stored values share memory, or from the list of ties that a model of
    transformers has; tied copies on disk of any other model count as two parameters.

    Raises:
        ParamsError: When only one of two tied parameters is offloaded, or the statistics of a batch
            norm are offloaded.

    Example:
        >>> import torch
        >>> from landscope.objective import offloaded
        >>> offloaded.list_names(torch.nn.Linear(2, 1))
        []
    """
    names = {name for site in _find_sites(model) for name in site.names.values()}
    return [n for n, _ in _list_parameters(model) if n in names] if names else []


def find_device(model: nn.Module) -> torch.device | None:
    """Return the device that computes with the first offloaded weights; None if there are none.

    Inputs may be on any device: hooks move them, and move the outputs back to their device.
    """
    device = next((site.hook.execution_device for site in _find_sites(model)), None)
    return None if device is None else torch.device(device)


def find_stored(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of a model, detached, with the stored value of each offloaded one.

    Offloaded ones that are tied to an earlier one are left out.

    Cost: Only what is read from files takes memory.
    """
    sites = _find_sites(model)
    loaded = {site.prefix + local for site in sites for local in site.names}
    first_names = {first for site in sites for first in site.names.values()}
    return {
        name: read_stored(model, name) if name in first_names else tensor.detach()
        for name, tensor in tensors.items()
        if name in first_names or not (tensor.is_meta or name in loaded)
    }


def read_stored(model: nn.Module, name: str) -> Tensor:
    """Return the stored value of one offloaded parameter, on the device where it is stored.

    It may be the memory that the model is loaded from: do not write to it.

    Args:
        model: A model with hooks of accelerate.
        name: One of :func:`list_names`, or a name that is tied to it.

    Raises:
        ParamsError: When no offloaded parameter has this name.

    Cost: One read of the parameter; a file is read again at each call.
    """
    for site in _find_sites(model):
        for local, first in site.names.items():
            if name in (first, site.prefix + local):
                dtype = site.module.get_parameter(local).dtype
                value: Tensor = site.hook.weights_map[local]
                return value.detach().to(dtype)
    raise ParamsError(
        f"name={name!r} is not an offloaded parameter of this {type(model).__name__}: take one of"
        " landscope.objective.offloaded.list_names(model)."
    )


@contextlib.contextmanager
def change_when_loaded(model: nn.Module, change: Change) -> Iterator[None]:
    """Change each offloaded parameter in every pass, after it is loaded and before it is used.

    Stored values are never written to. Afterwards the hooks are as before, and no weight is left in
    memory, even if a pass raised an exception.

    Args:
        model: A model with hooks of accelerate.
        change: A function ``change(name, tensor)`` that writes to the tensor, on the device of the
            computation; the name is one of :func:`list_names`. It is called once each time that a
            parameter is loaded.

    Cost: On a CPU a copy of the weights of one module at a time, elsewhere nothing.
    """
    loading = _Loading(change)
    with contextlib.ExitStack() as stack:
        stack.callback(loading.drop_all)
        for site in _find_sites(model):
            stack.enter_context(loading.patch(site))
        yield


@final
@dataclass(frozen=True, eq=False)
class _Site:
    """A module whose parameters are offloaded.

    Args:
        module: The module that loads them.
        prefix: The prefix of their names in the model, with a dot.
        hook: An ``AlignDevicesHook``.
        names: Name in the module -> first name in the model.
    """

    module: nn.Module
    prefix: str
    hook: Any
    names: Mapping[str, str]


@final
class _Loading:
    """The parameters that are loaded at the moment, and the change to them.

    Args:
        change: The change to a parameter that was loaded.
    """

    def __init__(self, change: Change) -> None:
        self.change = change
        self.changed: Any = WeakTensorKeyDictionary()  # tied ones that are loaded may be one tensor
        self.loaded: list[tuple[Callable[..., Any], nn.Module]] = []

    @contextlib.contextmanager
    def patch(self, site: _Site) -> Iterator[None]:
        """Make the hook of a module load changed parameters."""
        hook = site.hook
        load, drop = hook.pre_forward, hook.post_forward
        patched = {n: vars(hook)[n] for n in ("pre_forward", "post_forward") if n in vars(hook)}

        def pre_forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            self.loaded.append((drop, module))
            inputs = load(module, *args, **kwargs)
            for local, name in site.names.items():
                self._change(name, module.get_parameter(local))
            return inputs

        def post_forward(module: nn.Module, output: Any) -> Any:
            self.loaded.remove((drop, module))
            return drop(module, output)

        hook.pre_forward, hook.post_forward = pre_forward, post_forward
        try:
            yield
        finally:
            del hook.pre_forward, hook.post_forward
            vars(hook).update(patched)

    def _change(self, name: str, parameter: nn.Parameter) -> None:
        if parameter in self.changed or not parameter.is_floating_point():
            return
        if parameter.device.type == "cpu":  # where it can be the stored tensor itself
            parameter.data = parameter.data.clone()
        self.changed[parameter] = True
        self.change(name, parameter.data)

    def drop_all(self) -> None:
        """Drop the parameters that a pass left in memory because of an exception."""
        while self.loaded:
            drop, module = self.loaded.pop()
            drop(module, None)


def _find_sites(model: nn.Module) -> list[_Site]:
    """Return the modules with offloaded parameters, in module order."""
    hooks = [(n, m, hook) for n, m in model.named_modules() for hook in _find_hooks(m)]
    first = _find_first_names(model) if hooks else {}
    sites = []
    for prefix, module, hook in hooks:
        dotted = f"{prefix}." if prefix else ""
        names = {n: first[dotted + n] for n, _ in _hook_parameters(module, hook)}
        sites.append(_Site(module, dotted, hook, names))
        _check_statistics(prefix, module, hook)
    _check_ties(model, sites, first)
    return sites


def _check_statistics(prefix: str, module: nn.Module, hook: Any) -> None:
    """Check that no statistics are offloaded: a pass may write to their stored values.

    Statistics that are recomputed at a point would also be replaced by the stored ones.
    """
    modules = module.modules() if hook.place_submodules else [module]
    norms = [m for m in modules if isinstance(m, _NormBase) and m.running_mean is not None]
    if hook.offload_buffers and norms:
        raise ParamsError(
            f"{prefix or 'the model'}: the statistics of a {type(norms[0]).__name__} in it are"
            " offloaded, and a pass may write to them: offload with offload_buffers=False."
        )


def _check_ties(model: nn.Module, sites: list[_Site], first: Mapping[str, str]) -> None:
    """Check that of the names of a tied parameter either all or none are offloaded."""
    offloaded = {_identify(site.module, name) for site in sites for name in site.names}
    states: dict[str, set[bool]] = {}
    for name, origin in first.items():
        states.setdefault(origin, set()).add(_identify(model, name) in offloaded)
    mixed = next((origin for origin, kinds in states.items() if len(kinds) > 1), None)
    if mixed is not None:
        tied = ", ".join(name for name, origin in first.items() if origin == mixed)
        raise ParamsError(
            f"{tied} are one tensor, which is offloaded under some of these names only: put them on"
            " the same device in device_map."
        )


def _identify(module: nn.Module, name: str) -> tuple[int, str]:
    """Return (id of the module that has the parameter, name in it), the same for all its names."""
    prefix, _, local = name.rpartition(".")
    return id(module.get_submodule(prefix)), local


def _find_hooks(module: nn.Module) -> list[Any]:
    """Return the hooks of a module that offload."""
    hook: Any = getattr(module, "_hf_hook", None)
    chain = getattr(hook, "hooks", (hook,))
    return [h for h in chain if getattr(h, "offload", False) and h.weights_map is not None]


def _hook_parameters(module: nn.Module, hook: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that the hook of a module loads."""
    return module.named_parameters(recurse=hook.place_submodules, remove_duplicate=False)


def _list_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return model.named_parameters(remove_duplicate=False)


def _find_first_names(model: nn.Module) -> dict[str, str]:
    """Return name -> first name among the tied ones, for every parameter."""
    declared = _find_declared_ties(model)
    stored = _find_in_memory(model)
    known: dict[Hashable, str] = {}
    first = {}
    for name, parameter in _list_parameters(model):
        keys: list[Hashable] = [id(parameter), declared.get(name, name)]
        if name in stored:
            keys.append((stored[name].data_ptr(), stored[name].shape))
        first[name] = next((known[k] for k in keys if k in known), name)
        known |= dict.fromkeys(keys, first[name])
    return first


def _find_declared_ties(model: nn.Module) -> dict[str, str]:
    """Return name -> name that it is tied to, as models of transformers declare it."""
    sources = {}
    for prefix, module in model.named_modules():
        ties = getattr(module, "all_tied_weights_keys", None)
        dotted = f"{prefix}." if prefix else ""
        for name, source in (ties if isinstance(ties, dict) else {}).items():
            sources[dotted + name] = dotted + source
    return sources


def _find_in_memory(model: nn.Module) -> dict[str, Tensor]:
    """Return the stored values that are in memory; no file is read."""
    values = {}
    for prefix, module in model.named_modules():
        for hook in _find_hooks(module):
            for local, _ in _hook_parameters(module, hook):
                value = _get_in_memory(hook.weights_map, local)
                if value is not None:
                    values[f"{prefix}.{local}" if prefix else local] = value
    return values


def _get_in_memory(weights: Any, name: str) -> Tensor | None:
    """Return a stored value; None when it is in a file."""
    offload = import_optional("accelerate.utils.offload", extra="transformers")
    if isinstance(weights, offload.PrefixedDataset):
        return _get_in_memory(weights.dataset, weights.prefix + name)
    if isinstance(weights, offload.OffloadedWeightsLoader):
        weights = weights.state_dict
    return weights.get(name) if isinstance(weights, dict) else None


def check_loaded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as they are, if all are in memory.

    Raises:
        ObjectiveError: When one is not.
    """
    if any(tensor.is_meta for tensor in tensors.values()):
        raise ObjectiveError(
            "weights of an offloaded model are not in memory all at once, so that neither"
            " gradients nor penalties of them can be computed."
        )
    return tensors
