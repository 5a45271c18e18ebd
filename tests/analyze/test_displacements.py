"""Displacements against the definition, in digits that large offsets leave, and of degenerate series."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermodl.analyze import displacements


@given(st.integers(1, 3), st.integers(8, 60), st.integers(0, 2**31))
def test_displacements_equal_the_definition(coordinates: int, steps: int, seed: int) -> None:
    """FFT and compiled kernel against the double loop, also for offset 100 and steps of 1e-4."""
    x = 100 + 1e-4 * np.cumsum(np.random.default_rng(seed).standard_normal((coordinates, steps)), axis=-1)
    slow = [np.mean(np.sum((x[:, lag:] - x[:, : steps - lag]) ** 2, axis=0)) for lag in range(1, steps)]
    lags = np.arange(1, steps)
    # 100 has 14 digits after the point in float64; a displacement of 1e-4 keeps ten of its own.
    np.testing.assert_allclose(displacements.mean_squared_displacement(x)[1:], slow, rtol=1e-7)
    collective = displacements.squared_displacements(x, lags)
    np.testing.assert_allclose([np.nanmean(row) for row in collective], slow, rtol=1e-9)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize(("offset", "step"), [(0.0, 1.0), (100.0, 1e-4)])
def test_displacements_at_lags_equal_the_definition(kind: type, offset: float, step: float) -> None:
    """To eleven digits, of more steps than a tile holds, in fours and one by one, in any order, for some origins."""
    rng = np.random.default_rng(11)
    x = (offset + step * np.cumsum(rng.standard_normal((3, 2600)), axis=-1)).astype(kind)
    lags = np.array([1, 2, 3, 7, 30, 31, 100, 900, 1500, 2599, 2600, 5, 0])
    wide = x.astype(np.float64)

    def slow(lag: int, start: int, stop: int) -> float:
        moved = [np.sum((wide[:, t + lag] - wide[:, t]) ** 2) for t in range(start, min(stop, 2600 - lag))]
        return np.mean(moved) if moved else np.nan

    for start, stop in ((0, None), (50, 1700), (2000, 9000)):
        exact = [slow(lag, start, 2600 if stop is None else stop) for lag in lags]
        found = displacements.mean_squared_displacement_at(x, lags, start, stop)
        np.testing.assert_allclose(found, exact, rtol=1e-11)
    # Not contiguous, as a part of a larger array is.
    found = displacements.mean_squared_displacement_at(np.repeat(x, 2, axis=1)[:, ::2], lags)
    np.testing.assert_array_equal(found, displacements.mean_squared_displacement_at(x, lags))
    waiting = np.array([0, 50, 2590])
    found = displacements.two_time_displacements(x, waiting, lags, 40)
    np.testing.assert_allclose(found, [[slow(lag, t, t + 40) for lag in lags] for t in waiting], rtol=1e-11)


def test_displacements_at_lags_of_degenerate_series() -> None:
    """Constant: 0. Two points: one displacement. One NaN: NaN at every lag that meets it. No coordinates: 0."""
    lags = np.array([1, 2, 3, 4, 5])
    found = displacements.mean_squared_displacement_at(np.full((2, 5), 7.0), lags)
    np.testing.assert_array_equal(found, [0, 0, 0, 0, np.nan])
    two = displacements.mean_squared_displacement_at(np.array([[1.0, 4.0], [0.0, 1.0]]), lags)
    np.testing.assert_array_equal(two, [10, np.nan, np.nan, np.nan, np.nan])
    broken = np.random.default_rng(0).standard_normal((2, 50))
    broken[1, 0] = np.nan
    assert np.isnan(displacements.mean_squared_displacement_at(broken, lags)).all()
    assert np.isfinite(displacements.mean_squared_displacement_at(broken, lags, 1)).all()
    np.testing.assert_array_equal(displacements.mean_squared_displacement_at(np.empty((0, 50)), lags), np.zeros(5))


def test_slope_products_have_the_mean_of_a_difference_of_displacements() -> None:
    """Of a closed motion, over whose every origin they are taken: MSD(2ℓ) − MSD(ℓ) to rounding."""
    period, lag = 50, 7
    x = np.random.default_rng(18).standard_normal((3, period))
    # Copies at its ends make of N − 3ℓ origins the whole period.
    products = displacements.slope_products(np.concatenate([x, x[:, : 3 * lag]], axis=1), lag)
    once, twice = (np.sum((np.roll(x, -by, axis=1) - x) ** 2) / period for by in (lag, 2 * lag))
    assert products.shape == (period,)
    assert products.mean() == pytest.approx(twice - once, rel=1e-12)


@pytest.mark.parametrize("intercept", [0.0, 0.7, -0.4])
def test_drift_free_displacements_of_straight_ones_are_exact(intercept: float) -> None:
    """M = a + g τ from what a line leaves of it, by the sum over origins written out."""
    steps, slope = 120, 0.3
    total = steps - 1
    lag = np.arange(steps)
    exact = np.where(lag > 0, intercept + slope * lag, 0.0)

    def left(tau: int) -> float:
        origins = np.arange(steps - tau)
        # 2⟨(x(t+τ) − x(t))·(x(T) − x(0))⟩ of increments that are stationary.
        shared = exact[total - origins] + exact[origins + tau] - exact[total - origins - tau] - exact[origins]
        return exact[tau] - tau / total * np.mean(shared) + (tau / total) ** 2 * exact[total]

    straight = np.array([left(tau) for tau in range(steps // 2 + 1)])
    lags, anchors = np.array([1, 2, 7, 15, 30, 60]), displacements.straight_anchors(steps)
    weights, factors = displacements.drift_free_terms(lags, steps)
    sums = np.concatenate([[0.0], np.cumsum(straight)])
    found = straight[lags] + weights @ straight[anchors]
    found -= factors[:, 0] * sums[lags] + factors[:, 1:] @ sums[anchors]
    # In the inner sum the motion is taken as left by the line at its first order.
    np.testing.assert_allclose(found, exact[lags], rtol=0.01)
