"""Kernels on plain arrays with time on the last axis: autocovariance, integrated time, means with error bars.

Error bars follow Wolff's Γ-method (Wolff 2004, hep-lat/0306017): the variance of a mean is 2τ_int Γ(0)/N with the sum
of autocovariances cut where statistical and systematic error balance (parameter S = 1.5), corrected for the bias of
the sample mean. The integrated time is τ_int = ½ + Σ ρ(t) (½ for white noise; some tools return twice this), and
N/(2τ_int) samples are effectively independent. Cut at lag W, that variance is itself known to a relative √(2(2W+1)/N)
(Wolff's eq. 42), as one of N/(2W+1) degrees of freedom; standard errors are widened to Student's t with as many, so
that value ± 1.96·stderr covers 95 %: measured 93–97 % for N ≥ 40 τ_int, at least 90 % at ten.

The automatic window misses what is small but long, such as the squares of a slow part beside those of white noise, and
what comes back. Where physics tells of either it is said: `memory` is a number of lags that are known to be correlated,
`echo` the correlation of values a lag apart that lies beyond the window.
"""

from functools import reduce
from typing import cast

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.fft import next_fast_len

Floats = NDArray[np.float64]
WINDOW = 1.5
NORMAL = 1.959963984540054
"""standard errors in half a 95 % interval"""
_SHORTEST = 0.02
"""least τ_int that is reported for anti-correlated series"""
_BLOCKS = 8
"""of the jackknife that takes the bias off a ratio of means"""
_ROWS = 8
"""series that are Fourier transformed at a time where their spectra are summed: of more the spectra would be large"""
_TILE = 1024
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
    if trace and series.shape[-2] > _ROWS:
        starts = range(0, series.shape[-2], _ROWS)
        parts = (autocovariance(series[..., start : start + _ROWS, :], longest, trace=True) for start in starts)
        return reduce(np.add, parts)
    mean = series.mean(-1, keepdims=True)
    last = n - 1 if longest is None else min(longest, n - 1)
    size = _fast_length(max(8 * last, 4 * _TILE))
    if 2 * size > n:
        size = _fast_length(n + last)
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


def _fast_length(least: int) -> int:
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


