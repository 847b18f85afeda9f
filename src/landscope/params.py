"""Params: named tensors of a model in module order, and which of their weights form a filter.

``Params`` is a ``dict[str, Tensor]`` that also remembers the layout of each tensor, because a
shape alone does not say which axis is the output: a Linear weight is (out, in), the weight of a
transposed convolution is (in, out). A plain dict is taken as if every output axis were the first.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

from landscope.errors import ParamsError

__all__ = [
    "Layout",
    "Params",
    "clone",
    "dot",
    "filters",
    "flatten",
    "layouts",
    "like",
    "norm",
    "parameters",
    "select",
    "states",
    "unflatten",
    "wrap",
]

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Layout:
    """Which weights of a tensor feed one output unit of its module.

    Args:
        axis: the output axis: 0, or 1 where the inputs come first.
        groups: groups of a transposed convolution, whose output units are group x axis.
        vector: True for biases, gains, shifts and statistics: no filters, whatever the shape.
        constant: True for buffers that are no statistics, such as rotary frequencies and masks:
            random directions never move them.
    """

    axis: int = 0
    groups: int = 1
    vector: bool = False
    constant: bool = False

    def rows(self, tensor: Tensor) -> Tensor:
        """Return the filters as rows, shape (filters, weights of a filter)."""
        if self.axis == 0:
            return tensor.flatten(1)
        inputs, outputs = tensor.shape[:2]
        grouped = tensor.reshape(self.groups, inputs // self.groups, outputs, -1)
        return grouped.transpose(1, 2).reshape(self.groups * outputs, -1)

    def from_rows(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Return the tensor of the given shape whose filters are these rows."""
        if self.axis == 0:
            return rows.reshape(shape)
        inputs, outputs = shape[:2]
        grouped = rows.reshape(self.groups, outputs, inputs // self.groups, -1)
        return grouped.transpose(1, 2).reshape(shape)


class Params(dict[str, Tensor]):
    """Named tensors in module order, each with its layout.

    Args:
        tensors: name -> tensor.
        layouts: name -> layout; a tensor without one has its output axis first, and is a vector
            when it has at most one dimension.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = (),
        layouts: Mapping[str, Layout] | None = None,
    ) -> None:
        super().__init__(tensors)
        self.layouts = dict(layouts or {})

    def layout(self, name: str) -> Layout:
        """Return how the tensor ``name`` is made of filters."""
        default = Layout(vector=self[name].ndim <= 1)
        return self.layouts.get(name, default)


def parameters(model: nn.Module) -> Params:
    """Return the trainable parameters of a model themselves (not copies), tied ones once.

    Raises:
        ParamsError: when one of them is complex.
    """
    found = {n: p for n, p in model.named_parameters() if p.requires_grad}
    odd = next((n for n, p in found.items() if p.is_complex()), None)
    if odd is not None:
        raise ParamsError(
            f"{odd!r} holds complex numbers ({found[odd].dtype}); expected real ones: let the model"
            " keep them as torch.view_as_real gives them, or set requires_grad=False to hold them"
            " still."
        )
    return Params(found, layouts(model))


def states(model: nn.Module) -> Params:
    """Return all parameters and floating-point buffers themselves, in ``state_dict()`` order.

    Tied parameters appear once, under their first name; integer counters are left out.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    alive = dict(named_tensors(model))
    for name in model.state_dict(keep_vars=True):
        tensor = alive.get(name)
        if tensor is not None and tensor.is_floating_point() and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return Params(found, layouts(model))


def named_tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Yield every parameter and buffer, tied ones under each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def layouts(model: nn.Module) -> dict[str, Layout]:
    """Return the layout of each tensor of a model: the table of docs/guides/filters.md."""
    found = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, tensor in module.named_buffers(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            statistics = isinstance(module, _NORMS)
            found[full] = Layout(vector=statistics or tensor.ndim <= 1, constant=not statistics)
        for name, tensor in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            owner, is_one, parametrized = prefix.rpartition("parametrizations.")
            if _is_length(module, name):
                found[full] = Layout(vector=True)
            elif is_one:  # weight_norm and its like: "conv.parametrizations.weight.original1"
                found[full] = _layout(model.get_submodule(owner.rstrip(".")), parametrized, tensor)
            else:
                found[full] = _layout(module, name, tensor)
    return found


def _layout(module: nn.Module, name: str, tensor: Tensor) -> Layout:
    if tensor.ndim <= 1 or isinstance(module, _NORMS):
        return Layout(vector=True)
    if name.endswith("bias") or name in ("bias_k", "bias_v"):  # of experts, of attention
        return Layout(vector=True)
    kept_as = name.partition("_")[0]  # "weight_orig" by pruning, "weight_v" by a weight norm
    if isinstance(module, _ConvTransposeNd) and kept_as == "weight":
        return Layout(axis=1, groups=module.groups)
    if _is_transposed_linear(module) or _is_table(module, tensor):
        return Layout(axis=1)
    return Layout()


def _is_length(module: nn.Module, name: str) -> bool:
    """Whether it holds the lengths of filters, of which a weight norm keeps the directions."""
    if isinstance(module, ParametrizationList):
        return name == "original0" and isinstance(module[0], _WeightNorm)
    hooks = module._forward_pre_hooks.values()  # torch.nn.utils.weight_norm
    return any(isinstance(h, WeightNorm) and name == f"{h.name}_g" for h in hooks)


def _is_transposed_linear(module: nn.Module) -> bool:
    """Whether it is the Linear of GPT-2, whose weight is (in, out); transformers need not be there.

    Its name is Conv1D, for it was once a convolution of width one.
    """
    kinds = type(module).__mro__
    return any(k.__name__ == "Conv1D" and k.__module__.startswith("transformers.") for k in kinds)


def _is_table(module: nn.Module, tensor: Tensor) -> bool:
    """Whether it is a table of position embeddings (1, t, e) that a model holds by itself."""
    own = isinstance(module, _ConvNd | nn.Bilinear)  # which may have one output
    return tensor.ndim == 3 and tensor.shape[0] == 1 and not own


def wrap(params: Mapping[str, Tensor]) -> Params:
    """Return ``params`` as Params: itself when it is one already.

    Raises:
        ParamsError: when it is not a non-empty dict of tensors.
    """
    if not isinstance(params, Mapping) or not params:
        raise ParamsError(
            f"params is {'an empty' if isinstance(params, Mapping) else 'a'}"
            f" {type(params).__name__}; expected a dict of named tensors such as objective.center."
        )
    odd = next((n for n, t in params.items() if not isinstance(t, Tensor)), None)
    if odd is not None:
        raise ParamsError(
            f"params[{odd!r}] is a {type(params[odd]).__name__}; expected a tensor: pass"
            " objective.center, objective.states or a state dict."
        )
    return params if isinstance(params, Params) else Params(params)


def like(params: Params, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Params:
    """Return tensors with the layouts of ``params``."""
    return Params(tensors, params.layouts)


def clone(params: Mapping[str, Tensor]) -> Params:
    """Return a detached copy that shares no memory with the original."""
    return like(wrap(params), {n: t.detach().clone() for n, t in params.items()})


def select(params: Mapping[str, Tensor], pattern: str | Iterable[str]) -> Params:
    """Return the tensors whose names match a shell pattern such as ``"layer3.*"``, or several.

    Raises:
        ParamsError: when no name matches.
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    found = {n: t for n, t in params.items() if any(fnmatch.fnmatch(n, p) for p in patterns)}
    if not found:
        some = ", ".join(list(params)[:4])
        raise ParamsError(f"pattern={pattern!r} matches no name; there are {some}, ...")
    return like(wrap(params), found)


def flatten(params: Mapping[str, Tensor]) -> Tensor:
    """Return all values in one vector, shape (p,), in the order of the names."""
    return torch.cat([t.reshape(-1) for t in params.values()])


def as_bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor one after the other, uint8; a copy unless it is contiguous."""
    flat = tensor.detach().contiguous().reshape(-1)
    # A tensor of one number may keep any stride, with which it cannot be viewed as bytes.
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)


def unflatten(vector: Tensor, template: Mapping[str, Tensor]) -> Params:
    """Return the Params whose values are ``vector`` and whose shapes are those of ``template``.

    Raises:
        ParamsError: when the vector has not as many entries as the template.
    """
    sizes = [t.numel() for t in template.values()]
    if vector.numel() != sum(sizes):
        raise ParamsError(
            f"vector has {vector.numel()} entries; the parameters have {sum(sizes)}:"
            " pass one entry a parameter, in their order."
        )
    pieces = vector.reshape(-1).split(sizes)
    named = zip(template.items(), pieces, strict=True)
    return like(wrap(template), {n: v.reshape(t.shape).to(t.dtype) for (n, t), v in named})


def dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the inner product of two Params, summed in float64."""
    return sum(float((a[n].double() * b[n].double()).sum()) for n in a)


def norm(params: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm over all tensors, computed in float64."""
    return float(dot(params, params) ** 0.5)


def filters(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return name -> rows, shape (filters, weights of a filter); vectors are left out."""
    known = wrap(params)
    rows = {n: known.layout(n) for n in known}
    return {n: layout.rows(known[n]) for n, layout in rows.items() if not layout.vector}


def check_like(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Raise a sentence unless two Params have the same names and shapes.

    Raises:
        ParamsError: naming the first difference.
    """
    for name in expected:
        if name not in given:
            raise ParamsError(f"{what} lacks {name!r}: it must have the names of the parameters.")
        if given[name].shape != expected[name].shape:
            raise ParamsError(
                f"{what}[{name!r}] has the shape {tuple(given[name].shape)}; expected"
                f" {tuple(expected[name].shape)}: both must come from the same architecture."
            )
    extra = next((n for n in given if n not in expected), None)
    if extra is not None:
        raise ParamsError(
            f"{what} has {extra!r}, which the parameters have not: take both from"
            " objective.center, or both from objective.states."
        )


def __dir__() -> list[str]:
    return __all__
