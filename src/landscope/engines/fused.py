"""The fused forward pass: convolutional networks and MLPs in fewer and faster steps on a CPU.

Batch norm in evaluation mode is folded into the convolution before it. The activation and the sum
of a residual block are fused with the convolution. Matrix products run in oneDNN, which on many
CPUs is faster than torch's default library. Values change by rounding only. Layers that cannot be
rewritten run unchanged.

The operators are those that torch's own compiler inserts (``torch.ops.mkldnn``). They are not
documented, so this module does not trust them: a plan uses the fused pass only after it gave the
values of the plain pass (see :mod:`landscope.engines.tuning`).
"""

from __future__ import annotations

import operator
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_ADDITIONS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add)
_RELUS: tuple[Any, ...] = (F.relu, F.relu_, torch.relu, torch.relu_)


@final
class Fused:
    """A rewritten forward pass of a model; call :meth:`refresh` after its parameters moved.

    Args:
        model: The model, on the CPU and in float32; it is neither changed nor copied.

    Raises:
        ValueError: When no layer can be rewritten, or torch.fx cannot trace the model.

    Construction is not thread-safe: torch.fx must not trace while other threads run the model.
    """

    def __init__(self, model: nn.Module) -> None:
        if not torch.backends.mkldnn.is_available():
            raise ValueError("torch was built without oneDNN")
        try:
            graph = fx.Tracer().trace(model)
        except Exception as error:
            raise ValueError(f"the model cannot be traced: {error}") from error
        self._products: list[_Product] = []
        self._rewrite(graph, dict(model.named_modules()))
        if not self._products:
            raise ValueError("the model has no layers that can be rewritten")
        self._norms = [p for p in self._products if p.norm is not None]
        root = _Root(model)
        for number, product in enumerate(self._products):
            root.add_module(f"_product{number}", product)
        self._forward = fx.GraphModule(root, graph)
        self.refresh()

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return the outputs of the model."""
        return self._forward(*inputs, **named)

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the parameters that the model has now."""
        for product in self._products:
            product.weight, product.bias = product.layer.weight.data, product.layer.bias
        if not self._norms:
            return
        norms = [p.norm for p in self._norms if p.norm is not None]
        weights = [p.weight for p in self._norms]
        variances: Any = [n.running_var for n in norms]
        scales: Any = torch._foreach_add(variances, norms[0].eps)
        torch._foreach_rsqrt_(scales)
        gains = [n.weight.data for n in norms if n.weight is not None]
        if len(gains) == len(norms):
            torch._foreach_mul_(scales, gains)
        means: Any = [n.running_mean for n in norms]
        shifts = torch._foreach_neg(torch._foreach_mul(means, scales))
        for p, scale, shift in zip(self._norms, scales, shifts, strict=True):
            if p.bias is not None:
                shift.addcmul_(p.bias, scale)
        if len(gains) == len(norms):
            torch._foreach_add_(shifts, [n.bias.data for n in norms])
        wide = [s.view(-1, *[1] * (w.ndim - 1)) for s, w in zip(scales, weights, strict=True)]
        for p, weight, shift in zip(
            self._norms, torch._foreach_mul(weights, wide), shifts, strict=True
        ):
            p.weight, p.bias = weight, shift

    def _rewrite(self, graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
        for node in list(graph.nodes):
            layer = modules.get(str(node.target)) if node.op == "call_module" else None
            if _is_product(layer):
                self._replace_layer(graph, node, layer, modules)
        for node in list(graph.nodes):
            if _is_relu(node, modules):
                self._fuse_relu(graph, node)
        graph.lint()

    def _replace_layer(
        self, graph: fx.Graph, node: fx.Node, layer: Any, modules: dict[str, nn.Module]
    ) -> None:
        """Replace a layer, and the batch norm that follows it, by a product."""
        norm, last = None, node
        (user,) = node.users if len(node.users) == 1 else (None,)
        if user is not None and user.op == "call_module" and isinstance(layer, nn.Conv2d):
            after = modules.get(str(user.target))
            if isinstance(after, nn.BatchNorm2d) and _is_foldable(after, self._products):
                norm, last = after, user
        product = _Product(layer, norm)
        with graph.inserting_before(node):
            new = graph.call_module(f"_product{len(self._products)}", node.args, node.kwargs)
        new.meta["product"] = product
        self._products.append(product)
        last.replace_all_uses_with(new)
        if last is not node:
            graph.erase_node(last)
        graph.erase_node(node)

    def _fuse_relu(self, graph: fx.Graph, node: fx.Node) -> None:
        """Fuse an activation, and the sum of a residual block before it, with the product."""
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or len(before.users) != 1:
            return
        product = before.meta.get("product")
        if product is not None and product.after == "none":
            product.after = "relu"
            node.replace_all_uses_with(before)
            graph.erase_node(node)
        elif before.op == "call_function" and before.target in _ADDITIONS:
            self._fuse_sum(graph, node, before)

    def _fuse_sum(self, graph: fx.Graph, relu: fx.Node, total: fx.Node) -> None:
        if len(total.args) != 2 or total.kwargs:
            return
        pairs: Any = (total.args, total.args[::-1])
        for branch, shortcut in pairs:
            product = branch.meta.get("product") if isinstance(branch, fx.Node) else None
            if product is None or not isinstance(product.layer, nn.Conv2d):
                continue
            if product.after == "none" and len(branch.users) == 1 and branch is not shortcut:
                if not isinstance(shortcut, fx.Node):
                    continue
                product.after = "sum"
                product.inplace = _may_be_overwritten(shortcut, total, graph)
                with graph.inserting_before(total):
                    arguments = (*branch.args, shortcut)
                    new = graph.call_module(str(branch.target), arguments, branch.kwargs)
                new.meta["product"] = product
                relu.replace_all_uses_with(new)
                for old in (relu, total, branch):
                    graph.erase_node(old)
                return


@final
class _Product(nn.Module):
    """A linear layer or a convolution with the steps fused to it: none, relu, or sum and relu."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: Any, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        # Not registered: the user's modules must not become children of this one.
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "weight", layer.weight)
        object.__setattr__(self, "bias", layer.bias)
        self.after, self.inplace = "none", False
        self.layer: Any
        self.norm: nn.BatchNorm2d | None
        if isinstance(layer, nn.Conv2d):
            self.settings = (
                list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups
            )  # fmt: skip

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # plain attributes: nn.Module's are slow to set

    def forward(self, inputs: Tensor, shortcut: Tensor | None = None) -> Tensor:
        ops: Any = torch.ops.mkldnn
        outputs: Tensor
        if isinstance(self.layer, nn.Linear):
            outputs = ops._linear_pointwise(inputs, self.weight, self.bias, self.after, [], "")
        elif self.after != "sum":
            outputs = ops._convolution_pointwise(
                inputs, self.weight, self.bias, *self.settings, self.after, [], ""
            )
        else:
            rest: tuple[Any, ...] = (
                self.weight,
                self.bias,
                *self.settings,
                "add",
                1.0,
                "relu",
                [],
                "",
            )
            run = ops._convolution_pointwise_ if self.inplace else ops._convolution_pointwise
            operands = (shortcut, inputs) if self.inplace else (inputs, shortcut)
            outputs = run.binary(*operands, *rest)
        return outputs


class _Root(nn.Module):
    """The modules of the rewritten graph: the model's own, and the products."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._modules.update(model._modules)
        self._parameters.update(model._parameters)
        self._buffers.update(model._buffers)


def _is_product(layer: object) -> bool:
    if not isinstance(layer, nn.Module) or _has_hooks(layer):
        return False
    if type(layer) is nn.Linear:
        return _is_supported(layer.weight)
    return (
        type(layer) is nn.Conv2d
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and _is_supported(layer.weight)
    )


def _is_supported(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


def _is_foldable(norm: nn.BatchNorm2d, products: list[_Product]) -> bool:
    """Whether batch norm is a fixed scale and shift, with the settings of those folded before."""
    first = next((p.norm for p in products if p.norm is not None), norm)
    return (
        not norm.training
        and norm.running_var is not None
        and not any(p.norm is norm for p in products)
        and norm.eps == first.eps
        and (norm.weight is None) == (first.weight is None)
        and not _has_hooks(norm)
    )


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules.get(str(node.target))) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_") and len(node.args) == 1
    return node.op == "call_function" and node.target in _RELUS


def _may_be_overwritten(node: fx.Node, by: fx.Node, graph: fx.Graph) -> bool:
    """Whether a product made the output of a node, and no node needs it after the node ``by``."""
    others = [user for user in node.users if user is not by]
    if any(n.meta.get("product") is None for n in (node, *others)):  # it might be a view of it
        return False
    order: dict[fx.Node, int] = {n: k for k, n in enumerate(graph.nodes)}
    return all(order[user] <= order[by] for user in node.users)
