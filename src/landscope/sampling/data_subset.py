"""A subset of the samples with weights: what a calibrated scan evaluates."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import final

import numpy as np

from landscope.errors import FormatError

REPLICATES = 16  # the error bar's own noise is 1 / sqrt(2 * 16) = 18%, which the t quantile covers


@final
@dataclass(frozen=True, eq=False)
class Subset:
    """Some samples of the data, weighted so that they represent all.

    The values and the counts of a sample are multiplied by its weight: the loss is
    ``(weights * values).sum() / (weights * counts).sum()``.
    """

    rows: np.ndarray  # int64 [samples drawn], ascending
    weights: np.ndarray  # float64 [samples drawn]
    replicates: np.ndarray  # float64 [replicates, samples drawn]: perturbed weights, some below 0
    trust: float  # factor by which the error bars from the replicates are multiplied
    spread: float  # median standard error of ln loss at anchors, each predicted from the others
    positive: bool = True  # no loss at an anchor is negative, so ln(loss) has error bars
    notes: tuple[str, ...] = ()  # sentences for the user

    def half_widths(self, estimates: np.ndarray, replicates: np.ndarray) -> np.ndarray:
        """Return half-widths of 95% intervals of the loss, in its own units.

        ``trust * t * sqrt(mean((replicates - estimate)^2))``, with t the 97.5% point of Student's
        distribution and trust measured at anchors that are left out.

        Args:
            estimates: The loss with ``weights``, shape (points,).
            replicates: The loss with each of ``replicates``, shape (points, replicates).

        Returns:
            Shape (points,): 0 at anchors and when all samples were drawn; NaN where the estimate
            or a replicate is not finite.
        """
        from scipy.stats import t

        estimates = np.asarray(estimates, np.float64)
        estimates = np.where(np.isfinite(estimates), estimates, np.nan)
        deviations = np.asarray(replicates, np.float64) - estimates[:, None]
        factor = self.trust * float(t.ppf(0.975, deviations.shape[1]))
        largest = np.abs(deviations).max(axis=1, initial=0.0, keepdims=True)
        unit = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)  # 1e200 has no square
        spread = unit[:, 0] * np.sqrt(np.mean((deviations / unit) ** 2, axis=1))
        return np.asarray(np.where(np.isfinite(spread), factor * spread, np.nan))

    def dumps(self) -> bytes:
        """Return the subset as the bytes of a NumPy archive; :func:`loads` reads them."""
        file = io.BytesIO()
        np.savez(
            file,
            rows=self.rows,
            weights=self.weights,
            replicates=self.replicates,
            numbers=np.array([self.trust, self.spread, self.positive], np.float64),
            notes=np.array(self.notes, dtype=np.str_),
        )
        return file.getvalue()


def loads(data: bytes) -> Subset:
    """Return the subset whose bytes :meth:`Subset.dumps` returned.

    Raises:
        FormatError: When the bytes are something else.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            trust, spread, positive = archive["numbers"].tolist()
            return Subset(
                rows=archive["rows"],
                weights=archive["weights"],
                replicates=archive["replicates"],
                trust=trust,
                spread=spread,
                positive=bool(positive),
                notes=tuple(archive["notes"].tolist()),
            )
    except Exception as error:  # numpy raises many kinds for bytes that are no archive
        raise FormatError(f"these bytes are not a calibrated subset ({error}).") from error
