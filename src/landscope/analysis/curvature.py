"""Curvature: ``ls.curvature``, second derivatives of the loss.

Hessian            the operator, at a point: products with vectors
eigenpairs         eigenvalues and eigenvectors, with residuals
extremes           the smallest and the largest eigenvalue, from one Krylov space
trace, spectrum    by random vectors, with their errors
sharpness          the numbers that people call sharpness, in one place
hessian_extremes   a quantity of a scan: both extremes at every point (the convexity map)
"""

from landscope.analysis.eigen import Eigenpairs, Extremes, eigenpairs, extremes
from landscope.analysis.hessian import Hessian
from landscope.analysis.maps import HessianExtremes, hessian_extremes
from landscope.analysis.sharpness import Sharpness, sharpness
from landscope.analysis.traces import Spectrum, Trace, spectrum, trace

__all__ = [
    "Eigenpairs",
    "Extremes",
    "Hessian",
    "HessianExtremes",
    "Sharpness",
    "Spectrum",
    "Trace",
    "eigenpairs",
    "extremes",
    "hessian_extremes",
    "sharpness",
    "spectrum",
    "trace",
]
