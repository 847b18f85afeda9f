"""Objective: the loss, and metrics, of a model over data as a pure function of its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, final

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from landscope import params as params_
from landscope.errors import ObjectiveError
from landscope.objective import offloaded
from landscope.objective.batches import Batches
from landscope.objective.joint_metrics import Updatable, as_metric
from landscope.objective.loss_terms import Loss
from landscope.objective.placement import (
    PRECISIONS,
    find_device,
    find_dtype,
    in_place_placement,
)
from landscope.objective.problem import Problem
from landscope.objective.torch_losses import Custom, as_loss
from landscope.objective.usable_models import check_in_memory, check_trainable, check_usable
from landscope.params import Params


@final
class Objective:
    """The loss of a model over data, as a pure function of its parameters.

        loss(params) = sum_i w_i l_i(params) / sum_i w_i + penalty(params)

    l_i is the loss of term i (a sample, or a token or pixel) and w_i its weight. Means are over
    terms, never over batches. The model is evaluated in its current mode (training or evaluation).
    Afterwards everything that belongs to the user is as before.

    Args:
        model: The module.
        loss: A torch loss module or function (outputs, targets), or ``ls.losses.custom(terms)``.
        data: (inputs, targets) tensors, a DataLoader, or an iterable of batches (pairs or dicts)
            that can be iterated twice.
        metrics: Name -> function (outputs, targets), e.g. ``{"accuracy": ls.losses.accuracy}``, or
            an object with ``update``, ``compute`` and ``reset`` (torchmetrics), which is copied. A
            function that returns one number is called once with the outputs of all data.
        buffers: ``"keep"`` leaves batch-norm statistics unchanged (a slice over ``states`` moves
            them itself). ``"recompute"`` computes those of all norms from the whole data at every
            point, layer by layer, so that they do not depend on batches (the law of total variance;
            Wu and Johnson 2021, arXiv 2105.07576, section 3). It doubles the cost where a layer's
            outputs for all data fit in memory; else n norms take about n / 2 further passes. See
            docs/guides/batch-norm.md.
        device: The device of the computation; ``"auto"`` is the model's device, or the GPU, if
            there is one, for a model on the CPU.
        precision: The precision of parameters and inputs: ``"float32"``, ``"float64"`` or
            ``"bfloat16"``. ``"float32"`` leaves float64 models as they are, so the default loses no
            digits. ``"tf32"`` is float32 whose products a GPU computes with 10 bits of mantissa:
            losses to about three digits, several times as fast.
        test_data: Further data, in the same forms; results are then named train_loss, test_loss,
            and so on.
        penalty: A function of the parameters that is added to the (training) loss, such as
            ``ls.losses.weight_decay(5e-4)``.
        batch_size: The batch size when the data are tensors.
        cache: Whether the data are cached on the device: True, False, or ``"auto"`` for data that
            fit in half of the free memory.
        in_place: Whether the model's own tensors are used without a copy, for models that fill the
            memory: each stays on its device and in its precision. A scan moves the parameters along
            the slice and restores them, bit for bit, from a file in the cache folder
            (``$LANDSCOPE_CACHE``); see ``ls.directions.seeded`` for directions that take no memory.

    Raises:
        ObjectiveError: When an argument is invalid, or arguments contradict each other.

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
        check_usable(model)
        _check_options(penalty, batch_size, cache)
        if in_place:
            _check_in_place(device, precision)
            place, dtype = in_place_placement(model)
        else:
            _check_in_memory(model)
            place, dtype = find_device(device, model), find_dtype(precision, model)
        mean_loss = _to_mean_loss(loss)
        problem = Problem(
            model=model,
            loss=mean_loss,
            metrics={n: as_metric(m, n, mean_loss) for n, m in (metrics or {}).items()},
            sources={"": data} if test_data is None else {"train_": data, "test_": test_data},
            batches={},
            center=Params({}),
            buffers=buffers,
            penalty=penalty,
            device=place,
            dtype=dtype,
            precision=precision,
            in_place=in_place,
        ).recenter()
        check_trainable(model, problem.center)
        batches = _make_batches(problem, batch_size, cache)
        self.problem = dataclasses.replace(problem, batches=batches)

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Return the objective of a problem; for internal use."""
        objective = cls.__new__(cls)
        objective.problem = problem
        return objective

    def __repr__(self) -> str:
        problem, known = self.problem, self.problem.describe()
        data = ", ".join(f"{prefix}{batches!r}" for prefix, batches in problem.batches.items())
        metrics = f"; metrics: {', '.join(problem.metrics)}" if problem.metrics else ""
        return (
            f"<Objective: {known['loss']} of {known['model']}, over {data}{metrics};"
            f" {known['precision']} on {known['device']}>"
        )

    @property
    def model(self) -> nn.Module:
        """The user's model."""
        return self.problem.model

    @property
    def device(self) -> torch.device:
        """The device on which values are computed."""
        return self.problem.device

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the values computed so far, e.g. a batch norm in training mode."""
        return tuple(dict.fromkeys((*self.problem.data_notes, *self.problem.notes)))

    @property
    def center(self) -> Params:
        """The trainable parameters at which slices start: a detached copy of the model's.

        With ``in_place=True`` there is no copy: these are the model's own tensors, which move
        during a scan, are the same again after it, and change when you train the model.
        """
        return self.problem.center

    @property
    def states(self) -> Params:
        """A detached copy of all parameters and floating-point buffers, in state_dict order."""
        if offloaded.list_names(self.model):
            raise ObjectiveError(
                "the states of an offloaded model are not in memory all at once: use"
                " objective.center."
            )
        return self.problem.copy(params_.states(self.model))

    def loss(self, params: Mapping[str, Tensor] | None = None) -> float:
        """Return the mean loss over all terms, with the penalty.

        Args:
            params: The point; ``center`` if None.

        Raises:
            ParamsError: When names or shapes differ from those of the model.
        """
        values = self.evaluate(params)
        return values["loss" if "" in self.problem.sources else "train_loss"]

    def evaluate(self, params: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Return the loss and every metric at one point, in one pass over the data."""
        with self.problem.session() as session:
            return session.evaluate(params)

    def terms(self, params: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the individual terms of the loss, shape (n,), in data order, without the penalty.

        Their mean is the loss: where terms have weights (such as class weights), each is
        multiplied by its weight / the mean weight. Ignored terms are left out. Of a function that
        returns one number for a batch, the terms are its values for single samples.
        """
        with self.problem.session() as session, torch.no_grad():
            terms = list(session.terms(params))
        weights = torch.cat([t.weights for t in terms]).double()
        values = torch.cat([t.values for t in terms]).double()
        kept = (weights != 0) | (values != 0)  # label smoothing has losses in classes of weight 0
        return values[kept] / weights[kept].mean()

    def gradient(self, params: Mapping[str, Tensor] | None = None) -> Params:
        """Return the gradient of the mean loss (with the penalty), one tensor per parameter."""
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            self.problem.session() as session,
        ):
            return session.gradient(params)


def check_objective(objective: Any) -> None:
    """Check that an argument is an objective.

    Raises:
        ObjectiveError: When it is not.
    """
    if not isinstance(objective, Objective):
        raise ObjectiveError(
            f"objective is a {type(objective).__name__}; expected an ls.Objective(model, loss,"
            " data)."
        )


def _check(model: Any, metrics: Any, buffers: str, precision: str) -> None:
    if not isinstance(model, nn.Module):
        raise ObjectiveError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
    if isinstance(model, _Loss):
        raise ObjectiveError(
            f"model is a {type(model).__name__}, which is a loss: the order is"
            " ls.Objective(model, loss, data)."
        )
    if buffers not in ("keep", "recompute"):
        raise ObjectiveError(f"buffers={buffers!r}; expected 'keep' or 'recompute'.")
    if precision not in PRECISIONS:
        raise ObjectiveError(f"precision={precision!r}; expected one of {list(PRECISIONS)}.")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ObjectiveError(
            f"metrics is a {type(metrics).__name__}; expected a dict such as"
            " {'accuracy': ls.losses.accuracy}."
        )
    if not all(isinstance(name, str) for name in metrics or {}):
        raise ObjectiveError(f"metrics has the names {list(metrics or {})}; expected texts.")
    if "loss" in (metrics or {}):
        raise ObjectiveError(
            "metrics has the name 'loss', which the loss itself has: choose another."
        )


def _check_options(penalty: Any, batch_size: Any, cache: Any) -> None:
    if not (penalty is None or callable(penalty)):
        raise ObjectiveError(
            f"penalty={penalty!r}; expected a function of the parameters, such as"
            " ls.losses.weight_decay(5e-4)."
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ObjectiveError(f"batch_size={batch_size!r}; expected 1 or more, a whole number.")
    if not isinstance(cache, bool) and cache != "auto":
        raise ObjectiveError(f"cache={cache!r}; expected True, False or 'auto'.")


def _check_in_place(device: str | torch.device, precision: str) -> None:
    if device != "auto" or precision != "float32":
        raise ObjectiveError(
            f"device={device!r}, precision={precision!r}: with in_place=True the model stays on its"
            " device and in its precision: move it yourself, with model.to(...), before."
        )


def _check_in_memory(model: nn.Module) -> None:
    if offloaded.list_names(model):
        raise ObjectiveError(
            "the model is offloaded: its weights are in memory only while they are used, and"
            " cannot be copied: pass in_place=True."
        )
    check_in_memory(model)


def _to_mean_loss(loss: Any) -> Loss | Custom:
    """Return a loss as a ``Loss``; the loss of an objective must be a mean over its terms."""
    if isinstance(loss, Updatable) and not isinstance(loss, type):
        raise ObjectiveError(
            f"loss is a {type(loss).__name__}, a metric of all data together, which is not a mean"
            " over terms: pass a loss, and this object in metrics={...}."
        )
    converted = loss if isinstance(loss, Custom) else as_loss(loss)
    if isinstance(converted, Loss) and converted.reduction != "mean":
        raise ObjectiveError(
            f"loss={converted.name!r} is not a mean over terms but a function of one: pass the loss"
            " that it is made of, and this one in metrics={...}."
        )
    return converted


def _make_batches(
    problem: Problem, batch_size: int, cache: bool | Literal["auto"]
) -> dict[str, Batches]:
    return {
        prefix: Batches(
            source,
            device=problem.device,
            dtype=torch.float32 if problem.low_precision else problem.dtype,
            batch_size=batch_size,
            cache=cache,
            name="test_data" if prefix == "test_" else "data",
        )
        for prefix, source in problem.sources.items()
    }
