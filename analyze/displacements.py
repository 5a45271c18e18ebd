"""Displacements in plain arrays (coordinate, N): mean squares, origin by origin or without drift, with error bars.

Those at chosen lags are taken from the differences themselves, so that no digits are lost; those at every lag go by
FFT. What a straight drift adds is taken off with the line from start to end, and what that takes off the fluctuations
is added again (`drift_free_terms`).
"""

import numba
import numpy as np
from numpy.typing import NDArray

from .series import (
    ROWS,
    TILE,
    Floats,
    autocovariance_and_cut,
    cancelling_error,
    fast_length,
    mean_and_error,
    returning_error,
    widen_for_skewness,
)


def mean_squared_displacement(positions: Floats) -> Floats:
    """Time-averaged ‖x(t+τ) − x(t)‖², summed over coordinates, at every lag, by FFT.

    With S(τ) = Σ_t x(t)·x(t+τ) and prefix sums of ‖x‖² (Calandrini et al. 2011, Kneller et al. 1995). Coordinates are
    centred first: without that, digits are lost when the offset is much larger than the steps.

    Args:
        positions: (coordinate, N).

    Returns:
        (N,), value at lag τ.
    """
    n = positions.shape[-1]
    size = fast_length(2 * n - 1)
    power, squares = np.zeros(size // 2 + 1), np.zeros(n)
    for start in range(0, len(positions), ROWS):
        part = positions[start : start + ROWS]
        centred = part - part.mean(-1, keepdims=True)
        spectrum = np.fft.rfft(centred, size)
        power += (spectrum.real**2 + spectrum.imag**2).sum(0)
        squares += (centred**2).sum(0)
    product = np.fft.irfft(power, size)[:n]
    squared = np.concatenate([[0.0], np.cumsum(squares)])
    lags = np.arange(n)
    tails = squared[n - lags] + squared[n] - squared[lags]
    return np.maximum((tails - 2 * product) / (n - lags), 0.0)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def squared_displacements(positions, lags):
    """‖x(t+τ) − x(t)‖² of every origin, summed over coordinates; NaN where t+τ is past the end.

    Args:
        positions: (coordinate, N); lags: (L,) whole numbers.

    Returns:
        (L, N) float64.
    """
    count, n = positions.shape
    out = np.zeros((lags.size, n))
    for i in range(lags.size):
        lag = lags[i]
        out[i, max(0, n - lag) :] = np.nan
        for c in range(count):
            early, late, row = positions[c, : n - lag], positions[c, lag:], out[i, : n - lag]
            for t in range(n - lag):
                step = np.float64(late[t]) - np.float64(early[t])
                row[t] += step * step
    return out


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def slope_products(positions, lag):
    """u·w of every origin, summed over coordinates, with u = x(t+ℓ) − x(t) and w = x(t+2ℓ) − x(t−ℓ) around it.

    Their mean is MSD(2ℓ) − MSD(ℓ), as w is u with its neighbours on both sides. In the difference of two squares the
    squares of positions cancel only later in time; here there are none. In free motion products are correlated up to
    2ℓ, and in confined motion, each a sum of x(t)·x(t′), once more where the same pair comes back: ℓ and 2ℓ later.

    Args:
        positions: (coordinate, N).

    Returns:
        (N − 3ℓ,) float64.
    """
    count, n = positions.shape
    size = max(n - 3 * lag, 0)
    out = np.zeros(size)
    for c in range(count):
        x = positions[c]
        before, early, late, after = x[:size], x[lag : lag + size], x[2 * lag : 2 * lag + size], x[3 * lag :]
        for t in range(size):
            out[t] += (np.float64(late[t]) - np.float64(early[t])) * (np.float64(after[t]) - np.float64(before[t]))
    return out


def mean_squared_displacement_at(
    positions: Floats, lags: NDArray[np.int64], start: int = 0, stop: int | None = None
) -> Floats:
    """⟨‖x(t+τ) − x(t)‖²⟩ over the origins start ≤ t < stop, summed over coordinates, from the differences themselves.

    Args:
        positions: (coordinate, N) of any floating type; lags: (L,) whole numbers.

    Returns:
        (L,); NaN for a lag that no origin has.
    """
    n = positions.shape[-1]
    end = n if stop is None else min(stop, n)
    origins = np.maximum(np.minimum(end, n - lags) - start, 0)
    sums = _summed_displacements(np.ascontiguousarray(positions), lags, start, end)
    return np.where(origins > 0, sums / np.maximum(origins, 1), np.nan)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _summed_displacements(positions, lags, start, stop):
    """Σ_t ‖x(t+τ) − x(t)‖² over start ≤ t < min(stop, N−τ); (L,) float64.

    Four lags at once, so that x(t) is loaded once for them; slices, so that the loops compile to vector instructions.
    """
    n = positions.shape[1]
    out = np.zeros(lags.size)
    for c in range(positions.shape[0]):
        x = positions[c]
        for begin in range(start, stop, TILE):
            end = min(begin + TILE, stop)
            i = 0
            while i < lags.size:
                if i + 4 <= lags.size and end + lags[i : i + 4].max() <= n:
                    k0, k1, k2, k3 = lags[i], lags[i + 1], lags[i + 2], lags[i + 3]
                    early = x[begin:end]
                    late0, late1 = x[begin + k0 : end + k0], x[begin + k1 : end + k1]
                    late2, late3 = x[begin + k2 : end + k2], x[begin + k3 : end + k3]
                    sum0, sum1, sum2, sum3 = 0.0, 0.0, 0.0, 0.0
                    for t in range(end - begin):
                        here = np.float64(early[t])
                        step0, step1 = np.float64(late0[t]) - here, np.float64(late1[t]) - here
                        step2, step3 = np.float64(late2[t]) - here, np.float64(late3[t]) - here
                        sum0 += step0 * step0
                        sum1 += step1 * step1
                        sum2 += step2 * step2
                        sum3 += step3 * step3
                    out[i] += sum0
                    out[i + 1] += sum1
                    out[i + 2] += sum2
                    out[i + 3] += sum3
                    i += 4
                else:
                    lag = lags[i]
                    count = min(end, n - lag) - begin
                    if count > 0:
                        early, late = x[begin : begin + count], x[begin + lag : begin + lag + count]
                        total = 0.0
                        for t in range(count):
                            step = np.float64(late[t]) - np.float64(early[t])
                            total += step * step
                        out[i] += total
                    i += 1
    return out


def straight_anchors(n: int) -> NDArray[np.int64]:
    """The two lags between which and beyond which the MSD of n steps is taken as straight, n/8 and n/4."""
    return np.array([n // 8, n // 4])


def drift_free_terms(lags: NDArray[np.int64], n: int) -> tuple[Floats, Floats]:
    """What the straight line from end to end takes off the MSD beside the drift, to add it again.

    With y(t) = x(t) − (x(T) − x(0)) t/T of n = T + 1 steps, and M(τ) the MSD of x without its drift, exactly

        M(τ) = MSD_y(τ) + 2τ/(T(n−τ)) [Σ_{s=T−τ+1}^{T} M(s) − Σ_{s=0}^{τ−1} M(s)] − (τ/T)² M(T).

    Beyond the anchors ℓ₁, ℓ₂ of `straight_anchors` M is taken as straight, a + g s, which free motion is beyond its
    memory and confined motion beyond its relaxation; in the second sum M is MSD_y(s) + g s²/T − a (s/T)². What is left
    are two linear equations for a and g. (For Brownian motion a = 0 and M = MSD_y/(1 − τ/T): physics.md, V8.)

    Args:
        lags: of shape (...), at most n/2.

    Returns:
        Of M(τ) = MSD_y(τ) + w₁ MSD_y(ℓ₁) + w₂ MSD_y(ℓ₂) − Σ c Σ_{s<·} MSD_y(s): the weights w (..., 2), and the
        factors c (..., 3) of the sums up to τ, ℓ₁ and ℓ₂.
    """
    total, anchors = n - 1, straight_anchors(n)

    def terms(lag: NDArray[np.int64]) -> tuple[Floats, Floats]:
        tau = lag.astype(float)
        squares = (tau - 1) * tau * (2 * tau - 1) / 6
        outer = 2 * tau / (total * (n - tau))
        constant = outer * (tau + squares / total**2) - (tau / total) ** 2
        slope = outer * (tau * total - tau * (tau - 1) / 2 - squares / total) - tau**2 / total
        return np.stack([constant, slope], axis=-1), outer

    of_anchors, outer_anchors = terms(anchors)
    line = np.linalg.inv(np.stack([np.ones(2), anchors], axis=-1) - of_anchors)
    added, outer = terms(lags)
    weights = added @ line
    return weights, np.concatenate([outer[..., None], weights * outer_anchors], axis=-1)


def drift_free_displacements(positions: Floats, lags: NDArray[np.int64]) -> Floats:
    """Mean squared displacement without its drift, summed over coordinates; see `drift_free_terms`.

    Args:
        positions: (coordinate, N). lags: of any shape, at most N/2.

    Returns:
        Of the shape of `lags`.
    """
    n = positions.shape[-1]
    anchors = straight_anchors(n)
    straight = mean_squared_displacement(without_line(positions))
    weights, factors = drift_free_terms(lags, n)
    sums = np.concatenate([[0.0], np.cumsum(straight[: n // 2])])
    of_anchors = weights @ straight[anchors] - factors[..., 1:] @ sums[anchors]
    return straight[lags] + of_anchors - factors[..., 0] * sums[lags]


def without_line(positions: Floats) -> Floats:
    """Positions (..., N) less the straight line from start to end."""
    line = np.linspace(0, 1, positions.shape[-1])
    return positions - (positions[..., -1:] - positions[..., :1]) * line


def two_time_displacements(
    positions: Floats, waiting_times: NDArray[np.int64], lags: NDArray[np.int64], width: int
) -> Floats:
    """‖x(t_w+τ) − x(t_w)‖² averaged over the origins t_w … t_w + width, summed over coordinates.

    Args:
        positions: (coordinate, N).

    Returns:
        (waiting time, lag); NaN where t_w + τ is past the end.
    """
    return np.stack(
        [mean_squared_displacement_at(positions, lags, start, start + width) for start in waiting_times.tolist()]
    )


def echo_of_ends(mean: Floats, doubled: Floats) -> Floats:
    """Correlation of a displacement with the next one: MSD(2τ)/(2 MSD(τ)) − 1, between −½ and 0.

    Displacements of origins τ apart share an end point, and where motion is confined nothing else: −½. Where it is free
    they share nothing, and where it is ballistic the window of the Γ-method holds what they share.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.clip(doubled / (2 * mean) - 1, -0.5, 0.0))


def displacement_and_error(squares: Floats, lag: int, echo: float, memory: int) -> tuple[Floats, Floats, Floats]:
    """Mean squared displacement, its error and effective samples.

    Args:
        squares: (N,) a row of `squared_displacements`, whose last `lag` are missing. echo: from `echo_of_ends`.
        memory: as in `mean_and_error`.
    """
    mean, error, n_eff = mean_and_error(squares[: len(squares) - lag], memory=memory, echo=echo)
    return mean, widen_for_skewness(mean, error), n_eff


def drift_free_error(
    straight: Floats, factors: Floats, lags: NDArray[np.int64], row: int, memory: int, echo: float | None
) -> tuple[float, float]:
    """Error and effective samples of a sum of drift-free displacements at several lags.

    What it fluctuates by is taken origin by origin, over those that have all of the lags, so that what the lags share
    is in it; a sum that has more origins is known better by the root of their number.

    Args:
        straight: (L, N) from `squared_displacements` of positions without their line.
        factors: (L,) of the drift-free MSD at each lag in the sum.
        lags: (L,) of both, the two of `straight_anchors` among them.
        row: which of the lags tells how many origins the sum has. memory: as in `mean_and_error`.
        echo: of that lag, from `echo_of_ends`; None for sums in which the lags cancel, as in `cancelling_error`.
    """
    n = straight.shape[-1]
    factors = factors.copy()
    factors[np.searchsorted(lags, straight_anchors(n))] += factors @ drift_free_terms(lags, n)[0]
    common = n - int(lags.max())
    # Most sums are of a few lags.
    used = np.flatnonzero(factors)
    fluctuation = factors[used] @ straight[used, :common]
    if echo is None:
        error, n_eff = cancelling_error(fluctuation, memory)
    else:
        _, error, n_eff = mean_and_error(fluctuation, memory=memory, echo=echo)
    return float(error * np.sqrt(common / (n - lags[row]))), float(n_eff)


def slope_and_error(both: Floats, products: Floats, lag: int, memory: int) -> tuple[float, float, float]:
    """M(2ℓ) − M(ℓ) with its error and effective samples.

    Args:
        both: (2,) M(ℓ) and M(2ℓ) from `drift_free_displacements`.
        products: (N − 3ℓ,) from `slope_products` of positions without their line. memory: as in `mean_and_error`.
    """
    value = both[1] - both[0]
    error, samples = returning_error(products, lag, memory)
    # The difference has the origins of 2ℓ, the products those of 3ℓ.
    error *= np.sqrt(len(products) / (len(products) + lag))
    # In confined motion the difference is small, and no more skew than what it is of.
    scale = max(value, both[1] / 2)
    return float(value), float(widen_for_skewness(np.array(scale), np.array(error))), samples


def averaged_variance(collective: Floats, lags: NDArray[np.int64], width: int) -> Floats:
    """What is left of the variance of one displacement in the mean over `width` successive origins, at each lag.

    (1/W) Σ_{|s|<W} (1 − |s|/W) ρ(s) with the autocorrelation ρ of the squared displacement, summed as far as it is
    known to differ from 0 (Wolff's window); 1 where the displacements of all origins are one and the same.

    Args:
        collective: (L, N) from `squared_displacements`.

    Returns:
        (L,), between 1/W and 1.
    """
    n = collective.shape[-1]
    left = np.ones(len(lags))
    for i, lag in enumerate(lags):
        covariance, _, window = autocovariance_and_cut(collective[i, : n - lag])
        if not covariance[0] > 0:
            continue
        known = np.arange(1, min(width, int(window) + 1, n - lag))
        shared = np.sum((1 - known / width) * covariance[known] / covariance[0])
        left[i] = np.clip((1 + 2 * shared) / width, 1 / width, 1.0)
    return left


@np.errstate(invalid="ignore", divide="ignore")
def local_exponents(means: Floats, relative: Floats, lags: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """d ln M/d ln τ at each lag, from its neighbours on either side; NaN at the ends, and where a mean is not positive.

    Args:
        means: (L,) M at the lags. relative: (L,) its relative errors r; ln of a mean is low by r²/2, which is added.

    Returns:
        Exponents (L,) and their derivatives (L, L) by `means`.
    """
    count = len(lags)
    exponent, derivatives = np.full(count, np.nan), np.zeros((count, count))
    means = np.where(means > 0, means, np.nan)
    logarithm = np.log(means) + np.minimum(relative, 0.5) ** 2 / 2
    for i in range(1, count - 1):
        span = np.log(lags[i + 1] / lags[i - 1])
        exponent[i] = (logarithm[i + 1] - logarithm[i - 1]) / span
        derivatives[i, i + 1], derivatives[i, i - 1] = 1 / (means[i + 1] * span), -1 / (means[i - 1] * span)
    return exponent, derivatives
