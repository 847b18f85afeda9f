"""Objective: the loss, and metrics, of a model over data as a pure function of its parameters."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from landscope import fingerprint
from landscope import params as params_
from landscope.errors import DeterminismError, ObjectiveError
from landscope.objective import batches as batches_
from landscope.objective import offloaded, torch_losses
from landscope.objective.batches import Batches
from landscope.objective.borrowing import Borrowed, borrowed, products, undisturbed
from landscope.objective.evaluation import Session
from landscope.objective.terms import Loss
from landscope.objective.torch_losses import Custom
from landscope.params import Params

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
}
_DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


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
        if not in_place and offloaded.names(model):
            raise ObjectiveError(
                "the model is offloaded: its weights are in memory only while they are used, and"
                " cannot be copied: pass in_place=True."
            )
        self.model = model
        self.loss_terms: Loss | Custom = loss if isinstance(loss, Custom) else torch_losses.of(loss)
        if isinstance(self.loss_terms, Loss) and self.loss_terms.told != "mean":
            raise ObjectiveError(
                f"loss={self.loss_terms.name!r} is no mean over terms, but one transformed: pass"
                " the loss that it is of, and this one in metrics={...}."
            )
        self.metrics = {n: torch_losses.of(m, n) for n, m in (metrics or {}).items()}
        self.buffers, self.precision, self.penalty = buffers, precision, penalty
        self.in_place = in_place
        self.device, self.dtype = _device(device, model), _dtype(precision, model)
        if in_place:
            _check_in_place(device, precision)
            self.device, self.dtype = _own(model)
        self.notes: tuple[str, ...] = ()
        self.weights: Tensor | None = None  # of samples, where they are not all there
        self.center = self._center()
        if not self.center:
            raise ObjectiveError(
                "model has no trainable parameters: set requires_grad=True on those to move."
            )
        self.sources = {"": data} if test_data is None else {"train_": data, "test_": test_data}
        self.batches = {
            prefix: Batches(
                source,
                device=self.device,
                dtype=torch.float32 if self.half else self.dtype,
                batch_size=batch_size,
                cache=cache,
                name="test_data" if prefix == "test_" else "data",
            )
            for prefix, source in self.sources.items()
        }

    @property
    def half(self) -> torch.dtype | None:
        """The precision in which the model computes when it has 16 bits; the loss never does."""
        return self.dtype if self.dtype.itemsize == 2 else None

    @property
    def _use(self) -> tuple[torch.device | None, torch.dtype | None]:
        """Where and in which precision the model is used; None leaves each tensor as it is."""
        return (None, None) if self.in_place else (self.device, self.dtype)

    @property
    def states(self) -> Params:
        """A detached copy of all parameters and floating-point buffers, in state_dict order."""
        if offloaded.names(self.model):
            raise ObjectiveError(
                "the states of an offloaded model are not there all at once: use objective.center."
            )
        return self._copies(params_.states(self.model))

    def recentered(self) -> Objective:
        """Return this objective centered on what the model's parameters are now."""
        other = copy.copy(self)
        other.center = self._center()
        return other

    def loss(self, params: Mapping[str, Tensor] | None = None) -> float:
        """Return the mean loss over all terms, with the penalty; the model's own without params.

        Raises:
            ParamsError: when params have names or shapes that the model has not.
        """
        values = self.values(params)
        return values["loss" if "" in self.sources else "train_loss"]

    def values(self, params: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Return the loss and every metric at one point, in one pass over the data."""
        with self.session() as session:
            return session.values(params)

    def terms(self, params: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the single terms of the loss, shape (n,), in data order, without the penalty.

        Their mean is the loss: where terms count differently (class weights) each is scaled by
        what it counts; ignored terms are left out.
        """
        with self.session() as session, torch.no_grad():
            parts = list(session.terms(params))
        weights = torch.cat([p.weights for p in parts]).double()
        values = torch.cat([p.values for p in parts]).double()
        return values[weights != 0] / weights[weights != 0].mean()

    def gradient(self, params: Mapping[str, Tensor] | None = None) -> Params:
        """Return the gradient of the mean loss (with the penalty), one tensor a parameter."""
        with torch.inference_mode(mode=False), torch.enable_grad(), self.session() as session:
            return session.gradient(params)

    def check_one_data_set(self) -> None:
        """Raise a sentence when there are test data, beside which no samples can be drawn.

        Raises:
            ObjectiveError: so.
        """
        if "" not in self.batches:
            raise ObjectiveError(
                "samples are drawn from data, and there are test_data as well: leave test_data out,"
                " and scan them by themselves."
            )

    def on(self, device: torch.device) -> Objective:
        """Return this objective on another device, with a model and data of its own there."""
        if device == self.device:
            return self
        other = self.twin()
        other.device = device
        other.center = params_.like(self.center, {n: t.to(device) for n, t in self.center.items()})
        other.batches = {name: batches.on(device) for name, batches in self.batches.items()}
        return other

    def sampled(self, rows: Sequence[int], weights: Any) -> Objective:
        """Return the objective over some samples of the data, each with a weight.

        Args:
            rows: which samples, in order.
            weights: shape (sets, samples): the mean with the first set is the loss (and the
                metrics); with the others it is called "loss~1", "loss~2", ...

        Raises:
            ObjectiveError: when samples cannot be told apart, or there are test data as well.
        """
        self.check_one_data_set()
        with undisturbed(*self.sources.values()):
            drawn = batches_.taken(self.batches[""], rows)
        other = copy.copy(self)
        other.weights = torch.as_tensor(weights, dtype=torch.float64, device=self.device)
        other.batches = {"": Batches(drawn, device=self.device, dtype=self.batches[""].dtype)}
        return other

    def twin(self) -> Objective:
        """Return an objective of the same function with a model of its own, for another thread.

        The new model shares the memory of the user's tensors, which are never written to.

        Raises:
            Exception: whatever a model that cannot be copied raises.
        """
        memo: dict[int, Any] = {}
        for parameter in self.model.parameters():
            memo[id(parameter)] = nn.Parameter(parameter.detach(), parameter.requires_grad)
        for buffer in self.model.buffers():
            memo[id(buffer)] = buffer.detach()
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model, memo)
        return other

    @contextmanager
    def session(self, data: Mapping[str, Iterable[Any]] | None = None) -> Iterator[Session]:
        """Borrow the model for many evaluations; everything is as it was afterwards.

        Args:
            data: batches to use in the place of ``batches``, with the same names.
        """
        with (
            undisturbed(*self.sources.values()),
            products(tf32=self.precision == "tf32"),
            borrowed(self.model, *self._use) as loan,
        ):
            session = self._session(loan, data)
            yield session
            self.notes = tuple(dict.fromkeys([*self.notes, *session.notes]))

    def owned(self, data: Mapping[str, Iterable[Any]] | None = None) -> Session:
        """Return a session for as long as it lives, of a :meth:`twin` that nobody else uses."""
        return self._session(Borrowed(self.model, *self._use), data)

    def _session(self, loan: Borrowed, data: Mapping[str, Iterable[Any]] | None) -> Session:
        return Session(
            loan,
            center=self.center,
            loss=self.loss_terms,
            metrics=self.metrics,
            data=self.batches if data is None else data,
            penalty=self.penalty,
            recompute=self.buffers == "recompute",
            half=self.half,
            weights=self.weights,
        )

    def probe(self) -> dict[str, float]:
        """Return the values at the center, after checking that they come out the same twice.

        Raises:
            DeterminismError: when they do not; the text names the suspects.
        """
        with self.session() as session:
            first, second = session.values(None), session.values(None)
        for name, value in first.items():
            other = second[name]
            if value != other and not (math.isnan(value) and math.isnan(other)):
                raise DeterminismError(
                    f"{name} at the center was {value!r} and then {other!r}: a surface of a random"
                    f" function means nothing. {self._suspects()}"
                )
        return first

    def question(self) -> dict[str, str]:
        """Return what identifies this function: a journal of another one is never mixed in."""
        alive = dict(params_.named_tensors(self.model))
        weights = {} if self.weights is None else {"": self.weights}
        drawn = {"samples": fingerprint.of_tensors(weights)} if weights else {}
        fixed = offloaded.resident(
            self.model, {n: t for n, t in alive.items() if n not in self.center}
        )
        return {
            "model": fingerprint.of_module(self.model),
            "weights": fingerprint.of_tensors(self.center),
            "buffers and frozen parameters": fingerprint.of_tensors(fixed),
            "training mode": fingerprint.of_text(*[m.training for m in self.model.modules()]),
            "loss": self.loss_terms.identity,
            "metrics": json.dumps({n: m.identity for n, m in self.metrics.items()}),
            "penalty": fingerprint.of_function(self.penalty) if self.penalty else "none",
            "buffer mode": self.buffers,
            "precision": self.precision if self.precision == "tf32" else str(self.dtype),
            "device": self.device.type,
            **{b.name: self._identity(b) for b in self.batches.values()},
            **drawn,
        }

    @property
    def data_notes(self) -> tuple[str, ...]:
        """What the first walk through the data found out."""
        return tuple(note for data in self.batches.values() for note in data.notes)

    def describe(self) -> dict[str, str]:
        """Return what a result says about where it comes from, for people."""
        sizes = sum(t.numel() for t in self.center.values())
        penalty = getattr(self.penalty, "name", None) or getattr(self.penalty, "__name__", "")
        return {
            "model": f"{type(self.model).__name__}, {sizes:,} trainable parameters",
            "loss": self.loss_terms.name,
            "penalty": penalty or ("none" if self.penalty is None else type(self.penalty).__name__),
            "buffers": self.buffers,
            "precision": self.precision if self.precision == "tf32" else str(self.dtype)[6:],
            "device": self.device.type,
        }

    def _identity(self, data: Batches) -> str:
        with undisturbed(*self.sources.values()):
            return data.identity

    def _center(self) -> Params:
        alive = params_.parameters(self.model)
        if not self.in_place:
            return self._copies(alive)
        return params_.like(alive, offloaded.resident(self.model, alive))

    def _copies(self, alive: Params) -> Params:
        """Return detached copies on the device, in the precision of the points of a slice."""
        keep = None if self.precision == "bfloat16" else self.dtype
        copies = {n: t.detach().to(self.device, keep, copy=True) for n, t in alive.items()}
        return params_.like(alive, copies)

    def _suspects(self) -> str:
        training = [(n, m) for n, m in self.model.named_modules() if m.training]
        found = [
            f"dropout in training mode ({n or 'the model'})"
            for n, m in training
            if isinstance(m, _DROPOUTS)
        ][:1]
        found += [
            f"batch norm in training mode ({n or 'the model'})"
            for n, m in training
            if isinstance(m, _NormBase)
        ][:1]
        if any(b.streamed for b in self.batches.values()):
            found.append("streamed data that changes from walk to walk (shuffling, augmentation)")
        if not found:
            found.append("random numbers in the model or the loss, or kernels that are not exact")
        return (f"Suspects: {'; '.join(found)}. Call model.eval(), fix the seed of what draws"
                " random numbers, or let the data be kept with cache=True.")  # fmt: skip


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


def _device(device: str | torch.device, model: nn.Module) -> torch.device:
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ObjectiveError(f"device={device!r} is not known to torch: {error}") from error
    own = next((p.device for p in model.parameters()), torch.device("cpu"))
    return torch.device("cuda") if own.type == "cpu" and torch.cuda.is_available() else own


def _own(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return where a model takes its inputs, and the precision of its first weights."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return offloaded.device(model) or first.device, first.dtype


def _check_in_place(device: str | torch.device, precision: str) -> None:
    if device != "auto" or precision != "float32":
        raise ObjectiveError(
            f"device={device!r}, precision={precision!r}: with in_place=True the model is used"
            " where it is and as it is: move it yourself, with model.to(...), before."
        )


def _dtype(precision: str, model: nn.Module) -> torch.dtype:
    double = any(p.dtype == torch.float64 for p in model.parameters())
    return torch.float64 if precision == "float32" and double else PRECISIONS[precision]
