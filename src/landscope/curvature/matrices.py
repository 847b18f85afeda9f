"""The three curvature matrices of a loss: Hessian, generalized Gauss-Newton and empirical Fisher.

They agree where the model fits the data well and differ elsewhere; Kunstner, Hennig and Balles
(2019, arXiv 1905.12558) say how.
"""

from __future__ import annotations

from typing import final

from landscope.curvature.definitions import FISHER, GAUSS_NEWTON, HESSIAN, MatrixDefinition
from landscope.curvature.linear_operator import CurvatureOperator
from landscope.errors import ObjectiveError
from landscope.objective.loss_terms import Loss
from landscope.objective.objective import Objective


@final
class Hessian(CurvatureOperator):
    """The Hessian of the mean loss L with respect to the parameters w.

        H = d2L / dw2

    See :class:`CurvatureOperator` for the arguments, attributes and costs.

    Source: Pearlmutter 1994, for products in O(p).

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> hessian = ls.curvature.Hessian(objective)
        >>> hessian.shape, (hessian @ torch.ones(15)).shape
        ((15, 15), torch.Size([15]))
    """

    @staticmethod
    def _define(_: Objective) -> MatrixDefinition:
        return HESSIAN


@final
class GaussNewton(CurvatureOperator):
    """The generalized Gauss-Newton matrix of the mean loss.

        G = (1/n) sum_i J_i^T H_i J_i

    with the Jacobian J_i of the outputs of sample i with respect to the parameters, and the Hessian
    H_i of its loss with respect to these outputs. It is positive semidefinite when the loss is
    convex in the outputs; for cross-entropy it is the Fisher matrix of the model's distribution.

    See :class:`CurvatureOperator` for the arguments, attributes and costs.

    Raises:
        ObjectiveError: When the loss is a function of model and batch: its outputs are unknown.

    Source: Schraudolph 2002; Martens 2020 (arXiv 1412.1193).

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> ls.curvature.extremes(ls.curvature.GaussNewton(objective)).smallest > -1e-6
        True
    """

    @staticmethod
    def _define(objective: Objective) -> MatrixDefinition:
        if not isinstance(objective.problem.loss, Loss):
            raise ObjectiveError(
                "GaussNewton needs a loss of outputs and targets; a custom function of model and"
                " batch does not say what the outputs are: use Hessian or Fisher."
            )
        return GAUSS_NEWTON


@final
class Fisher(CurvatureOperator):
    """The empirical Fisher matrix of the mean loss.

        F = (1/n) sum_i g_i g_i^T

    with the gradient g_i of the loss of a single term (a sample, a token) with respect to the
    parameters. Terms with weights w_i count as sum_i w_i g_i g_i^T / sum_i w_i.

    See :class:`CurvatureOperator` for the arguments, attributes and costs.

    Source: Kunstner, Hennig, Balles 2019 (arXiv 1905.12558), on how it differs from the Fisher
    matrix.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> ls.curvature.Fisher(objective, select="weight").shape
        (12, 12)
    """

    @staticmethod
    def _define(_: Objective) -> MatrixDefinition:
        return FISHER


MATRICES: dict[str, type[CurvatureOperator]] = {
    "hessian": Hessian,
    "ggn": GaussNewton,
    "fisher": Fisher,
}
"""Short name, as on the command line and in files -> matrix."""
