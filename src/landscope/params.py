"""Params: the named tensors of a model, and which weights of each tensor form a filter.

``Params`` is a ``dict[str, Tensor]`` that also stores the layout of each tensor, because a shape
alone does not say which axis is the output: a Linear weight is (out, in), the weight of a
transposed convolution is (in, out). In a plain dict, the first axis of each tensor is the output.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

from landscope.errors import ParamsError

__all__ = [
    "Layout", "Params", "clone", "dot", "filters", "flatten", "layouts", "like", "norm",
    "parameters", "select", "states", "unflatten", "wrap",
]  # fmt: skip

_MOST_NAMES = 12  # in the text of Params
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Layout:
    """Which weights of a tensor belong to one output unit of its module.

    Args:
        axis: The output axis: 0, or 1 if the inputs come first.
        groups: The number of groups of a transposed convolution, whose number of output units is
            ``groups`` times the length of ``axis``.
        vector: Whether the tensor has no filters, whatever its shape: biases, gains, shifts and
            statistics.
        constant: Whether the tensor is a buffer that is not a statistic, such as rotary
            frequencies or a mask. Random directions never move it.
    """

    axis: int = 0
    groups: int = 1
    vector: bool = False
    constant: bool = False

    def rows(self, tensor: Tensor) -> Tensor:
        """Return the filters of a tensor as rows, shape (filters, weights per filter)."""
        if self.axis == 0:
            return tensor.flatten(1)
        inputs, outputs = tensor.shape[:2]
        grouped = tensor.reshape(self.groups, inputs // self.groups, outputs, -1)
        return grouped.transpose(1, 2).reshape(self.groups * outputs, -1)

    def from_rows(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Return the tensor of a given shape whose filters are the rows."""
        if self.axis == 0:
            return rows.reshape(shape)
        inputs, outputs = shape[:2]
        grouped = rows.reshape(self.groups, outputs, inputs // self.groups, -1)
        return grouped.transpose(1, 2).reshape(shape)


class Params(dict[str, Tensor]):
    """Named tensors in module order, each with its layout.

    Args:
        tensors: The tensors by name.
        layouts: The layouts by name. The output axis of a tensor without a layout is its first; it
            is a vector if it has at most one dimension.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = (),
        layouts: Mapping[str, Layout] | None = None,
    ) -> None:
        super().__init__(tensors)
        self.layouts = dict(layouts or {})
        self._origin: dict[str, Any] = {}
        self._recorded: tuple[object, ...] = ()

    @property
    def origin(self) -> dict[str, Any]:
        """How the tensors were made, in plain values; empty if unknown or if they changed since."""
        return dict(self._origin) if self._recorded == self._versions() else {}

    def record_origin(self, **facts: Any) -> Self:
        """Record how the tensors were made, until one of them is replaced or written to."""
        self._origin, self._recorded = facts, self._versions()
        return self

    def _versions(self) -> tuple[object, ...]:
        return tuple((id(t), 0 if t.is_inference() else t._version) for t in self.values())

    def __getstate__(self) -> tuple[dict[str, Layout], dict[str, Any]]:
        return self.layouts, self.origin  # without identities of tensors, which are of this process

    def __setstate__(self, state: tuple[dict[str, Layout], dict[str, Any]]) -> None:
        self.layouts = state[0]
        self.record_origin(**state[1])

    def __repr__(self) -> str:
        lines = [f"  {n}  {tuple(t.shape)}" for n, t in itertools.islice(self.items(), _MOST_NAMES)]
        more = [f"  and {len(self) - _MOST_NAMES} more"] if len(self) > _MOST_NAMES else []
        return "\n".join([f"<Params: {describe_size(self)}", *lines, *more]) + ">"

    def layout(self, name: str) -> Layout:
        """Return the layout of the tensor ``name``."""
        default = Layout(vector=self[name].ndim <= 1)
        return self.layouts.get(name, default)


def describe_size(params: Mapping[str, Tensor]) -> str:
    """Return how many tensors and numbers there are: "4 tensors, 2,410 numbers"."""
    return f"{len(params)} tensors, {sum(t.numel() for t in params.values()):,} numbers"


def parameters(model: nn.Module) -> Params:
    """Return the trainable parameters of a model (not copies); a tied one appears once.

    Raises:
        ParamsError: When one of them is complex.
    """
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    bad = next((n for n, p in trainable.items() if p.is_complex()), None)
    if bad is not None:
        raise ParamsError(
            f"{bad!r} holds complex numbers ({trainable[bad].dtype}); expected real ones: store"
            " them in the model as torch.view_as_real returns them, or set requires_grad=False to"
            " hold them fixed."
        )
    return Params(trainable, layouts(model))


def states(model: nn.Module) -> Params:
    """Return all parameters and floating-point buffers (not copies), in ``state_dict()`` order.

    A tied parameter appears once, under its first name; integer counters are left out.
    """
    tensors = dict(named_tensors(model))
    unique: dict[int, tuple[str, Tensor]] = {}
    for name in model.state_dict(keep_vars=True):
        tensor = tensors.get(name)
        if tensor is not None and tensor.is_floating_point():
            unique.setdefault(id(tensor), (name, tensor))
    return Params(unique.values(), layouts(model))


def named_tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Yield every parameter and buffer with its name; a tied one appears under each name."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def layouts(model: nn.Module) -> dict[str, Layout]:
    """Return the layout of each tensor of a model, as in the table of docs/guides/filters.md."""
    by_name = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, tensor in module.named_buffers(recurse=False):
            full_name = f"{prefix}.{name}" if prefix else name
            is_statistic = isinstance(module, _NORMS)
            is_vector = is_statistic or tensor.ndim <= 1
            by_name[full_name] = Layout(vector=is_vector, constant=not is_statistic)
        for name, tensor in module.named_parameters(recurse=False):
            full_name = f"{prefix}.{name}" if prefix else name
            owner, is_parametrized, weight = prefix.rpartition("parametrizations.")
            if _is_length(module, name):
                by_name[full_name] = Layout(vector=True)
            elif is_parametrized:  # as by weight_norm: "conv.parametrizations.weight.original1"
                by_name[full_name] = _layout(model.get_submodule(owner.rstrip(".")), weight, tensor)
            else:
                by_name[full_name] = _layout(module, name, tensor)
    return by_name


def _layout(module: nn.Module, name: str, tensor: Tensor) -> Layout:
    if tensor.ndim <= 1 or isinstance(module, _NORMS):
        return Layout(vector=True)
    if name.endswith("bias") or name in ("bias_k", "bias_v"):  # biases of experts, of attention
        return Layout(vector=True)
    stem = name.partition("_")[0]  # "weight_orig" after pruning, "weight_v" of a weight norm
    if isinstance(module, _ConvTransposeNd) and stem == "weight":
        return Layout(axis=1, groups=module.groups)
    if _is_transposed_linear(module) or _is_table(module, tensor):
        return Layout(axis=1)
    return Layout()


def _is_length(module: nn.Module, name: str) -> bool:
    """Whether a parameter holds the filter lengths that a weight norm stores separately."""
    if isinstance(module, ParametrizationList):
        return name == "original0" and isinstance(module[0], _WeightNorm)
    hooks = module._forward_pre_hooks.values()  # torch.nn.utils.weight_norm
    return any(isinstance(h, WeightNorm) and name == f"{h.name}_g" for h in hooks)


def _is_transposed_linear(module: nn.Module) -> bool:
    """Whether a module is the Linear of GPT-2, called Conv1D, whose weight is (in, out).

    The class is recognized by its name, so that transformers need not be installed.
    """
    classes = type(module).__mro__
    return any(c.__name__ == "Conv1D" and c.__module__.startswith("transformers.") for c in classes)


def _is_table(module: nn.Module, tensor: Tensor) -> bool:
    """Whether a tensor is a table of position embeddings (1, t, e) outside of any Embedding."""
    has_outputs = isinstance(module, _ConvNd | nn.Bilinear)  # of which there may be only one
    return tensor.ndim == 3 and tensor.shape[0] == 1 and not has_outputs


def wrap(params: Mapping[str, Tensor]) -> Params:
    """Return a dict of tensors as Params; Params are returned as they are.

    Raises:
        ParamsError: When ``params`` is not a non-empty dict of tensors.
    """
    if not isinstance(params, Mapping) or not params:
        raise ParamsError(
            f"params is {'an empty' if isinstance(params, Mapping) else 'a'}"
            f" {type(params).__name__}; expected a dict of named tensors such as objective.center."
        )
    bad = next((n for n, t in params.items() if not isinstance(t, Tensor)), None)
    if bad is not None:
        raise ParamsError(
            f"params[{bad!r}] is a {type(params[bad]).__name__}; expected a tensor: pass"
            " objective.center, objective.states or a state dict."
        )
    return params if isinstance(params, Params) else Params(params)


def like(params: Params, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Params:
    """Return tensors with the layouts of ``params``."""
    return Params(tensors, params.layouts)


def clone(params: Mapping[str, Tensor]) -> Params:
    """Return detached copies of the tensors, which share no memory with the originals."""
    return like(wrap(params), {n: t.detach().clone() for n, t in params.items()})


def select(params: Mapping[str, Tensor], pattern: str | Iterable[str]) -> Params:
    """Return the tensors whose names match one of several shell patterns, e.g. ``"layer3.*"``.

    Raises:
        ParamsError: When no name matches.
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    matching = {n: t for n, t in params.items() if any(fnmatch.fnmatch(n, p) for p in patterns)}
    if not matching:
        names = ", ".join(list(params)[:4])
        raise ParamsError(f"pattern={pattern!r} matches no name; there are {names}, ...")
    return like(wrap(params), matching)


def flatten(params: Mapping[str, Tensor]) -> Tensor:
    """Return all values as one vector, shape (p,), in the order of the names."""
    return torch.cat([t.reshape(-1) for t in params.values()])


def as_bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor, uint8, shape (bytes,); a copy if it is not contiguous."""
    flat = tensor.detach().contiguous().reshape(-1)
    # The stride of a tensor of one number can be any, and then it cannot be viewed as bytes.
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)


def unflatten(vector: Tensor, template: Mapping[str, Tensor]) -> Params:
    """Return the Params whose values are those of ``vector``, in the shapes of ``template``.

    Raises:
        ParamsError: When the vector does not have as many entries as the template.
    """
    sizes = [t.numel() for t in template.values()]
    if vector.numel() != sum(sizes):
        raise ParamsError(
            f"vector has {vector.numel()} entries; the parameters have {sum(sizes)}:"
            " pass one entry per parameter, in their order."
        )
    pieces = vector.reshape(-1).split(sizes)
    named = zip(template.items(), pieces, strict=True)
    return like(wrap(template), {n: v.reshape(t.shape).to(t.dtype) for (n, t), v in named})


def dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the inner product of two Params, summed in float64."""
    return sum(float((a[n].double() * b[n].double()).sum()) for n in a)


def norm(params: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm of all tensors together, computed in float64."""
    return float(dot(params, params) ** 0.5)


def filters(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the filters by name, shape (filters, weights per filter); vectors are left out."""
    wrapped = wrap(params)
    by_name = {n: wrapped.layout(n) for n in wrapped}
    return {n: layout.rows(wrapped[n]) for n, layout in by_name.items() if not layout.vector}


def check_like(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Check that two Params have the same names and shapes.

    Args:
        given: The Params to check.
        expected: The Params with the right names and shapes.
        what: The name of ``given`` in the error.

    Raises:
        ParamsError: When they differ; the message names the first difference.
    """
    if not isinstance(given, Mapping):
        raise ParamsError(f"{what} is a {type(given).__name__}; expected a dict of named tensors.")
    for name in expected:
        if name not in given:
            raise ParamsError(f"{what} lacks {name!r}: it must have the names of the parameters.")
        if not isinstance(given[name], Tensor):
            raise ParamsError(f"{what}[{name!r}] is a {type(given[name]).__name__}, not a tensor.")
        if given[name].shape != expected[name].shape:
            raise ParamsError(
                f"{what}[{name!r}] has the shape {tuple(given[name].shape)}; expected"
                f" {tuple(expected[name].shape)}: both must come from the same architecture."
            )
    extra = next((n for n in given if n not in expected), None)
    if extra is not None:
        raise ParamsError(
            f"{what} has {extra!r}, which is not among the parameters: take both from"
            " objective.center, or both from objective.states."
        )


def __dir__() -> list[str]:
    return __all__
