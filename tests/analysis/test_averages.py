"""Averages over a neighborhood and error bars over terms, beside closed forms and many samples.

For a quadratic E L(theta + sigma D n) = L + sigma^2 tr(D H D) / 2 exactly, with H written down here
from the data. For a network the truth is the mean over ten thousand draws of noise by NumPy, which
shares neither stream nor code with what is tested.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

import landscope as ls
from landscope.analysis import averages
from landscope.errors import ObjectiveError, ParamsError
from landscope.params import Params
from tests import cases

SIGMA = 0.3


class Bowl(nn.Module):
    """Rows a -> a . (all parameters in a row): a matrix of two filters and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 4, generator=cases.seeded(1)).double())
        self.bias = nn.Parameter(torch.randn(3, generator=cases.seeded(2)).double())

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ torch.cat([self.weight.flatten(), self.bias])


def bowl() -> tuple[ls.Objective, np.ndarray, np.ndarray]:
    """A quadratic objective, its Hessian, and the flat center."""
    model = Bowl()
    rows = torch.randn(15, 11, generator=cases.seeded(3), dtype=torch.float64)
    right = torch.randn(15, generator=cases.seeded(4), dtype=torch.float64)
    objective = ls.Objective(model, nn.MSELoss(), (rows, right), batch_size=4)
    flat = torch.cat([model.weight.detach().flatten(), model.bias.detach()]).numpy()
    return objective, (2 / 15 * rows.T @ rows).numpy(), flat


def scale_of(metric: str, flat: np.ndarray) -> np.ndarray:
    """Return the diagonal of D: what one sigma is for every weight."""
    if metric == "euclidean":
        return np.ones(11)
    parts = [flat[:4], flat[4:8], flat[8:]]
    return np.concatenate([np.full(len(p), np.linalg.norm(p) / math.sqrt(len(p))) for p in parts])


def averaged(objective: ls.Objective, **options: Any) -> tuple[float, float]:
    found = ls.neighborhood_average(**options)(objective, objective.center)
    assert set(found) == {"averaged_loss", "averaged_loss_stderr"}
    return found["averaged_loss"], found["averaged_loss_stderr"]


@pytest.mark.parametrize("metric", ["filter", "euclidean"])
def test_the_average_of_a_quadratic_is_that_of_its_trace(metric: Any) -> None:
    objective, hessian, flat = bowl()
    scale = scale_of(metric, flat)
    rise = SIGMA**2 / 2 * float(np.trace(scale[:, None] * hessian * scale))
    truth = objective.loss() + rise
    seeds = range(150)
    pairs = [averaged(objective, sigma=SIGMA, draws=32, metric=metric, seed=s) for s in seeds]
    off = np.array([(mean - truth) / stderr for mean, stderr in pairs])
    assert np.median([stderr for _, stderr in pairs]) < 0.4 * rise, "sharp enough to tell"
    # Of 150 values with the distribution of Student for 16 pairs some 140 are below 1.96.
    assert 128 <= int((np.abs(off) < 1.96).sum()) < 150
    means = np.array([mean for mean, _ in pairs])
    assert means.mean() == pytest.approx(truth, abs=4 * means.std() / math.sqrt(150)), "no bias"


@pytest.mark.parametrize("metric", ["filter", "euclidean"])
def test_the_spread_of_the_noise_is_that_of_the_metric(metric: Any) -> None:
    """With a loss that is one squared weight, the rise is that weight's own variance."""
    objective, _, flat = bowl()
    scale = scale_of(metric, flat)
    for k in (0, 5, 9):
        only = torch.zeros(1, 11, dtype=torch.float64)
        only[0, k] = 1.0
        one = ls.Objective(objective.model, nn.MSELoss(), (only, only @ torch.tensor(flat)))
        mean, stderr = averaged(one, sigma=SIGMA, draws=2000, metric=metric)
        assert mean == pytest.approx((SIGMA * scale[k]) ** 2, abs=4 * stderr)
        assert stderr == pytest.approx((SIGMA * scale[k]) ** 2 * math.sqrt(2 / 1000), rel=0.3)