def dimensions_of_squares(squares: Floats, most: int) -> float:
    """Of how many independent normal coordinates of equal size a sum of squares (N,) could be, 1 to `most`.

    d = 2⟨S⟩²/Var S, as S/⟨S⟩ then is χ²/d: what coordinates share, or one has more of than others, makes it less.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 2 * squares.mean() ** 2 / squares.var()
    return float(np.clip(np.nan_to_num(found, nan=1.0), 1.0, most))


def _cut_sum(
    covariance: Floats, n: int, oscillating: bool = False, dimensions: float = 1.0
) -> tuple[Floats, NDArray[np.int64]]:
    """τ_int of n samples and the lag W where its sum was cut, at the last if not before; both of shape (...)."""
    flat = covariance.reshape(-1, covariance.shape[-1])
    variance = flat[:, :1]
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = np.where(variance > 0, flat / variance, 0.0)
        after = rho[:, 1 : max(2, n // 2)]
        cumulative = 0.5 + np.cumsum(after, axis=1)
        lags = np.arange(1, cumulative.shape[1] + 1)
        total = 0.5 + np.cumsum(np.abs(after), axis=1) if oscillating else cumulative
        above = np.maximum(total, 0.5 + 1e-12)
        decay = WINDOW / np.log((2 * above + 1) / (2 * above - 1))
        balance = np.exp(-lags / decay) - decay / np.sqrt(lags * n * dimensions)
    crossed = balance < 0
    index = np.where(crossed.any(1), crossed.argmax(1), crossed.shape[1] - 1)
    window = lags[index]
    tau = np.maximum(cumulative[np.arange(len(flat)), index] * (1 + (2 * window + 1) / n), _SHORTEST)
    tau = np.where(np.isnan(variance[:, 0]), np.nan, np.where(variance[:, 0] > 0, tau, 0.5))
    shape = covariance.shape[:-1]
    return tau.reshape(shape), window.reshape(shape)


def _autocovariance_and_cut(series: Floats, memory: int = 0) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Γ of series as far as it is needed, at least up to a number of lags, with what `_cut_sum` finds in it.

    Most sums are cut early: where all are within N/64, what lies beyond is not worked out.
    """
    n = series.shape[-1]
    reach = n // 64
    if n >= 16 * _TILE and memory <= reach:
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
def mean_and_error(series: Floats, *, memory: int = 0, echo: Floats | float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Mean of each series (..., N), its standard error (Student-widened) and the number of effective samples.

    The error is NaN for fewer than four samples and where a value is not finite; a constant series has error 0.
    Anti-correlated series get the error of independent samples, which is too large for them rather than too small.

    Args:
        memory: lags that are known to be correlated: if the sum up to there, at most N/16, is the larger, it counts.
        echo: κ, of shape (...), if what the series squares is correlated once more around some lag beyond the window,
            by κ: the sum of the autocorrelations of the squares is repeated there on both sides, times κ².
    """
    series = np.asarray(series, dtype=np.float64)
    n = series.shape[-1]
    if n == 0:
        empty = np.full(series.shape[:-1], np.nan)
        return empty, empty.copy(), np.zeros(series.shape[:-1])
    mean = series.mean(-1)
    if n < 4:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, float(n))
    memory = min(memory, n // 16)
    covariance, tau, window = _autocovariance_and_cut(series, memory)
    if memory:
        longer = np.maximum(window, memory)
        tau, window = np.fmax(tau, _sum_to(covariance, n, longer)), longer
    repeated = 1 + 2 * np.square(echo)
    tau, window = tau * repeated, window * repeated
    # Where fluctuations cancel, their sum is all estimation error: never count more samples than there are.
    n_eff = n / (2 * np.maximum(tau, 0.5))
    variance = np.maximum(covariance[..., 0], 0.0) * (1 + 1 / n_eff)
    student = stats.t.ppf(0.975, np.maximum(n / (2 * window + 1), 1.0)) / NORMAL
    return mean, np.sqrt(variance / n_eff) * student, n_eff


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
    covariance, _, window = _autocovariance_and_cut(series, memory)
    width = min(2 * max(int(window), memory) + 1, n)
    if width > len(covariance):  # twice the window is farther than was worked out
        covariance = autocovariance(series, width - 1)
    weights = 1 - np.arange(1, width) / width
    # The mean that was taken off hides as much as a sum over the width holds.
    variance = np.maximum(covariance[0] + 2 * weights @ covariance[1:width], 0.0) * (1 + width / n)
    if not np.isfinite(variance):
        return np.nan, np.nan
    student = stats.t.ppf(0.975, max(1.5 * n / width, 1.0)) / NORMAL
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
    covariance, _, cut = _autocovariance_and_cut(series, memory)
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
    student = stats.t.ppf(0.975, max(n / summed, 1.0)) / NORMAL
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
            above = stats.chi2.sf(np.where(middle < 1, freedom / np.maximum(1 - middle, 0.0), np.inf), freedom)
        missed = above + stats.chi2.cdf(freedom / (1 + middle), freedom)
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
    covariance, tau, window = _autocovariance_and_cut(walk)
    # A line taken off hides as much of the memory as the mean does, which is corrected for already.
    n_eff = (n + 1) / (2 * np.maximum(tau * (1 + (2 * window + 1) / n), 0.5))
    # Both take an effective sample each. Of the rest, skew ones tell less of their variance than normal ones.
    free = np.maximum(n_eff - 2, 1.0)
    variance = np.maximum(covariance[..., 0], 0.0)
    kurtosis = np.maximum(np.nan_to_num(np.mean(walk**4, axis=-1) / variance**2, nan=3.0), 3.0)
    # A centred motion is farther from its mean at the ends than in the middle, in variance by 2/n_eff once more.
    deviation = np.sqrt(variance) * n_eff / free
    student = stats.t.ppf(0.975, np.maximum(2 * free / (kurtosis - 1), 1.0)) / NORMAL
    ends = np.sqrt(2) * deviation * student / (n * np.abs(bottom))
    return ratio, np.hypot(ends, (ratio - 1) * bottom_error / bottom), n_eff


def log_lags(longest: int, per_decade: int) -> NDArray[np.int64]:
    """Whole lags from 1 to `longest`, about `per_decade` in each factor of ten."""
    count = max(2, int(np.ceil(np.log10(max(longest, 2)) * per_decade)) + 1)
    return np.unique(np.round(np.geomspace(1, max(longest, 1), count)).astype(np.int64))


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
    size = _fast_length(2 * n - 1)
    power, squares = np.zeros(size // 2 + 1), np.zeros(n)
    for start in range(0, len(positions), _ROWS):
        part = positions[start : start + _ROWS]
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
        for begin in range(start, stop, _TILE):
            end = min(begin + _TILE, stop)
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


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def lagged_products(positions, lags):
    """x(t)·x(t+τ) of every origin, summed over coordinates; NaN where t+τ is past the end. Shapes as above."""
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


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def response_products(positions, gradient, noise, probe, origins, lags):
    """Eight products of every origin s with what is a lag later, t = s+τ, summed over coordinates.

    With D = x(t) − x(s), in this order:

        −D·ξ(s)                                                  response
        −Σ_{u≤τ} (x(s+u) − x(s))·ξ(s)                            its sum
        [‖x(t) − x(s)‖² + ‖x(t+1) − x(s)‖² − ‖x(s+1) − x(s)‖²]/2   displacement that the sum is held against
        x(t)·(x(t) + x(t−1))/2,   x(t)·(x(s) + x(s−1))/2             correlation at lag 0 and at τ
        D·(g′(s) + g(t))                                         asymmetry
        [‖x(t+1) − x(s)‖² − ‖x(t−1) − x(s)‖²]/2,   D·(ξ(s) + g′(s) + g(t))    both sides of its identity

    Args:
        positions, gradient: (coordinate, N), positions centred so that their running sum keeps its digits.
        noise, probe: ξ and g′ of each origin (coordinate, M). origins: (M,) ascending. lags: (L,).

    Returns:
        (8, L, M), NaN where s−1 or t+1 is outside.
    """
    count, n = positions.shape
    out = np.zeros((8, lags.size, origins.size))
    total = np.zeros(n)
    for c in range(count):
        x = positions[c]
        running = np.float64(0.0)
        for t in range(n):
            running += x[t]
            total[t] = running
        for i in range(lags.size):
            lag = lags[i]
            for m in range(origins.size):
                s = origins[m]
                t = s + lag
                if s < 1 or t + 1 >= n:
                    continue
                xi, other = np.float64(noise[c, m]), np.float64(probe[c, m])
                moved, next_moved = x[t] - x[s], x[t + 1] - x[s]
                first, before = x[s + 1] - x[s], x[t - 1] - x[s]
                out[0, i, m] -= moved * xi
                out[1, i, m] -= (total[t] - total[s] - lag * x[s]) * xi
                out[2, i, m] += (moved * moved + next_moved * next_moved - first * first) / 2
                out[3, i, m] += x[t] * (x[t] + x[t - 1]) / 2
                out[4, i, m] += x[t] * (x[s] + x[s - 1]) / 2
                out[5, i, m] += moved * (other + gradient[c, t])
                out[6, i, m] += (next_moved * next_moved - before * before) / 2
                out[7, i, m] += moved * (xi + other + gradient[c, t])
    for i in range(lags.size):
        for m in range(origins.size):
            if origins[m] < 1 or origins[m] + lags[i] + 1 >= n:
                out[:, i, m] = np.nan
    return out


def ratios_of_origins(
    numerator: Floats, denominator: Floats, counts: NDArray[np.int64], memory: int
) -> tuple[Floats, Floats, Floats]:
    """Ratios of means over the first `counts` origins of each lag, with errors and effective samples.

    A ratio of means is off by what its denominator fluctuates; the jackknife over blocks of origins takes that off.

    Args:
        numerator, denominator: (..., L, M). counts: (L,). memory: in origins, as in `mean_and_error`.

    Returns:
        (..., L) each; NaN where a lag has no origin.
    """
    value, error, n_eff = np.full((3, *numerator.shape[:-1]), np.nan)
    for i, count in enumerate(counts):
        if not count:
            n_eff[..., i] = 0
            continue
        above, below = numerator[..., i, :count], denominator[..., i, :count]
        value[..., i], error[..., i], n_eff[..., i] = ratio_and_error(above, below, memory=memory)
        if count >= _BLOCKS:
            edges = np.linspace(0, count, _BLOCKS + 1).astype(int)[:-1]
            with np.errstate(invalid="ignore", divide="ignore"):
                top, bottom = (np.add.reduceat(x, edges, axis=-1) for x in (above, below))
                without = (top.sum(-1, keepdims=True) - top) / (bottom.sum(-1, keepdims=True) - bottom)
                share = np.diff(edges, append=count) / count
                value[..., i] = _BLOCKS * value[..., i] - without @ (1 - share)
    return value, error, n_eff


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
        covariance, _, window = _autocovariance_and_cut(collective[i, : n - lag])
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


def effective_dimension(increments: Floats, widths: list[int], exact: list[bool]) -> float:
    """d_eff = (tr C)²/tr C² of successive increments seen through the sketches of one or more groups.

    Neighbours may share an end point, and are then anti-correlated where the motion is confined; all others are taken
    as independent. tr C² is the mean of (x_i·x_j)² over pairs of these, less the sketches' own contribution
    Σ_g (tr C_g)²/k_g (physics.md 1.1: E tr S_P² = tr C²(1+1/k) + (tr C)²/k).

    Args:
        increments: (sample, coordinate), centred; coordinates of the groups one after another.
        widths: k_g, coordinates of each group.
        exact: whether a group's sketch holds every parameter, and so contributes nothing of its own.
    """
    samples = len(increments)
    gram = increments @ increments.T
    trace = np.trace(gram) / samples
    if samples < 3 or not trace > 0:
        return 1.0
    squares = 2 * np.sum(np.triu(gram, 2) ** 2) / ((samples - 1) * (samples - 2))
    groups = np.split(increments, np.cumsum(widths)[:-1], axis=1)
    own = sum(
        np.mean(np.sum(part**2, axis=1)) ** 2 / width
        for part, width, whole in zip(groups, widths, exact, strict=True)
        if not whole
    )
    # More dimensions than samples times coordinates cannot be told apart from none.
    smallest = trace**2 / (samples * increments.shape[1])
    return float(max(trace**2 / max(squares - own, smallest), 1.0))


def products_with_past(
    differences: Floats, gradients: Floats, places: NDArray[np.int64], weights: Floats
) -> tuple[Floats, Floats]:
    """Weighted sums over lags of x(s)·g(s−h), and ½‖x(s)‖², each at its own place s in a series g.

    Args:
        differences: x of shape (coordinate, n). gradients: (coordinate, N).
        places: (n,) of each x in the series, at least H. weights: (F, H) at the lags h = 1 … H.

    Returns:
        (F, n) and (n,).
    """
    reach = weights.shape[1]
    # Lags grow as time goes back.
    weights = np.ascontiguousarray(weights[:, ::-1].T, dtype=np.float64)
    sums = np.empty((weights.shape[1], len(places)))
    for column, (place, x) in enumerate(zip(places, np.asarray(differences.T, dtype=np.float64), strict=True)):
        sums[:, column] = (x @ gradients[:, place - reach : place]) @ weights
    return sums, np.sum(np.asarray(differences, dtype=np.float64) ** 2, axis=0) / 2


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def inverse_dimension(samples: Floats, sizes: Floats) -> tuple[Floats, Floats, Floats]:
    """1/d_eff = tr C²/(tr C)² of independent samples with mean 0, seen through sketches, of all groups and of each.

    Over pairs of different samples U₁ and U₂ are the means of ‖x_i‖²‖x_j‖² and (x_i·x_j)². A sketch with
    w = 1/k − 1/P makes of a = (tr C)² and b = tr C² on average U₁ = a + 2wb and U₂ = (1+w)b + wa; this is solved for
    b/a. For all groups together each has its own a and b, and between two groups the sketches add nothing.

    The error is that of the samples, which may be correlated in size, and that of the sketch's coordinates, each from
    the first-order influence of every coordinate in every sample, and in squares; what single cells scatter by is in
    both, and counts once (Owen 2007). What belongs to single pairs counts twice, which the few samples and the skewness
    of such products make up for: without it 40 samples cover 91 % instead of 94 %.

    Args:
        samples: (group, coordinate, N). sizes: (group,) parameters P of each.

    Returns:
        1/d_eff, its error and the number of effective samples, each (1 + group,) with that of all groups first; NaN
        where there is no noise, and errors NaN for fewer than four samples.
    """
    width, n = samples.shape[1:]
    x = samples.transpose(0, 2, 1)
    own = np.where(sizes > width, 1 / width - 1 / np.maximum(sizes, 1), 0.0)
    found = [
        _inverse_dimension(part, weight) for part, weight in [(x, own), *zip(x[:, None], own[:, None], strict=True)]
    ]
    value, error, n_eff = (np.array(column) for column in zip(*found, strict=True))
    return value, np.where(n < 4, np.nan, error), n_eff


def _inverse_dimension(x: Floats, own: Floats) -> tuple[float, float, float]:
    """1/d_eff of groups together, its error and effective samples; x (group, N, coordinate), own: w of each group.

    Group by group, in double precision, so that of all groups no more is held than what came.
    """
    n, width = x.shape[1:]
    if n < 2:
        return np.nan, np.nan, n
    # b = (U₂ − wU₁)/e and a = U₁ − 2w(U₂ − wU₁)/e, with e = 1 + w − 2w².
    both = 1 + own - 2 * own**2
    squares = np.stack([np.sum(part.astype(np.float64) ** 2, axis=1) for part in x])
    total, gram = squares.sum(0), np.zeros((n, n))
    top, bottom = np.zeros((n, n)), np.zeros((n, n))
    for index, w in enumerate(own):
        part = x[index].astype(np.float64)
        inner = _without_diagonal(part @ part.T)
        gram += inner
        # Exact sketches add nothing of their own.
        if w:
            extra = (inner**2 - w * np.outer(squares[index], squares[index])) / both[index]
            top += extra - inner**2
            bottom -= 2 * w * extra
    top = _without_diagonal(top + gram**2)
    bottom = _without_diagonal(bottom + np.outer(total, total))
    inverse = np.sum(top) / np.sum(bottom)
    mean = np.sum(bottom) / (n * (n - 1))
    # As many times as there are samples, so that a mean over them is the deviation.
    rows, of_bottom, of_cells, of_sketch, beside = np.zeros(n), np.zeros(n), 0.0, 0.0, 0.0
    rescaled = width / max(width - 1, 1)
    for index, w in enumerate(own):
        part = x[index].astype(np.float64)
        cells, under = part * (gram @ part), part**2 * (np.sum(total) - total)[:, None]
        if w:
            inner = _without_diagonal(part @ part.T)
            others = np.sum(squares[index]) - squares[index]
            of_pairs = inner @ part
            extra = part * (of_pairs - w * others[:, None] * part) / both[index]
            cells += extra - part * of_pairs
            under -= 2 * w * extra
        cells, under = (values * (2 / ((n - 1) * mean)) for values in (cells, under))
        cells -= inverse * under
        rows += cells.sum(1)
        of_bottom += under.sum(1)
        if w:
            column, column_under = (values.mean(0) - values.mean() for values in (cells, under))
            of_sketch += np.sum(column**2) * rescaled
            beside += np.sum(column * column_under) * rescaled
            of_cells += np.sum(cells**2) / n**2
    _, error, n_eff = mean_and_error(rows)
    shared = np.mean(rows * (of_bottom - of_bottom.mean())) / n
    variance = error**2 + max(of_sketch - of_cells, 0.0)
    # To second order a ratio is low by what its fluctuation shares with that of its denominator.
    inverse += shared + beside
    error = widen_for_skewness(np.array(inverse), np.sqrt(np.array(variance)))
    return float(inverse), float(error), float(n_eff)


def _without_diagonal(square: Floats) -> Floats:
    """A square matrix of our own, with zeros on its diagonal."""
    np.fill_diagonal(square, 0.0)
    return square
