"""Bars of the products that a measure of a curvature matrix makes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from landscope.curvature.linear_operator import CurvatureOperator
from landscope.errors import ParamsError
from landscope.objective.objective import Objective

_Function = TypeVar("_Function", bound=Callable[..., Any])


def report_products(title: str) -> Callable[[_Function], _Function]:
    """Return a decorator of functions of an operator that shows their products under a title."""

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def run(operator: CurvatureOperator, *args: Any, **options: Any) -> Any:
            check_operator(operator)
            is_ours = isinstance(operator, CurvatureOperator)  # it may be the user's own
            with operator.show_products(title) if is_ours else contextlib.nullcontext():
                return function(operator, *args, **options)

        return cast("_Function", run)

    return decorate


def check_operator(operator: Any) -> None:
    """Raise a ParamsError for what is not a matrix; it may be the user's own."""
    if isinstance(operator, Objective) or not hasattr(operator, "products"):
        raise ParamsError(
            f"operator is a {type(operator).__name__}; expected a matrix such as"
            " ls.curvature.Hessian(objective)."
        )
