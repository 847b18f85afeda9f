"""Krylov spaces of a symmetric operator: what can be told of its spectrum from a few products.

Lanczos' process with every vector made orthogonal to all before it (twice: "twice is enough", W.
Kahan in Parlett, *The Symmetric Eigenvalue Problem*, 1980, section 6.9), so that no eigenvalue is
found twice. The projected matrix is float64 whatever the vectors are.

Nothing here knows of networks: an operator is a function from a vector [p] to a vector [p].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""A symmetric operator: from a vector, shape [p], to a vector, shape [p]."""

_OUTSIDE = 1e-3  # of a random vector must lie outside a basis, whose first was drawn like it
_ROUNDING = 8.0  # multiples of the precision of a product at which a remainder counts as zero


@final
class Krylov:
    """An orthonormal basis of a Krylov space, and the operator projected onto it.

    Args:
        product: the operator.
        start: a first vector, shape [p]; any length but zero.
        most: vectors in memory at most, p if there are more.
        seed: of the vectors with which it goes on where a space is exhausted.

    Cost: m + 1 vectors of memory for m products; 4 m p multiplications for the m-th one.
    """

    def __init__(self, product: Product, start: Tensor, *, most: int, seed: int = 0) -> None:
        self.product = product
        self.most = min(most, start.numel())
        self.basis = start.new_zeros(min(self.most, 16) + 1, start.numel())  # it grows
        self.matrix = torch.zeros(self.most, self.most, dtype=torch.float64)
        self.size = 0  # how many vectors the operator was applied to
        self.products = 0
        self.off = 0.0  # length of what the last product had outside the basis
        self.generator = torch.Generator().manual_seed(seed)
        self.scale = 0.0  # the largest entry of the projected matrix so far
        self.basis[0] = start / start.norm()

    @property
    def exhausted(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.size == self.basis.shape[1]

    @property
    def full(self) -> bool:
        """Whether there is no room for another product."""
        return self.size == self.most

    def grow(self) -> None:
        """Apply the operator to the last vector, and add what is new to the basis."""
        j = self.size
        if j + 2 > len(self.basis):
            longer = self.basis.new_zeros(
                min(2 * len(self.basis), self.most + 1), self.basis.shape[1]
            )
            longer[: len(self.basis)] = self.basis
            self.basis = longer
        image = self.product(self.basis[j]).to(self.basis)
        self.products += 1
        if not bool(torch.isfinite(image).all()):
            raise FloatingPointError
        length = float(image.norm())
        held = self.basis[: j + 1]
        shares = held @ image
        rest = image - held.T @ shares
        again = held @ rest
        rest -= held.T @ again
        column = (shares + again).double().cpu()
        self.matrix[: j + 1, j] = column
        self.matrix[j, : j + 1] = column
        self.size = j + 1
        self.scale = max(self.scale, float(column.abs().max()))
        self.off = float(rest.norm())
        if self.full and self.exhausted:
            self.off = 0.0
            return
        if self.off <= _ROUNDING * torch.finfo(image.dtype).eps * max(length, self.scale):
            self.off = 0.0  # an invariant space: go on in a direction that it does not know
            rest = self._fresh(j + 1)
        self.basis[j + 1] = rest / rest.norm()

    def _fresh(self, count: int) -> Tensor:
        """Return a random vector outside the first vectors of the basis."""
        while True:
            drawn = torch.randn(self.basis.shape[1], generator=self.generator, dtype=torch.float64)
            vector = drawn.to(self.basis, copy=True)
            for _ in range(2):
                vector -= self.basis[:count].T @ (self.basis[:count] @ vector)
            if float(vector.norm()) > _OUTSIDE * float(drawn.norm()):
                return vector

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return Ritz values (rising) [m], residuals [m] and coefficients [m, m], float64, CPU."""
        values, coefficients = torch.linalg.eigh(self.matrix[: self.size, : self.size])
        return values, self.off * coefficients[-1].abs(), coefficients

    def vectors(self, coefficients: Tensor) -> Tensor:
        """Return the vectors with these coefficients [m, k], as rows [k, p]."""
        held = self.basis[: self.size]
        return coefficients.T.to(held) @ held

    def restart(self, keep: Tensor) -> None:
        """Go on with some Ritz vectors and the last one ("thick restart", Wu, Simon 2000).

        Args:
            keep: indices of Ritz values, rising.
        """
        values, _, coefficients = self.ritz()
        last = self.basis[self.size].clone()
        kept = self.vectors(coefficients[:, keep])
        count = len(keep)
        self.basis[:count], self.basis[count] = kept, last
        self.matrix.zero_()
        self.matrix[:count, :count] = torch.diag(values[keep])
        # The row that couples them to the last vector is found again by the next product.
        self.size = count


def random_vector(size: int, like: Tensor, seed: int) -> Tensor:
    """Return standard normal numbers, shape [p], the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(like)
