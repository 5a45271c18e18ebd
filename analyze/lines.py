"""Straight lines through logarithms of two measured numbers of each direction, both with errors that share a part.

Exponents are slopes of such lines (York et al. 2004); logarithms are freed of their bias to second order. Directions
are weighed by errors of another stretch of time: those of their own are smaller where a number came out high, and would
draw the line. Errors of exponents come from time: from the influence of every step on the slope, by the Γ-method, so
that noise which directions share is not counted as many times as there are directions. Where the points lie farther
from the line than that allows, they are widened by the square root of χ² per degree of freedom.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import series
from .directions import Measured, covariance_of_means, means_of_blocks

Floats = NDArray[np.float64]
FEWEST = 4
"""directions that a line takes"""


class Line(NamedTuple):
    """A straight line's slope with its error and effective samples, and the scatter about it, χ²/(d−2)."""

    slope: float
    error: float
    samples: float
    scatter: float


def chosen(measured: Measured, used: NDArray[np.bool_]) -> Measured:
    """What was measured of some directions (d,)."""
    return Measured(*(values[used] for values in measured))


@np.errstate(invalid="ignore", divide="ignore")
def differ(values: Floats, errors: Floats) -> bool:
    """Whether values (n,) are not one and the same number within their errors, at three spreads of χ²."""
    weights = errors**-2.0
    freedom = len(values) - 1
    spread = np.sum(weights * (values - np.sum(weights * values) / np.sum(weights)) ** 2)
    return bool(spread > freedom + 3 * np.sqrt(2 * max(freedom, 0)))


@np.errstate(invalid="ignore", divide="ignore")
def relative_errors(across: Measured, up: Measured, shared: bool) -> Floats:
    """Relative variances of both and their relative covariance, (3, d)."""
    vx, vy = ((one.error / one.value) ** 2 for one in (across, up))
    common = covariance_of_means(across.influence, up.influence) if shared else np.zeros_like(vx)
    # Errors that are one and the same leave no direction to fit along.
    return np.stack([vx, vy, np.clip(common, -0.99 * np.sqrt(vx * vy), 0.99 * np.sqrt(vx * vy))])


def fit_line(across: Measured, up: Measured, errors: Floats, *, shared: bool) -> Line:
    """d ln(up)/d ln(across) over the directions (York et al. 2004, eqs. 13), all NaN for fewer than `FEWEST`.

    Args:
        across: λ. up: σ² or C.
        errors: relative variances and covariance (3, d) that weigh the directions, measured at other times: a λ that
            came out high has a small error of its own, and would draw the line.
        shared: whether both are means over the same times, and so fluctuate together.
    """
    d = len(across.value)
    if d < FEWEST or not np.all(np.isfinite(errors)) or not np.all(errors[1] > 0):
        return Line(np.nan, np.nan, np.nan, np.nan)
    vx, vy, common = errors
    # The logarithm of a mean is low by half its relative variance, which an error of few samples overstates.
    x, y = (np.log(one.value) + np.minimum(one.error / one.value, 0.5) ** 2 / 2 for one in (across, up))
    if not np.all(np.isfinite(x + y)):
        return Line(np.nan, np.nan, np.nan, np.nan)
    slope = float(np.polyfit(x, y, 1)[0])
    last = np.inf
    for _ in range(50):
        weight, v, u, lever = _levers(x, y, vx, vy, common, slope)
        if abs(slope - last) < 1e-10 * (1 + abs(slope)):
            break
        last, slope = slope, float(np.sum(weight * lever * v) / np.sum(weight * lever * u))
    weight, v, u, lever = _levers(x, y, vx, vy, common, slope)
    pull = weight * lever / np.sum(weight * lever * u)
    # The slope moves by Σ pull (δy − slope δx).
    pull = pull - weight * np.sum(pull) / np.sum(weight)
    of_y, of_x = pull @ up.influence, -slope * (pull @ across.influence)
    parts = [means_of_blocks(of_y + of_x)] if shared else [of_y, of_x]
    error = np.sqrt(sum(float(series.mean_and_error(one)[1]) ** 2 for one in parts))
    scatter = float(np.sum(weight * (v - slope * u) ** 2) / (d - 2))
    return Line(
        slope, float(error * np.sqrt(max(scatter, 1.0))), float(min(across.samples.min(), up.samples.min())), scatter
    )


def _levers(
    x: Floats, y: Floats, vx: Floats, vy: Floats, common: Floats, slope: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Weight of each point, its y and x from the weighted mean, and its lever β (York et al. 2004)."""
    weight = 1 / (vy + slope**2 * vx - 2 * slope * common)
    u, v = x - np.average(x, weights=weight), y - np.average(y, weights=weight)
    return weight, v, u, weight * (u * vy + slope * v * vx - (slope * u + v) * common)
