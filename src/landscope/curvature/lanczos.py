"""The Lanczos process: the spectrum of a symmetric operator from a few products.

In exact arithmetic the basis Q of the Krylov space {q, Aq, A2q, ...} makes Q^T A Q tridiagonal,
with entries alpha and beta. Here each new vector is made orthogonal to all earlier ones, twice
("twice is enough", W. Kahan in Parlett, *The Symmetric Eigenvalue Problem*, 1980, section 6.9), so
that no eigenvalue appears twice, and all of Q^T A Q is stored, in float64 for any precision of the
vectors.

Nothing here depends on networks: an operator is a function from a vector [p] to a vector [p].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""A symmetric operator: a function from a vector, shape [p], to a vector, shape [p]."""

_OUTSIDE = 1e-3  # the part of a random vector that must lie outside the basis
_ROUNDING = 8.0  # multiples of the precision of a product at which a remainder counts as zero


@final
class KrylovSpace:
    """An orthonormal basis Q of a Krylov space, and the projection Q^T A Q of the operator A.

    Args:
        multiply: The operator A.
        start: The first vector, shape [p]; any length but zero.
        max_vectors: The largest number of vectors in memory; never more than p.
        seed: The seed of the vectors that continue an invariant space.

    Attributes:
        basis: The vectors as rows, shape [m + 1 or more, p].
        projection: Q^T A Q in the upper left corner, [m, m], float64, on the CPU.
        size: The number m of vectors to which the operator was applied.
        products: The number of products so far.
        beta: The norm of the part of the last product outside the basis; 0 if it is invariant.
        asymmetry: The largest |q_i^T A q_j| that is 0 for a symmetric operator.

    Cost: m + 1 vectors of memory for m products; 4 m p multiplications for the m-th one.
    """

    def __init__(
        self, multiply: Product, start: Tensor, *, max_vectors: int, seed: int = 0
    ) -> None:
        self.multiply = multiply
        self.max_vectors = min(max_vectors, start.numel())
        self.basis = start.new_zeros(min(self.max_vectors, 16) + 1, start.numel())
        self.projection = torch.zeros(self.max_vectors, self.max_vectors, dtype=torch.float64)
        self.size, self.products, self.beta, self.asymmetry = 0, 0, 0.0, 0.0
        self._couples = 0  # vectors of a restart, to which the next product may be coupled
        self._generator = torch.Generator().manual_seed(seed)
        self._scale = 0.0  # the largest entry of the projection so far
        self.basis[0] = start / start.norm()

    @property
    def is_exhausted(self) -> bool:
        """Whether the basis spans all p dimensions."""
        return self.size == self.basis.shape[1]

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another vector."""
        return self.size == self.max_vectors

    def extend(self) -> None:
        """Apply the operator to the last vector, and add what is new to the basis.

        Raises:
            FloatingPointError: When the product is not finite.
        """
        j = self.size
        self._reserve(j + 2)
        image = self.multiply(self.basis[j]).to(self.basis)
        self.products += 1
        if not bool(torch.isfinite(image).all()):
            raise FloatingPointError
        length = float(image.norm())
        remainder, column = self._orthogonalize(image, j + 1)
        if j > self._couples + 1:
            self.asymmetry = max(self.asymmetry, float(column[: j - 1].abs().max()))
        self.projection[: j + 1, j] = column
        self.projection[j, : j + 1] = column
        self.size = j + 1
        self._scale = max(self._scale, float(column.abs().max()))
        self.beta = float(remainder.norm())
        if self.is_full and self.is_exhausted:
            self.beta = 0.0
            return
        if self.beta <= _ROUNDING * torch.finfo(image.dtype).eps * max(length, self._scale):
            self.beta = 0.0  # an invariant space: continue in a random direction outside it
            remainder = self._draw_outside(j + 1)
        self.basis[j + 1] = remainder / remainder.norm()

    def _reserve(self, count: int) -> None:
        """Make room for so many vectors: at least twice the room that there was."""
        room, size = self.basis.shape
        if count > room:
            longer = self.basis.new_zeros(min(2 * room, self.max_vectors + 1), size)
            longer[:room] = self.basis
            self.basis = longer

    def _orthogonalize(self, image: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the part of a vector outside the basis, and its coefficients in it."""
        vectors = self.basis[:count]
        first = vectors @ image
        remainder = image - vectors.T @ first
        second = vectors @ remainder
        remainder -= vectors.T @ second
        return remainder, (first + second).double().cpu()

    def _draw_outside(self, count: int) -> Tensor:
        """Return a random vector orthogonal to the first vectors of the basis."""
        size = self.basis.shape[1]
        while True:
            normal = torch.randn(size, generator=self._generator, dtype=torch.float64)
            vector = normal.to(self.basis, copy=True)
            for _ in range(2):
                vector -= self.basis[:count].T @ (self.basis[:count] @ vector)
            if float(vector.norm()) > _OUTSIDE * float(normal.norm()):
                return vector

    def ritz_pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the eigenpairs of the projection, which approximate those of the operator.

        Returns:
            Ritz values in rising order, shape [m]; their residual norms |beta y_m|, shape [m]; and
            the coefficients y in the basis as columns, shape [m, m]; float64, on the CPU.
        """
        values, coefficients = torch.linalg.eigh(self.projection[: self.size, : self.size])
        return values, self.beta * coefficients[-1].abs(), coefficients

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return the vectors Q y for coefficients, shape [m, k], as rows, shape [k, p]."""
        vectors = self.basis[: self.size]
        return coefficients.T.to(vectors) @ vectors

    def restart(self, indices: Tensor) -> None:
        """Keep some Ritz vectors and the last vector only ("thick restart", Wu, Simon 2000).

        Args:
            indices: The indices of the Ritz values, in rising order.
        """
        values, _, coefficients = self.ritz_pairs()
        last = self.basis[self.size].clone()
        vectors = self.combine(coefficients[:, indices])
        count = len(indices)
        self.basis[:count], self.basis[count] = vectors, last
        self.projection.zero_()
        self.projection[:count, :count] = torch.diag(values[indices])
        # The next product computes the row that couples them to the last vector.
        self.size = self._couples = count


def random_vector(
    size: int, seed: int, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Return standard normal numbers, shape [p], the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(device, dtype)
