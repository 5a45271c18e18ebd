"""Time series as plain arrays with time on the last axis: autocovariance, integrated time, means with error bars.

Error bars follow Wolff's Γ-method (Wolff 2004, hep-lat/0306017): the variance of a mean is 2τ_int Γ(0)/N with the sum
of autocovariances cut where statistical and systematic error balance (parameter S = 1.5), corrected for the bias of
the sample mean. The integrated time is τ_int = ½ + Σ ρ(t) (½ for white noise; some tools return twice this), and
N/(2τ_int) samples are effectively independent. Cut at lag W, that variance is itself known to a relative √(2(2W+1)/N)
(Wolff's eq. 42), as one of N/(2W+1) degrees of freedom; standard errors are widened to Student's t with as many, so
that value ± 1.96·stderr covers 95 %: measured 93–97 % for N ≥ 40 τ_int, at least 90 % at ten.

The automatic window misses what is small but long, such as the squares of a slow part beside those of white noise, and
what comes back. Where physics tells of either it is said: `memory` is a number of lags that are known to be correlated,
`echo` the correlation of values a lag apart that lies beyond the window, `shape` what a mean follows in time by itself.
"""

from functools import reduce
from typing import cast

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.fft import next_fast_len

Floats = NDArray[np.float64]
WINDOW = 1.5
NORMAL = 1.959963984540054
"""standard errors in half a 95 % interval"""
_SHORTEST = 0.02
"""least τ_int that is reported for anti-correlated series"""
ROWS = 8
"""series that are Fourier transformed at a time where their spectra are summed: of more the spectra would be large"""
TILE = 1024
"""origins of which all lags are taken in turn: few enough that the nearest cache holds them"""


def autocovariance(series: Floats, longest: int | None = None, *, trace: bool = False) -> Floats:
    """Γ(t) of each series, centred by the sample mean and normalized by N, by FFT.

    Up to a lag W ≪ N the series is cut into blocks, and each correlated with itself and the W values that follow it:
    N log W operations on pieces that the cache holds, and the same digits.

    Args:
        series: (..., N). longest: the last lag that is wanted; all N by default.
        trace: summed over the axis before the last, (..., coordinate, N), so that one transform goes back for all.

    Returns:
        (..., N), or (..., W + 1) with a longest lag W < N.
    """
    n = series.shape[-1]
    if trace and series.shape[-2] > ROWS:
        starts = range(0, series.shape[-2], ROWS)
        parts = (autocovariance(series[..., start : start + ROWS, :], longest, trace=True) for start in starts)
        return reduce(np.add, parts)
    mean = series.mean(-1, keepdims=True)
    last = n - 1 if longest is None else min(longest, n - 1)
    size = fast_length(max(8 * last, 4 * TILE))
    if 2 * size > n:
        size = fast_length(n + last)
        spectrum = np.fft.rfft(series - mean, size)
        power = spectrum.real**2 + spectrum.imag**2
    else:
        power = 0.0
        for start in range(0, n, size - last):
            block = series[..., start : start + size] - mean
            early = np.fft.rfft(block[..., : size - last], size)
            power = power + early.conj() * np.fft.rfft(block, size)
    if trace:
        power = np.sum(power, axis=-2)
    return np.fft.irfft(power, size)[..., : last + 1] / n


def fast_length(least: int) -> int:
    """Of a real Fourier transform of at least so many values."""
    return cast(int, next_fast_len(least, real=True))