def test_a_slope_adds_nothing_to_the_error() -> None:
    objective, _, _ = bowl()
    line = ls.Objective(
        objective.model, ls.losses.custom(lambda model, batch: model(batch[0])),
        (torch.ones(4, 11, dtype=torch.float64), torch.ones(4)),
    )  # fmt: skip
    mean, stderr = averaged(line, sigma=SIGMA, draws=8)
    assert mean == pytest.approx(line.loss(), rel=1e-12)
    assert stderr == pytest.approx(0.0, abs=1e-12)


def truth_of(case: cases.Case, sigma: float, samples: int) -> tuple[float, float]:
    """Return the mean over many draws, all at once, for the network Linear, Tanh, Linear."""
    rng = np.random.default_rng(7)
    tensors = [p.detach().double() for p in case.model.parameters()]
    noise = []
    for tensor in tensors:
        size = tensor.norm(dim=-1, keepdim=True) / math.sqrt(tensor.shape[-1])
        noise.append(torch.tensor(rng.standard_normal((samples, *tensor.shape))) * size * sigma)
    inputs, losses = case.inputs.double(), []
    for sign in (1, -1):
        one, one_bias, two, two_bias = (
            t + sign * n for t, n in zip(tensors, noise, strict=True)
        )  # fmt: skip
        hidden = torch.tanh(inputs @ one.transpose(1, 2) + one_bias[:, None])
        outputs = hidden @ two.transpose(1, 2) + two_bias[:, None]
        flat = F.cross_entropy(
            outputs.flatten(0, 1), case.targets.repeat(samples), reduction="none"
        )
        losses.append(flat.reshape(samples, -1).mean(dim=1))
    pairs = ((losses[0] + losses[1]) / 2).numpy()
    return float(pairs.mean()), float(pairs.std()) / math.sqrt(samples)


def test_the_error_bars_hold_what_they_promise_on_a_network() -> None:
    case = cases.mlp()
    sigma, seeds = 0.5, 150
    truth, doubt = truth_of(case, sigma, 10_000)
    objective = case.objective(batch_size=23)
    pairs = np.array([averaged(objective, sigma=sigma, draws=32, seed=s) for s in range(seeds)])
    off = np.abs(pairs[:, 0] - truth) / np.hypot(pairs[:, 1], doubt)
    assert truth - objective.loss() > 3 * pairs[:, 0].std(), "there is something to find"
    # 16 pairs have the quantiles of Student: of 150 some 140 within 1.96, 142 within 2.13.
    assert stats.t(15).cdf(1.96) * 2 - 1 == pytest.approx(0.931, abs=0.001)
    assert (off < 1.96).mean() > 0.87
    assert 0.90 < (off < stats.t(15).ppf(0.975)).mean() < 0.995


def test_the_noise_is_the_same_at_every_point_and_another_with_another_seed() -> None:
    objective, hessian, _ = bowl()
    quantity = ls.neighborhood_average(SIGMA, 8, metric="euclidean")
    way = Params({n: torch.ones_like(t) for n, t in objective.center.items()})
    line = ls.Line(objective.center, way)
    land = ls.scan(objective, line, ls.Grid(5), quantities=(quantity,))
    rise = (land.data["averaged_loss"] - land.data["loss"]).values
    np.testing.assert_allclose(rise, rise[0], rtol=1e-9)  # of a quadratic it is the noise alone
    np.testing.assert_allclose(
        land.data["averaged_loss_stderr"], land.data["averaged_loss_stderr"][0], rtol=1e-9
    )
    again, other = (averaged(objective, sigma=SIGMA, draws=8, seed=s)[0] for s in (0, 1))
    assert averaged(objective, sigma=SIGMA, draws=8)[0] == again != other
    assert float(np.trace(hessian)) > 0


def test_it_is_averaged_over_a_slice_of_states_too() -> None:
    """Weights move; what batch norm measured of the data is no weight."""
    case = cases.batch_norm_cnn()
    objective = case.objective()
    (way,) = ls.directions.random(objective.states, 1, seed=3)
    quantity = ls.neighborhood_average(0.5, 8)
    line = ls.Line(objective.states, way)
    land = ls.scan(objective, line, ls.Grid(3), quantities=(quantity,))
    assert np.isfinite(land.data["averaged_loss"].values).all()
    weights = quantity(objective, objective.center)["averaged_loss"]
    assert float(land.data["averaged_loss"][1]) == pytest.approx(weights, rel=1e-6)


