"""Variance, curvature and noise along principal directions, freed of what the choice of the directions adds.

Directions that are known from few samples are turned against the principal ones, and flat ones then hold a little of
steep ones, whose λ and C may be tens of times larger. How far they are turned is what their positions share in the
stretch that is measured, so that σ², λ and C are freed of it to first order; what is chance there, and no turn, its
variance in time tells. In tests with six directions of a heavy ball over a factor of ten in λ, and 200 relaxation times
of the flattest, σ² and λ are right to 1 %, where they would be 2 % high and low. Where directions are nearly as many as
the samples, λ comes out low with an error as wide.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from . import series
from .modes import Motion

Floats = NDArray[np.float64]
_BLOCKS = 128


class Measured(NamedTuple):
    """A mean of each direction, (d,), and what every step or probe adds to it relative to itself, (d, n)."""

    value: Floats
    error: Floats
    samples: Floats
    influence: Floats


class Stretch(NamedTuple):
    """What is measured of the directions in a stretch of steps."""

    variance: Measured
    curvature: Measured
    """that of the gradients or that of the probes, whichever serves"""
    noise: Measured
    by_step: Measured
    by_probe: Measured


def measure_stretch(motion: Motion, places: NDArray[np.int64], steps: slice, independent: bool) -> Stretch:
    """All that is measured in a stretch of steps.

    Args:
        motion: along the directions: positions and gradients of every step and, if any, g′ at the probes.
        places: steps of the probes. steps: the stretch.
        independent: whether the noise of a step knows nothing of where it is.
    """
    positions, gradients = motion.positions[:, steps], motion.others[0][:, steps]
    centred, alone = centred_and_alone(positions)
    hidden = _hidden(centred)
    variance = _variance(centred, alone, hidden)
    by_step = measure_curvature(centred, alone, gradients)
    by_step = _freed_of_motion(by_step, centred, alone, gradients, variance, hidden)
    unknown = np.full(len(positions), np.nan)
    by_probe = noise = Measured(unknown, unknown, unknown, np.zeros((len(positions), 0)))
    first, stop, _ = steps.indices(motion.positions.shape[1])
    inside = (places >= first) & (places < stop)
    if len(motion.others) > 1 and inside.any():
        at, probe = places[inside] - first, motion.others[1][:, inside]
        by_probe = measure_curvature(*centred_and_alone(positions[:, at]), probe)
        noise = _noise(positions[:, at], gradients[:, at] - probe)
    # The gradient of every step knows more than that of the probes, where it may be used at all.
    return Stretch(variance, by_step if independent else by_probe, noise, by_step, by_probe)


@np.errstate(invalid="ignore", divide="ignore")
def _mean(values: Floats) -> Measured:
    """Means of squares, whose error is widened for their skewness."""
    mean, error, samples = series.mean_and_error(values)
    return Measured(mean, series.widen_for_skewness(mean, error), samples, values / mean[:, None] - 1)


def centred_and_alone(positions: Floats) -> tuple[Floats, Floats]:
    """Positions (d, n) about their means, and what is left of each by least squares in those of larger variance."""
    centred = positions - positions.mean(-1, keepdims=True)
    return centred, centred - _fit(centred, centred) @ centred


@np.errstate(invalid="ignore", divide="ignore")
def _variance(centred: Floats, alone: Floats, hidden: Floats) -> Measured:
    """Variances about the mean of the window, without what the turn to directions of larger variance adds.

    That is what these tell of θ_u by least squares, less what they tell by chance in the window. What the
    mean takes off, `hidden` of it, is added again. Errors are those of θ_u² itself, which remembers as long as θ_u.
    """
    plain, squares = _mean(centred**2), alone**2
    rest = squares.mean(-1)
    value = (rest + _chance(centred)) / (1 - hidden)
    error = np.where(plain.value > 0, plain.error * value / plain.value, plain.error)
    return Measured(value, error, plain.samples, squares / rest[:, None] - 1)


@np.errstate(invalid="ignore", divide="ignore")
def measure_curvature(centred: Floats, alone: Floats, gradients: Floats) -> Measured:
    """⟨θg⟩/⟨θ²⟩ of centred positions.

    Of θ and g each is what the positions along directions of larger variance leave, that is, this is the curvature of
    least squares in all of them. ⟨θ_u g_u⟩ would add that of the others, λ_j for each independent sample that the
    directions were chosen from. The noise of a probe moves nothing, and with the same θ above and below leaves no bias.
    Few probes leave little of either: the mean, the curvatures of the others and the one in question take a value each
    from those that tell the error, and NaN is where none is left.

    Args:
        centred, alone: (d, n) from `centred_and_alone`. gradients: (d, n) at the same times, of steps or of probes.

    Returns:
        λ of each direction, in loss per parameter².
    """
    n = centred.shape[-1]
    freedom = n - 2.0 - _larger(centred).sum(-1)
    freedom[freedom < 1] = np.nan
    gradients = gradients - gradients.mean(-1, keepdims=True)
    slope, squares = alone * (gradients - _fit(gradients, centred) @ centred), alone**2
    value, error, samples = series.ratio_and_error(slope, squares)
    error *= np.sqrt((n - 1) / freedom) * special.stdtrit(freedom, 0.975) / special.stdtrit(n - 1, 0.975)
    value = np.where(np.isnan(freedom), np.nan, value)
    influence = (slope - value[:, None] * squares) / (value * np.mean(squares, axis=-1))[:, None]
    return Measured(value, error, samples * freedom / (n - 1), influence)


@np.errstate(invalid="ignore", divide="ignore")
def _freed_of_motion(
    curvature: Measured, centred: Floats, alone: Floats, gradients: Floats, variance: Measured, hidden: Floats
) -> Measured:
    """The curvature from gradients of the steps, whose noise ξ moves θ.

    The ratio is high by what its fluctuation has in common with that of ⟨θ²⟩, by the mean that is taken off, and by
    what noise and motion share with others by chance, the covariance of ⟨θ_uθ_j⟩ with ⟨ξ_uθ_j⟩. These are estimates of
    first order, and not known better than to half of them, which goes into the error.
    """
    value = curvature.value
    # In units of θ, so that neither drowns the other.
    noise = np.where(value[:, None] != 0, (gradients - gradients.mean(-1, keepdims=True)) / value[:, None], 0) - centred
    shared = np.nan_to_num(_chance(centred, noise) / np.mean(alone**2, axis=-1))
    common = np.clip(covariance_of_means(curvature.influence, variance.influence), -0.5, 0.0)
    freed = value * (1 - hidden) * (1 + common) * (1 + np.clip(shared, -1.0, 0.5))
    return curvature._replace(value=freed, error=np.hypot(curvature.error, (freed - value) / 2))


def _hidden(centred: Floats) -> Floats:
    """What the mean of the window takes off a variance, 2τ/N; a window of few correlation times does not know it."""
    _, tau, _ = series.autocovariance_and_cut(centred)
    return np.minimum(2 * tau / centred.shape[1], 0.5)


def _chance(positions: Floats, others: Floats | None = None) -> Floats:
    """Σ_j var⟨θ_uθ_j⟩/⟨θ_j²⟩ of centred θ (d, n), or with others x Σ_j cov(⟨θ_uθ_j⟩, ⟨x_uθ_j⟩)/⟨θ_j²⟩, (d,).

    j are the directions with a larger ⟨θ²⟩ than u. The expectation of a product of means is more than the product of
    their expectations by just that.
    """
    squares = np.mean(positions**2, axis=-1)
    means = _product_means(positions, positions)
    found = _variance_of_mean(means)
    if others is not None:
        other = _product_means(others, positions)
        found = (_variance_of_mean(means + other) - found - _variance_of_mean(other)) / 2
    return np.sum(np.where(_larger(positions), found / squares, 0.0), axis=1)


def _product_means(left: Floats, right: Floats) -> Floats:
    """⟨l_u r_j⟩ in each of the blocks, (d, d, block)."""
    left, right = _blocks(left).swapaxes(0, 1), _blocks(right).swapaxes(0, 1)
    return np.moveaxis(left @ right.swapaxes(1, 2) / left.shape[-1], 0, -1)


def _variance_of_mean(values: Floats) -> Floats:
    """2τΓ(0)/n of each series (..., n): the square of its error without Student's factor, which would bias it."""
    covariance, tau, _ = series.autocovariance_and_cut(values)
    return covariance[..., 0] * 2 * np.maximum(tau, 0.0) / values.shape[-1]