def integrated_time(covariance: Floats, *, oscillating: bool = False, dimensions: float = 1.0) -> tuple[Floats, Floats]:
    """τ_int of an autocovariance and its standard error (Wolff 2004, eqs. 35, 42, 49–52).

    Args:
        covariance: (..., N) from `autocovariance`, possibly summed over series.
        oscillating: take the decay for the window from the envelope Σ|ρ|, since where ρ changes its sign the plain
            sum would end the window too early. Not for errors of means: a longer window is a noisier sum.
        dimensions: how many independent series of equal memory and size the sum is worth, from `dimensions_of_squares`.

    Returns:
        τ_int and its error, both of shape (...); ½ for constant series, below ½ for anti-correlated ones.

    Where τ_int comes out low so does Wolff's error, as τ_int^{3/2}, so that it is widened as that of a square; and to
    second order the memory that the mean hides is not known. Where the correlation decays, value ± 1.96·error then
    covers 92–98 % from N = 40 τ_int on, for a single series as for the sum of 64, and 83–95 % at ten. Where it swings
    it covers 91–98 % for sums of sixteen, and nearly always for a single series, whose correlations are too noisy to
    tell.
    """
    n = covariance.shape[-1]
    tau, window = _cut_sum(covariance, n, oscillating, dimensions)
    rows = zip(covariance.reshape(-1, n), tau.flat, window.ravel().tolist(), strict=True)
    swinging = np.array([_deviation_of_sum(*row) for row in rows]).reshape(tau.shape)
    decaying = tau * np.sqrt(np.maximum(4 * (window + 0.5 - tau), 0.0))
    error = np.fmax(swinging, decaying) / np.sqrt(n * dimensions)
    # The mean that is taken off hides a part (2W + 1)/N of the memory, which is added, and to second order more.
    return tau, np.hypot(widen_for_skewness(tau, error), tau * ((2 * window + 1) / n) ** 2)


def _deviation_of_sum(covariance: Floats, tau: float, window: int) -> float:
    """√N times the standard deviation of τ_int cut at W, √(2 Σ_k c_k²), c_k = ½ Σ_{|t|≤W} ρ(k−t) − τρ(k).

    This is Bartlett's covariance of the ρ(t) (1946), summed over both and with ρ up to W. Where ρ keeps its sign
    Wolff's τ√(4(W + ½ − τ)) is close to it; where ρ sums to little because it swings, that is far too small.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = covariance[: window + 1] / covariance[0]
    both = np.concatenate([np.zeros(window), rho[:0:-1], rho, np.zeros(window)])
    sums = np.concatenate([[0.0], np.cumsum(np.pad(both, window))])
    means = (sums[2 * window + 1 :] - sums[: -2 * window - 1]) / 2
    return float(np.sqrt(2 * np.sum((means - tau * both) ** 2)))


def _cut_sum(
    covariance: Floats, n: int, oscillating: bool = False, dimensions: float = 1.0
) -> tuple[Floats, NDArray[np.int64]]:
    """τ_int of n samples and the lag W where its sum was cut, at the last if not before; both of shape (...)."""
    shape = covariance.shape[:-1]
    tau, window = _cut_sums(covariance.reshape(-1, covariance.shape[-1]), n, oscillating, dimensions)
    return tau.reshape(shape), window.reshape(shape)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _cut_sums(covariance, n, oscillating, dimensions):
    """`_cut_sum` of rows (k, N), each followed no further than it takes."""
    count, last = covariance.shape[0], min(covariance.shape[1] - 1, max(1, n // 2 - 1))
    tau, window = np.empty(count), np.empty(count, np.int64)
    for k in range(count):
        variance = covariance[k, 0]
        known = variance > 0
        # Where there is no variance every correlation is 0, and that cuts at once.
        total = envelope = 0.5
        lag = 0
        while lag < last:
            lag += 1
            rho = covariance[k, lag] / variance if known else 0.0
            total += rho
            envelope += abs(rho)
            above = max(envelope if oscillating else total, 0.5 + 1e-12)
            decay = WINDOW / np.log((2 * above + 1) / (2 * above - 1))
            if np.exp(-lag / decay) < decay / np.sqrt(lag * n * dimensions):
                break
        window[k] = lag
        tau[k] = max(total * (1 + (2 * lag + 1) / n), _SHORTEST) if known else np.nan if np.isnan(variance) else 0.5
    return tau, window


def autocovariance_and_cut(series: Floats, memory: int = 0) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Γ of series as far as it is needed, at least up to a number of lags, with what `_cut_sum` finds in it.

    Most sums are cut early: where all are within N/64, what lies beyond is not worked out.
    """
    n = series.shape[-1]
    reach = n // 64
    if n >= 16 * TILE and memory <= reach:
        covariance = autocovariance(series, reach)
        tau, window = _cut_sum(covariance, n)
        if np.all(window < reach):
            return covariance, tau, window
    covariance = autocovariance(series)
    return covariance, *_cut_sum(covariance, n)


def _sum_to(covariance: Floats, n: int, window: NDArray[np.int64]) -> Floats:
    """τ_int of n samples with the sum cut at a given lag, both of shape (...); NaN for constant series."""
    with np.errstate(invalid="ignore", divide="ignore"):
        cumulative = np.cumsum(covariance, axis=-1) / covariance[..., :1] - 0.5
    cut = np.take_along_axis(cumulative, window[..., None], axis=-1)[..., 0]
    return cut * (1 + (2 * window + 1) / n)