def test_training_loss_is_averaged_where_there_are_test_data() -> None:
    case = cases.mlp()
    alone = ls.neighborhood_average(0.2, 4)(case.objective(), case.objective().center)
    beside = case.objective(test_data=(case.inputs * 2, case.targets))
    assert ls.neighborhood_average(0.2, 4)(beside, beside.center) == alone


def test_integers_and_zero_filters_stay_where_they_are() -> None:
    objective = cases.odd().objective()  # its last layer is zero, bias and all
    quantity = ls.neighborhood_average(0.5, 4)
    found = quantity(objective, objective.center)
    assert found["averaged_loss"] == pytest.approx(math.log(3), rel=1e-6)
    assert found["averaged_loss_stderr"] == pytest.approx(0, abs=1e-7)


def test_the_model_is_given_back_as_it_was() -> None:
    case = cases.batch_norm_cnn()
    before = cases.remembered(case.model)
    objective = case.objective()
    ls.neighborhood_average(0.1, 4)(objective, objective.center)
    ls.loss_stderr(objective, objective.center)
    assert cases.remembered(case.model) == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sigma": 0.0}, "sigma=0.0"),
        ({"sigma": -1.0}, "sigma=-1.0"),
        ({"sigma": math.nan}, "sigma=nan"),
        ({"draws": 2}, "draws=2"),
        ({"draws": 5}, "draws=5"),
        ({"metric": "layer"}, "metric='layer'"),
    ],
)
def test_wrong_arguments_are_sentences(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ParamsError, match=f"{text}.*expected a sigma above 0"):
        ls.neighborhood_average(**options)


def test_the_error_over_terms_is_that_of_numpy(tmp_path: Path) -> None:
    case = cases.mlp()
    objective = case.objective()
    plane = cases.plane(objective)
    land = ls.scan(objective, plane, ls.Grid(2), quantities=(ls.loss_stderr,))
    for j, y in enumerate(land.data["y"].values):
        for k, x in enumerate(land.data["x"].values):
            point = plane.at((float(x), float(y)))
            outputs = torch.func.functional_call(case.model, dict(point), case.inputs)
            terms = F.cross_entropy(outputs, case.targets, reduction="none").detach().numpy()
            expected = np.std(terms, ddof=1) / math.sqrt(23)
            assert float(land.data["loss_stderr"][j, k]) == pytest.approx(expected, rel=1e-5)