@np.errstate(invalid="ignore", divide="ignore")
def _noise(positions: Floats, differences: Floats) -> Measured:
    """C = ½⟨(g−g′)²⟩ at probes, less Σ_j ⟨θ_uθ_j⟩⟨ξ_uξ_j⟩/⟨θ_j²⟩, which the turn to j of larger variance adds.

    Only the positions tell a turn, noise may be correlated in principal directions as well; what that adds in
    proportion to the turn stays, and is 0 in the mean. The influence is that of all three means.
    """
    centred = positions - positions.mean(-1, keepdims=True)
    turned, mixed = _shares(centred, centred), _shares(differences, centred, differences)
    values = differences * (differences - turned @ differences)
    values -= centred * (mixed @ centred) - (turned * mixed) @ centred**2
    return _mean(values / 2)


def _fit(values: Floats, positions: Floats) -> Floats:
    """Coefficients (d, d) of least squares of v_u in the θ_j of larger ⟨θ²⟩ than u; both are (d, n)."""
    products, across = positions @ positions.T, values @ positions.T
    order = np.argsort(-np.diag(products))
    found = np.zeros_like(products)
    for rank, u in enumerate(order):
        larger = order[:rank]
        found[u, larger] = across[u, larger] @ np.linalg.pinv(products[np.ix_(larger, larger)], hermitian=True)
    return found


