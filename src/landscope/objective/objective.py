"""Objective: the loss, and metrics, of a model over data as a pure function of its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, final

import torch
from torch import Tensor, nn

from landscope import params as params_
from landscope.errors import ObjectiveError
from landscope.objective import offloaded, torch_losses
from landscope.objective.batches import Batches
from landscope.objective.placement import (
    PRECISIONS,
    find_device,
    find_dtype,
    in_place_placement,
)
from landscope.objective.problem import Problem
from landscope.objective.terms import Loss
from landscope.objective.torch_losses import Custom
from landscope.params import Params


@final
class Objective:
    """The loss of a model over data, as a pure function of its parameters.

    The model is used as it is, in the training or evaluation mode that it is in, and given back
    as it was. Means are over terms (samples, tokens), never over batches.

    Args:
        model: any module.
        loss: a torch loss module or function (outputs, targets), or ``ls.losses.custom(terms)``.
        data: (inputs, targets) tensors, a DataLoader, or an iterable of batches (pairs or dicts)
            that can be walked twice.
        metrics: name -> function (outputs, targets), e.g. ``{"accuracy": ls.losses.accuracy}``.
        buffers: ``"keep"`` leaves batch-norm statistics as they are (a slice over states moves
            them itself); ``"recompute"`` computes them from the data at every point, which
            doubles the cost.
        device: where to compute; ``"auto"`` is the model's own device, or the GPU, if there is
            one, for a model on the CPU.
        precision: ``"float32"``, ``"float64"`` or ``"bfloat16"``: of parameters and inputs.
            ``"float32"`` leaves float64 models as they are: a default takes no digits away.
            ``"tf32"`` is float32 whose products a GPU computes with 10 bits of mantissa: losses
            to about three digits, several times as fast.
        test_data: evaluated beside ``data``; results are then named train_loss, test_loss, ...
        penalty: a function of the parameters that is added to the (training) loss, such as
            ``ls.losses.weight_decay(5e-4)``.
        batch_size: rows a batch, when data are tensors.
        cache: keep the data on the device: True, False, or ``"auto"`` when it fits in half of
            the free memory.
        in_place: for models that fill the memory: no tensor is copied, each stays on its device
            and in its precision, and ``center`` are the model's own parameters. A scan moves these
            along the slice and puts them back, bit for bit, from a file in the cache folder
            (``$LANDSCOPE_CACHE``); see ``ls.directions.seeded`` for directions without memory.

    Raises:
        ObjectiveError: when these do not go together.

    Example:
        >>> import torch, landscope as ls
        >>> model = torch.nn.Linear(4, 3)
        >>> data = torch.randn(10, 4), torch.randint(3, (10,))
        >>> objective = ls.Objective(model, torch.nn.CrossEntropyLoss(), data)
        >>> objective.terms().shape
        torch.Size([10])
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Any,
        data: Any,
        *,
        metrics: Mapping[str, Any] | None = None,
        buffers: Literal["keep", "recompute"] = "keep",
        device: str | torch.device = "auto",
        precision: str = "float32",
        test_data: Any = None,
        penalty: Callable[[Params], Tensor] | None = None,
        batch_size: int = 256,
        cache: bool | Literal["auto"] = "auto",
        in_place: bool = False,
    ) -> None:
        _check(model, metrics, buffers, precision)
        if in_place:
            _check_in_place(device, precision)
        elif offloaded.names(model):
            raise ObjectiveError(
                "the model is offloaded: its weights are in memory only while they are used, and"
                " cannot be copied: pass in_place=True."
            )
        at, dtype = (
            in_place_placement(model)
            if in_place
            else (find_device(device, model), find_dtype(precision, model))
        )
        sources = {"": data} if test_data is None else {"train_": data, "test_": test_data}
        problem = Problem(
            model=model,
            loss=_loss_terms(loss),
            metrics={n: torch_losses.of(m, n) for n, m in (metrics or {}).items()},
            sources=sources,
            batches={},
            center=Params({}),
            buffers=buffers,
            penalty=penalty,
            device=at,
            dtype=dtype,
            precision=precision,
            in_place=in_place,
        ).recentered()
        if not problem.center:
            raise ObjectiveError(
                "model has no trainable parameters: set requires_grad=True on those to move."
            )
        batches = {
            prefix: Batches(
                source,
                device=at,
                dtype=torch.float32 if problem.half else dtype,
                batch_size=batch_size,
                cache=cache,
                name="test_data" if prefix == "test_" else "data",
            )
            for prefix, source in sources.items()
        }
        self.problem = dataclasses.replace(problem, batches=batches)

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Return the objective of a problem; for the library's own use."""
        objective = cls.__new__(cls)
        objective.problem = problem
        return objective

    @property
    def model(self) -> nn.Module:
        """The user's model."""
        return self.problem.model

    @property
    def device(self) -> torch.device:
        """The device on which values are computed."""
        return self.problem.device

    @property
    def center(self) -> Params:
        """A detached copy of the trainable parameters, the point that slices start from.

        With ``in_place=True`` these are the model's own parameters.
        """
        return self.problem.center

    @property
    def states(self) -> Params:
        """A detached copy of all parameters and floating-point buffers, in state_dict order."""
        if offloaded.names(self.model):
            raise ObjectiveError(
                "the states of an offloaded model are not there all at once: use objective.center."
            )
        return self.problem.copies(params_.states(self.model))

    def loss(self, params: Mapping[str, Tensor] | None = None) -> float:
        """Return the mean loss over all terms, with the penalty.

        Args:
            params: The point; ``center`` if not given.

        Raises:
            ParamsError: When params have names or shapes that the model does not have.
        """
        values = self.evaluate(params)
        return values["loss" if "" in self.problem.sources else "train_loss"]

    def evaluate(self, params: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Return the loss and every metric at one point, in one pass over the data."""
        with self.problem.session() as session:
            return session.values(params)

    def terms(self, params: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the single terms of the loss, shape (n,), in data order, without the penalty.

        Their mean is the loss: where terms have weights (class weights) each is scaled by its own
        weight over the mean weight; ignored terms are left out.
        """
        with self.problem.session() as session, torch.no_grad():
            parts = list(session.terms(params))
        weights = torch.cat([p.weights for p in parts]).double()
        values = torch.cat([p.values for p in parts]).double()
        return values[weights != 0] / weights[weights != 0].mean()

    def gradient(self, params: Mapping[str, Tensor] | None = None) -> Params:
        """Return the gradient of the mean loss (with the penalty), one tensor a parameter."""
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            self.problem.session() as session,
        ):
            return session.gradient(params)