@np.errstate(invalid="ignore", over="ignore")
def mean_and_error(
    series: Floats, shape: Floats | None = None, *, memory: int = 0, echo: Floats | float = 0.0, per_step: float = 1.0
) -> tuple[Floats, Floats, Floats]:
    """Mean of each series (..., N), its standard error (Student-widened) and the number of effective samples.

    The error is NaN for fewer than four samples and where a value is not finite; a constant series has error 0.
    Anti-correlated series get the error of independent samples, which is too large for them rather than too small.

    Args:
        shape: (..., N), what the expectation follows up to a factor, such as the learning rate of a schedule. What
            strays from it is error, and what it makes of the mean is not.
        memory: lags that are known to be correlated: if the sum up to there, at most N/16, is the larger, it counts.
        echo: κ, of shape (...), if what the series squares is correlated once more around some lag beyond the window,
            by κ: the sum of the autocorrelations of the squares is repeated there on both sides, times κ².
        per_step: effective samples that a step holds at most.
    """
    series = np.asarray(series, dtype=np.float64)
    n = series.shape[-1]
    if n == 0:
        empty = np.full(series.shape[:-1], np.nan)
        return empty, empty.copy(), np.zeros(series.shape[:-1])
    mean = series.mean(-1)
    if n < 4:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, float(n))
    memory, used = min(memory, n // 16), float(n)
    if shape is not None and np.any(shape != shape[..., :1]):
        level = shape.mean(-1, keepdims=True)
        series = series - shape * np.where(level != 0, mean[..., None] / level, 0.0)
        # Where the shape is small there is little to know from, as if there were fewer samples (Kish 1965).
        used = n * np.nan_to_num(level[..., 0] ** 2 / np.mean(shape**2, axis=-1), nan=1.0)
    covariance, tau, window = autocovariance_and_cut(series, memory)
    if memory:
        longer = np.maximum(window, memory)
        tau, window = np.fmax(tau, _sum_to(covariance, n, longer)), longer
    repeated = 1 + 2 * np.square(echo)
    tau, window = tau * repeated, window * repeated
    # What the level hides is more where fewer samples count.
    tau = tau * (1 + (2 * window + 1) / used) / (1 + (2 * window + 1) / n)
    # Where fluctuations cancel, their sum is all estimation error: never count more samples than there are.
    each = np.minimum(1 / (2 * np.maximum(tau, 0.5)), per_step)
    variance = np.maximum(covariance[..., 0], 0.0) * (1 + 1 / (used * each)) / (n * each)
    freedom = used * np.minimum(1 / (2 * window + 1), per_step)
    student = special.stdtrit(np.maximum(freedom, 1.0), 0.975) / NORMAL
    return mean, np.sqrt(variance) * student, used * each


def cancelling_error(series: Floats, memory: int) -> tuple[float, float]:
    """Standard error of the mean of a series (N,) whose fluctuations cancel, Student-widened, and effective samples.

    A difference of displacements at two lags swings around its mean: what autocorrelations add up to at first, later
    ones take away, and `mean_and_error`, which counts no more than N independent samples, gives up to twice the error.
    Here Γ is summed with weights that fall to 0 at twice the window, so that what cancels counts, and the sum is never
    negative: Σ_{|t|<B} (1 − |t|/B) Γ(t), of 3N/(2B) degrees of freedom (Bartlett 1950; Priestley 1981, table 6.2).

    Args:
        memory: as in `mean_and_error`.
    """
    n = len(series)
    if n < 4:
        return np.nan, float(n)
    memory = min(memory, n // 16)
    covariance, _, window = autocovariance_and_cut(series, memory)
    width = min(2 * max(int(window), memory) + 1, n)
    if width > len(covariance):  # twice the window is farther than was worked out
        covariance = autocovariance(series, width - 1)
    weights = 1 - np.arange(1, width) / width
    # The mean that was taken off hides as much as a sum over the width holds.
    variance = np.maximum(covariance[0] + 2 * weights @ covariance[1:width], 0.0) * (1 + width / n)
    if not np.isfinite(variance):
        return np.nan, np.nan
    student = special.stdtrit(max(1.5 * n / width, 1.0), 0.975) / NORMAL
    n_eff = min(n * covariance[0] / variance, n) if variance > 0 else n
    return float(np.sqrt(variance / n) * student), float(n_eff)


def returning_error(series: Floats, lag: int, memory: int) -> tuple[float, float]:
    """Standard error of the mean of a series (N,) that is correlated at first, and again around `lag` and twice that.

    Γ is summed within the window of 0, ℓ and 2ℓ, on both sides. What lies between is not, since where it is nothing but
    noise it would leave a short series few degrees of freedom; and for the same reason the sum ends at 2ℓ where the
    windows meet, which is a tenth too little for confined motion that relaxes within ℓ.

    Args:
        memory: as in `mean_and_error`.

    Returns:
        The error, Student-widened, and effective samples; the error is NaN for fewer than four samples, and both are
        where a value is not finite.
    """
    n = len(series)
    if n < 4:
        return np.nan, float(n)
    memory = min(memory, n // 16)
    covariance, _, cut = autocovariance_and_cut(series, memory)
    window = max(int(cut), memory)
    last = min(2 * lag + window if 2 * window < lag else max(window, 2 * lag), n - 1)
    if last >= len(covariance):
        covariance = autocovariance(series, last)
    distances = np.abs(np.arange(last + 1) - lag * np.arange(3)[:, None])
    near = np.min(distances, axis=0) <= window
    summed = 2 * int(near.sum()) - 1

    def total(part: Floats) -> float:
        return float((2 * np.sum(part) - covariance[0]) * (1 + (2 * len(part) - 1) / n))

    # What returns adds to the sum: less than without it is noise.
    found = max(total(covariance[: last + 1][near]), total(covariance[: window + 1]), float(covariance[0]))
    if not np.isfinite(found):
        return np.nan, np.nan
    n_eff = n * covariance[0] / found if found > 0 else n
    variance = max(covariance[0], 0.0) * (1 + 1 / n_eff) / n_eff
    student = special.stdtrit(max(n / summed, 1.0), 0.975) / NORMAL
    return float(np.sqrt(variance) * student), float(n_eff)


def widen_for_skewness(mean: Floats, error: Floats) -> Floats:
    """The error of a mean of squares, or of differences of such, from that of a normal one.

    Squares are skew, and where their mean comes out low so does its error: the interval then misses the truth too
    often. With r the relative error, the mean is much like χ² with 2/r² degrees of freedom, for which an error
    larger by 1 + 3r² restores 95 % (within 4 % of the exact factor from 40 degrees on).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        widening = 1 + 3 * np.minimum((error / mean) ** 2, 1.0)
    return error * np.where(np.isfinite(widening), widening, 1.0)


def single_square_error(freedom: Floats) -> Floats:
    """Relative standard error of one sum of squares, as that of a single displacement, from what it is made of.

    Such a sum x is its mean times χ²/d. x(1 ± 1.96 r) covers that mean in 95 % of cases with the r that solves
    P[1/(1+1.96 r) ≤ χ²/d ≤ 1/(1−1.96 r)] = 0.95, the upper bound infinite where 1.96 r ≥ 1. From 100 degrees of freedom
    on that is √(2/d) to 6 %; at ten it is 1.75 times as much.

    Args:
        freedom: d ≥ 1 of each.
    """
    freedom = np.asarray(freedom, dtype=np.float64)
    low, high = np.full(freedom.shape, 1e-8), np.full(freedom.shape, 1e4)
    for _ in range(50):
        middle = np.sqrt(low * high)
        with np.errstate(divide="ignore"):
            above = special.chdtrc(freedom, np.where(middle < 1, freedom / np.maximum(1 - middle, 0.0), np.inf))
        missed = above + special.chdtr(freedom, freedom / (1 + middle))
        low, high = np.where(missed > 0.05, middle, low), np.where(missed > 0.05, high, middle)
    return np.where(np.isnan(freedom), np.nan, np.sqrt(low * high) / NORMAL)


def ratio_and_error(numerator: Floats, denominator: Floats, *, memory: int = 0) -> tuple[Floats, Floats, Floats]:
    """Ratio of means of two simultaneous series (..., N), with the error of their joint fluctuation.

    The ratio's first-order fluctuation is the series (a − R b)/⟨b⟩, whose mean has the error of R (Wolff 2004, eq. 16).
    `memory` is as in `mean_and_error`.
    """
    bottom = denominator.mean(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = numerator.mean(-1) / bottom
        fluctuation = (numerator - ratio[..., None] * denominator) / bottom[..., None]
    _, error, n_eff = mean_and_error(fluctuation, memory=memory)
    return ratio, error, n_eff


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def telescoping_ratio_and_error(left: Floats, right: Floats) -> tuple[Floats, Floats, Floats]:
    """Ratio of means of two series (..., N) whose difference is that of a bounded one, left − right = e(t+1) − e(t).

    The gap of the means is (e(N) − e(0))/N: all that fluctuates in it is the two end points, √2 σ_e/N, which falls as
    1/N and not as 1/√N. σ_e is taken about a straight line, so that a drift of e, which is what the ratio is to
    show, does not widen its own error bar. To this comes the relative error of the denominator, times the gap.

    Returns:
        Ratio, its standard error, and the number of effective samples of e.
    """
    n = left.shape[-1]
    bottom, bottom_error, _ = mean_and_error(right)
    ratio = np.where(bottom > 0, left.mean(-1) / bottom, np.nan)
    walk = np.concatenate([np.zeros((*left.shape[:-1], 1)), np.cumsum(left - right, axis=-1)], axis=-1)
    time = np.arange(n + 1.0) - n / 2
    walk = walk - walk.mean(-1, keepdims=True)
    walk = walk - (walk @ time / (time @ time))[..., None] * time
    covariance, tau, window = autocovariance_and_cut(walk)
    # A line taken off hides as much of the memory as the mean does, which is corrected for already.
    n_eff = (n + 1) / (2 * np.maximum(tau * (1 + (2 * window + 1) / n), 0.5))
    # Both take an effective sample each. Of the rest, skew ones tell less of their variance than normal ones.
    free = np.maximum(n_eff - 2, 1.0)
    variance = np.maximum(covariance[..., 0], 0.0)
    kurtosis = np.maximum(np.nan_to_num(np.mean(walk**4, axis=-1) / variance**2, nan=3.0), 3.0)
    # A centred motion is farther from its mean at the ends than in the middle, in variance by 2/n_eff once more.
    deviation = np.sqrt(variance) * n_eff / free
    student = special.stdtrit(np.maximum(2 * free / (kurtosis - 1), 1.0), 0.975) / NORMAL
    ends = np.sqrt(2) * deviation * student / (n * np.abs(bottom))
    return ratio, np.hypot(ends, (ratio - 1) * bottom_error / bottom), n_eff


def log_lags(longest: int, per_decade: int) -> NDArray[np.int64]:
    """Whole lags from 1 to `longest`, about `per_decade` in each factor of ten."""
    count = max(2, int(np.ceil(np.log10(max(longest, 2)) * per_decade)) + 1)
    return np.unique(np.round(np.geomspace(1, max(longest, 1), count)).astype(np.int64))


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def lagged_products(positions, lags):
    """x(t)·x(t+τ) of every origin, summed over coordinates; NaN where t+τ is past the end.

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
                row[t] += np.float64(late[t]) * np.float64(early[t])
    return out


@np.errstate(invalid="ignore", divide="ignore")
def autocorrelation(
    collective: Floats, lags: NDArray[np.int64], variance_of_mean: float, *, memory: int = 0
) -> tuple[Floats, Floats]:
    """ρ(τ) from products x(t)·x(t+τ) of centred series, with errors.

    Centring by the sample mean lowers every autocovariance by the variance of that mean; it is added back.

    Args:
        collective: (1 + L, N) from `lagged_products` with lag 0 first.
        lags: (L,) without the 0.
        memory: as in `mean_and_error`. The fluctuations of an oscillating motion cancel at first and add up later.
    """
    n = collective.shape[-1]
    zero = collective[0] + variance_of_mean
    rho, error = np.full((2, len(lags)), np.nan)
    for i, lag in enumerate(lags):
        here = collective[i + 1, : n - lag] + variance_of_mean
        # c(0) from all origins, its fluctuation from both ends of each pair.
        bottom = zero.mean()
        rho[i] = here.mean() / bottom
        both = (zero[: n - lag] + zero[lag:]) / 2
        error[i] = mean_and_error((here - rho[i] * both) / bottom, memory=memory)[1]
    return rho, error
