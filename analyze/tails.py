"""Tails of noise: kurtosis, Hill's estimate and the tail index of a stable law, of each coordinate over draws alone.

Of n independent draws x of one coordinate, whose mean is 0 by symmetry,

    kurtosis      ⟨x⁴⟩/⟨x²⟩²                                        3 of normal ones, 3n/(n+2) of n of them
    Hill          1/α = mean of ln(|x|/u) over the tenth beyond u   (Hill 1975)
    tail index    1/α̂ = (⟨ln|Y|⟩ − ⟨ln|x|⟩)/ln K₁,  Y sums of K₁    (Mohammadi, Mohammadpour & Ogata 2015)

Each is taken coordinate by coordinate and then averaged over these, kurtosis as it is and α as 1/α. No scale of one
has a part in it: over pooled coordinates α̂ measures how unlike the scales are, and how they lie in memory (physics.md
1.11: 1.10 of normal noise with log-normal scales, 2.01 of the same sorted by scale). Hill's and α̂ are indices only of
tails that are power laws: α̂ of light but not normal ones is below 2 and rises with K₁, and Hill's of normal ones is a
number that rises with n. Both mean nothing but beside what `gaussian_twin` gives. Errors come from the draws, which
coordinates share, and never from the number of coordinates.
"""

from typing import NamedTuple

import numpy as np

from .series import Floats, mean_and_error

STATISTICS = ("kurtosis", "hill", "index", "index_short")
"""what `tail_statistics` gives: α̂ once of sums of K₁ = √n draws, once of a quarter as many"""
LEAST = 64
"""draws below which there is no tail to speak of"""
_BEYOND = 0.1
"""the part of the draws that Hill's estimate takes"""
_DRIFT_DRAWS, _DRIFT_PARTS = 32, 8
"""least draws of a part, and most parts, in which a twin has a scale of its own"""


class Sums(NamedTuple):
    """Of the four statistics, in the order of `STATISTICS`, over the coordinates of a group."""

    coordinates: int
    values: Floats
    influences: tuple[Floats, ...]
    """what each draw, or block of draws, adds to a value to first order"""


def tail_sums(samples: np.ndarray) -> Sums:
    """The kurtosis and the three 1/α of each coordinate, added up.

    Coordinates that are ever 0 have no logarithm, and are left out.

    Args:
        samples: (coordinate, n), n ≥ `LEAST` draws that are independent of each other.
    """
    longest = int(np.sqrt(samples.shape[1]))
    live = samples[np.all(samples != 0, axis=1)].astype(np.float64)
    if not np.isfinite(live).all():
        live = np.full((1, samples.shape[1]), np.nan)
    # Where numbers are tiny their fourth powers are 0.
    signed = live / np.abs(live).max(axis=1, keepdims=True, initial=0.0)
    x = np.abs(signed)
    found = [_kurtosis(x), _hill(x), _stable(signed, longest), _stable(signed, max(2, longest // 4))]
    values, influences = zip(*found, strict=True)
    return Sums(len(live), np.array(values), influences)


def tail_statistics(*groups: Sums) -> tuple[Floats, Floats]:
    """The mean over all coordinates of one or more groups, with errors from the draws that all of them share.

    Returns:
        Values and errors in the order of `STATISTICS`, (4,) each; NaN without any coordinate, or where a value is not
        finite.
    """
    count = sum(group.coordinates for group in groups)
    values = np.sum([group.values for group in groups], axis=0)
    if not count or not np.isfinite(values).all():
        return np.full(4, np.nan), np.full(4, np.nan)
    influences = (np.sum(parts, axis=0) / count for parts in zip(*(group.influences for group in groups), strict=True))
    return values / count, np.array([mean_and_error(influence)[1] for influence in influences])


def gaussian_twin(samples: Floats, rng: np.random.Generator) -> Floats:
    """Normal draws with the variance of each coordinate, and with the common drift of these over the draws.

    The drift is that of the mean square of all coordinates, each over its own, in at most eight parts of at least 32
    draws; what parts differ by because draws are few is taken off, or the twin would have fatter tails than it should.

    Args:
        samples: (coordinate, n).
    """
    count, n = samples.shape
    square = np.mean(samples**2, axis=1, keepdims=True)
    live = square[:, 0] > 0
    if not live.any():
        return np.zeros_like(samples) * square
    size = np.mean(samples[live] ** 2 / square[live], axis=0)
    parts = np.array_split(size, int(np.clip(n // _DRIFT_DRAWS, 1, _DRIFT_PARTS)))
    mean, error, _ = (np.array(column) for column in zip(*(mean_and_error(part) for part in parts), strict=True))
    spread = np.mean((mean - 1) ** 2)
    kept = np.sqrt(max(1 - np.mean(error**2) / spread, 0.0)) if len(parts) > 1 and spread > 0 else 0.0
    drift = np.repeat(1 + kept * (mean - 1), [len(part) for part in parts])
    return rng.standard_normal((count, n)) * np.sqrt(square * drift)


# Each gives sums over coordinates: of the statistic, and of what every draw adds to it to first order.


def _kurtosis(x: Floats) -> tuple[float, Floats]:
    squares = x**2
    second = squares.mean(1, keepdims=True)
    each = np.mean(squares**2, axis=1, keepdims=True) / second**2
    return float(each.sum()), np.sum(squares**2 / second**2 - 2 * each * squares / second, axis=0)


def _hill(x: Floats) -> tuple[float, Floats]:
    n = x.shape[1]
    beyond = int(_BEYOND * n)
    threshold = np.partition(x, n - beyond - 1, axis=1)[:, n - beyond - 1 : n - beyond]
    excess = np.where(x > threshold, np.log(x / threshold), 0.0)
    inverse = excess.sum(1, keepdims=True) / beyond
    return float(inverse.sum()), np.sum((excess - inverse * (x > threshold)) * (n / beyond), axis=0)


def _stable(signed: Floats, block: int) -> tuple[float, Floats]:
    count, n = signed.shape
    blocks = signed[:, : n // block * block].reshape(count, n // block, block)
    # Numbers of a coarse precision may cancel, or be 0: as small as the smallest that there is.
    sizes = np.abs(signed)
    least = np.min(sizes, axis=1, where=sizes > 0, initial=np.inf)[:, None]
    gained = np.log(np.maximum(np.abs(blocks.sum(2)), least)) - np.log(
        np.maximum(np.abs(blocks), least[..., None])
    ).mean(2)
    of_block = gained.sum(0) / np.log(block)
    return float(of_block.mean()), of_block