def _check(model: Any, metrics: Any, buffers: str, precision: str) -> None:
    if not isinstance(model, nn.Module):
        raise ObjectiveError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
    if buffers not in ("keep", "recompute"):
        raise ObjectiveError(f"buffers={buffers!r}; expected 'keep' or 'recompute'.")
    if precision not in PRECISIONS:
        raise ObjectiveError(f"precision={precision!r}; expected one of {list(PRECISIONS)}.")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ObjectiveError(
            f"metrics is a {type(metrics).__name__}; expected a dict such as"
            " {'accuracy': ls.losses.accuracy}."
        )
    if "loss" in (metrics or {}):
        raise ObjectiveError("metrics has the name 'loss', which is taken: choose another.")


def _check_in_place(device: str | torch.device, precision: str) -> None:
    if device != "auto" or precision != "float32":
        raise ObjectiveError(
            f"device={device!r}, precision={precision!r}: with in_place=True the model is used"
            " where it is and as it is: move it yourself, with model.to(...), before."
        )


def _loss_terms(loss: Any) -> Loss | Custom:
    """Return a loss in terms; the loss of an objective must be a mean over them."""
    terms = loss if isinstance(loss, Custom) else torch_losses.of(loss)
    if isinstance(terms, Loss) and terms.told != "mean":
        raise ObjectiveError(
            f"loss={terms.name!r} is no mean over terms, but one transformed: pass"
            " the loss that it is of, and this one in metrics={...}."
        )
    return terms