def _larger(positions: Floats) -> NDArray[np.bool_]:
    """Which directions j (d, d) have a larger ⟨θ²⟩ than u, of centred θ (d, n)."""
    squares = np.mean(positions**2, axis=-1)
    return squares > squares[:, None]


def _shares(values: Floats, positions: Floats, others: Floats | None = None) -> Floats:
    """⟨v_uθ_j⟩/⟨θ_j²⟩, (d, d), or ⟨v_uw_j⟩/⟨θ_j²⟩ of others w, of j with a larger ⟨θ²⟩ than u; all are (d, n)."""
    squares = np.mean(positions**2, axis=-1)
    others = positions if others is None else others
    return np.where(_larger(positions), values @ others.T / (values.shape[1] * squares), 0.0)


def covariance_of_means(left: Floats, right: Floats) -> Floats:
    """Covariance of the means of two simultaneous series (d, n), from the errors of their sum and of each.

    From means of blocks: what a product with white noise and a square have in common is small in every step, and long.
    """
    left, right = means_of_blocks(left), means_of_blocks(right)
    both, one, other = (series.mean_and_error(values)[1] ** 2 for values in (left + right, left, right))
    return (both - one - other) / 2


def means_of_blocks(values: Floats) -> Floats:
    """Means of the blocks, (..., block)."""
    return _blocks(values).mean(-1)


def _blocks(values: Floats) -> Floats:
    """At most `_BLOCKS` blocks of equal length, (..., block, step); what is over at the start is left out."""
    steps = values.shape[-1]
    length = max(steps // _BLOCKS, 1)
    count = steps // length
    return values[..., steps - count * length :].reshape(*values.shape[:-1], count, length)


def cosine_content(positions: Floats) -> Floats:
    """How much of the k-th direction's motion (k, N) is a cosine of k half periods, 0 to 1 (Hess 2002)."""
    d, steps = positions.shape
    centred = positions - positions.mean(-1, keepdims=True)
    waves = np.cos(np.pi * np.arange(1, d + 1)[:, None] * (np.arange(steps) + 0.5) / steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 / steps * np.sum(waves * centred, axis=1) ** 2 / np.sum(centred**2, axis=1)