def test_the_error_over_terms_that_count_differently_is_that_of_a_ratio() -> None:
    """The witness draws the data again and again; what is ignored is no term."""
    case = cases.mlp(rows=600)
    weights = torch.tensor([0.1, 1.0, 6.0])
    targets = case.targets.clone()
    targets[::7] = -100
    loss = nn.CrossEntropyLoss(weight=weights)
    objective = ls.Objective(case.model, loss, (case.inputs, targets))
    found = ls.loss_stderr(objective, objective.center)["loss_stderr"]
    kept = targets >= 0
    with torch.no_grad():
        terms = F.cross_entropy(case.model(case.inputs)[kept], targets[kept], reduction="none")
    counts = weights[targets[kept]].numpy()
    drawn = np.random.default_rng(0).integers(len(counts), size=(4000, len(counts)))
    means = (counts * terms.numpy())[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    assert found == pytest.approx(means.std(), rel=0.06)


@pytest.mark.parametrize("size", [7, 60])
def test_tokens_of_a_row_are_drawn_together(size: int) -> None:
    """The witness draws rows again and again: tokens of the rows here agree with each other."""
    rows = torch.randint(5, (60, 1), generator=cases.seeded(0)).expand(60, 12).contiguous()
    for row, length in enumerate(torch.randint(2, 13, (60,), generator=cases.seeded(1)).tolist()):
        rows[row, length:] = -100
    data = [{"input": part.clamp(min=0), "labels": part} for part in rows.split(size)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    objective = ls.Objective(model, ls.losses.tokens(), data)
    found = ls.loss_stderr(objective, objective.center)["loss_stderr"]
    with torch.no_grad():
        logits = model(rows.clamp(min=0)).transpose(1, 2)
    sums = F.cross_entropy(logits, rows, reduction="none").sum(dim=1).numpy()
    counts = (rows >= 0).sum(dim=1).numpy()
    drawn = np.random.default_rng(0).integers(60, size=(4000, 60))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    assert found == pytest.approx(means.std(), rel=0.06)


def test_terms_of_unknown_rows_are_drawn_one_by_one() -> None:
    """A function that gives the tokens that count, and no more, does not say whose they are."""
    targets = torch.tensor([[1, 2, 0], [1, 0, 0], [2, 1, 2]])

    def kept(model: nn.Module, batch: Any) -> Tensor:
        rows = batch["rows"]
        return F.cross_entropy(model(rows)[rows > 0], rows[rows > 0], reduction="none")

    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(3, 3), nn.Linear(3, 3))
    data = [{"rows": targets[:2]}, {"rows": targets[2:]}]
    objective = ls.Objective(model, ls.losses.custom(kept), data)
    terms = objective.terms().numpy()
    assert len(terms) == 6
    found = ls.loss_stderr(objective, objective.center)["loss_stderr"]
    assert found == pytest.approx(np.std(terms, ddof=1) / math.sqrt(6), rel=1e-6)


def test_one_term_has_no_error() -> None:
    case = cases.mlp(rows=1)
    objective = case.objective()
    assert math.isnan(ls.loss_stderr(objective, objective.center)["loss_stderr"])


def test_the_error_over_terms_of_a_calibrated_subset_is_refused() -> None:
    """A weighted subset is no sample of the data: its spread would be called that of all."""
    objective = cases.mlp(rows=400).objective()
    with pytest.raises(ObjectiveError, match=r"samples="):
        ls.scan(
            objective, cases.plane(objective), ls.Grid(5),
            samples=ls.Calibrated(50, 4), quantities=(ls.loss_stderr,),
        )  # fmt: skip


@pytest.mark.parametrize("pairs", [8, 16])
def test_intervals_hold_where_one_eigenvalue_dominates(pairs: int) -> None:
    """The loss of pair k is 1 + g_k^2; the witness is its mean, 2."""
    off = []
    for seed in range(1500):
        values = 1 + np.random.default_rng(seed).standard_normal(pairs) ** 2
        off.append(abs(values.mean() - 2) / averages._measure_half_width(values))
    held = float(np.mean(np.array(off) <= 1))
    student = stats.t.ppf(0.975, pairs - 1)
    draws = [np.random.default_rng(s).standard_normal(pairs) ** 2 for s in range(1500)]
    alone = np.mean([abs(d.mean() - 1) <= student * d.std(ddof=1) / pairs**0.5 for d in draws])
    assert held >= 0.905
    assert alone < 0.89


def test_half_widths_of_values_that_are_not_skewed_are_students() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = stats.t.interval(0.95, 4, loc=3, scale=stats.sem(values))[1] - 3
    assert averages._measure_half_width(values) == pytest.approx(expected)
    assert averages._measure_half_width(np.full(4, 0.1)) == 0.0


def with_losses(losses: np.ndarray) -> ls.Objective:
    data = torch.tensor(losses)[:, None], torch.zeros(len(losses), 1)
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    return ls.Objective(
        model, lambda outputs, _: outputs[:, 0], data, precision="float64", device="cpu"
    )


@pytest.mark.parametrize(("spread", "noted"), [(0.3, False), (2.0, True)])
def test_a_few_rows_that_dominate_are_noted(spread: float, noted: bool) -> None:
    losses = np.random.default_rng(0).lognormal(0, spread, 1000)
    skewness = stats.skew(losses)
    assert bool(skewness**2 / 1000 > 0.02) is noted
    objective = with_losses(losses)
    line = ls.Line(objective.center, ls.directions.random(objective.center, 1, ignore=None)[0])
    land = ls.scan(objective, line, 3, quantities=(ls.loss_stderr,))
    assert ("few rows of the data" in land.data.attrs["notes"]) is noted
    assert any("few rows of the data" in note for note in objective.notes) is noted
