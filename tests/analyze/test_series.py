"""The kernels: bias and coverage against exact processes, fast against slow, and degenerate input."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, stats

from thermodl.analyze import series
from thermodl.analyze.dimensions import dimensions_of_squares
from thermodl.analyze.physics import correlation

import truth

# 2,000 replicates: the binomial spread of a coverage of 0.95 is 0.5 %, so the window 93–97 % is ±4 of it.
REPLICATES = 2000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "correlation_time", "lowest"),
    # N/τ_int of 410, 164, 40, 20 and 10
    [(4096, 10.0, 0.93), (4096, 25.0, 0.93), (1000, 25.0, 0.93), (1000, 50.0, 0.92), (500, 50.0, 0.90)],
)
def test_mean_covers_on_ornstein_uhlenbeck(steps: int, correlation_time: float, lowest: float) -> None:
    """93–97 % from 40 integrated times on; at ten at least 90 %."""
    x = truth.ornstein_uhlenbeck(np.random.default_rng(1), (REPLICATES, steps), correlation_time)
    mean, error, n_eff = series.mean_and_error(x)
    covered = np.mean(np.abs(mean) <= 1.959964 * error)
    expected = steps / (2 * truth.ornstein_uhlenbeck_integrated_time(correlation_time))
    # So short a series hides part of its own memory: the count is then some tens of per cent too high.
    assert np.median(n_eff) == pytest.approx(expected, rel=0.2 if expected > 20 else 0.7)
    assert lowest <= covered <= 0.97
    assert abs(mean.mean()) < 3 * mean.std() / np.sqrt(REPLICATES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phi1", "phi2", "steps"),
    [(1.2, -0.4, 4096), (1.2, -0.4, 112), (1.6, -0.8, 4096), (0.4, 0.3, 4096), (0.4, 0.3, 136)],
)
def test_mean_covers_on_ar2(phi1: float, phi2: float, steps: int) -> None:
    """The same on AR(2): at 40 integrated times; where the correlation oscillates, at many of its periods."""
    x = truth.ar2(np.random.default_rng(2), (REPLICATES, steps), phi1, phi2)
    mean, error, _ = series.mean_and_error(x)
    assert 0.93 <= np.mean(np.abs(mean) <= 1.959964 * error) <= 0.97


@pytest.mark.slow
def test_ratio_covers_and_is_unbiased() -> None:
    """Ratio of means of two series that share their slow part."""
    rng = np.random.default_rng(3)
    shared = truth.ornstein_uhlenbeck(rng, (REPLICATES, 4096), 10.0)
    a = 2 + shared + 0.5 * truth.ornstein_uhlenbeck(rng, (REPLICATES, 4096), 5.0)
    b = 4 + 0.7 * shared + 0.5 * rng.standard_normal((REPLICATES, 4096))
    ratio, error, _ = series.ratio_and_error(a, b)
    assert 0.93 <= np.mean(np.abs(ratio - 0.5) <= 1.959964 * error) <= 0.97
    assert abs(ratio.mean() - 0.5) < 4 * ratio.std() / np.sqrt(REPLICATES)


@pytest.mark.slow
def test_autocorrelation_covers_in_many_dimensions() -> None:
    """ρ(τ) of a trace over coordinates, at three lags."""
    rng = np.random.default_rng(4)
    lags = np.array([2, 10, 30])
    exact = np.exp(-lags / 10.0)
    hits, values = [], []
    for _ in range(1000):
        x = truth.ornstein_uhlenbeck(rng, (4, 3000), 10.0)
        x -= x.mean(-1, keepdims=True)
        covariance = series.autocovariance(x).sum(0)
        tau, _ = series.integrated_time(covariance)
        products = series.lagged_products(x, np.concatenate([[0], lags]))
        rho, error = series.autocorrelation(products, lags, 2 * float(tau) * covariance[0] / 3000)
        hits.append(np.abs(rho - exact) <= 1.959964 * error)
        values.append(rho)
    covered, values = np.mean(hits, axis=0), np.array(values)
    assert np.all((covered >= 0.925) & (covered <= 0.975)), covered
    # τ_int is itself estimated, which leaves a bias of higher order, far below one replicate's error.
    assert np.all(np.abs(values.mean(0) - exact) < 0.15 * values.std(0))


@pytest.mark.parametrize("correlation_time", [2.0, 10.0])
@pytest.mark.parametrize(
    ("times", "lowest", "highest", "bias"),
    # Short of memory the value itself is low; at many times Wolff's error is a tenth too large.
    [
        (10, 0.8, 0.975, 1.5),
        (40, 0.93, 0.985, 0.2),
        pytest.param(200, 0.93, 0.98, 0.1, marks=pytest.mark.slow),
        pytest.param(1000, 0.93, 0.98, 0.1, marks=pytest.mark.slow),
    ],
)
def test_integrated_time_covers(
    correlation_time: float, times: int, lowest: float, highest: float, bias: float
) -> None:
    """τ_int = ½ + Σρ of an AR(1), at N/τ_int of 10 to 1,000."""
    exact = truth.ornstein_uhlenbeck_integrated_time(correlation_time)
    shape = (REPLICATES, round(times * exact))
    x = truth.ornstein_uhlenbeck(np.random.default_rng(times), shape, correlation_time)
    tau, error = series.integrated_time(series.autocovariance(x), oscillating=True)
    assert lowest <= np.mean(np.abs(tau - exact) <= 1.959964 * error) <= highest
    assert abs(tau.mean() - exact) < (bias + 3 / np.sqrt(REPLICATES)) * tau.std()


@pytest.mark.slow
@pytest.mark.parametrize(("times", "lowest", "highest"), [(10, 0.8, 0.97), (40, 0.92, 0.98), (200, 0.93, 0.985)])
@pytest.mark.parametrize(("coordinates", "sources"), [(4, 4), (64, 64), (64, 4)])
def test_integrated_time_of_a_trace_covers(
    coordinates: int, sources: int, times: int, lowest: float, highest: float
) -> None:
    """Of the sum over coordinates, independent or mixed from few; the dimensions tell one from the other."""
    rng, exact, found = np.random.default_rng(15), truth.ornstein_uhlenbeck_integrated_time(5.0), []
    for _ in range(REPLICATES // 2):
        x = truth.ornstein_uhlenbeck(rng, (sources, round(times * exact)), 5.0)
        if sources < coordinates:
            x = rng.standard_normal((coordinates, sources)) @ x
        x = x - x.mean(-1, keepdims=True)
        dimensions = dimensions_of_squares(np.sum(x**2, axis=0), coordinates)
        covariance = series.autocovariance(x, trace=True)
        found.append(series.integrated_time(covariance, oscillating=True, dimensions=dimensions))
    tau, error = np.array(found).T
    assert lowest <= np.mean(np.abs(tau - exact) <= 1.959964 * error) <= highest
    # Tight: known the better, the more there are.
    assert error.mean() < 1.6 * tau.std() or times < 100


@pytest.mark.slow
@pytest.mark.parametrize("coordinates", [1, 16])
@pytest.mark.parametrize(("phi1", "phi2"), [(1.6, -0.8), (1.1, -0.9)])
def test_integrated_time_of_what_swings_covers(phi1: float, phi2: float, coordinates: int) -> None:
    """Where correlations sum to a part of what they swing by; those of a single series are too noisy to be tight."""
    exact, rng, found = truth.ar2_integrated_time(phi1, phi2), np.random.default_rng(5), []
    for _ in range(REPLICATES // 4):
        x = truth.ar2(rng, (coordinates, 1000), phi1, phi2)
        dimensions = dimensions_of_squares(np.sum(x**2, axis=0), coordinates)
        covariance = series.autocovariance(x, trace=True)
        found.append(series.integrated_time(covariance, oscillating=True, dimensions=dimensions))
    tau, error = np.array(found).T
    assert 0.91 <= np.mean(np.abs(tau - exact) <= 1.959964 * error) <= (1.0 if coordinates == 1 else 0.98)
    assert abs(tau.mean() - exact) < 0.4 * tau.std()


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize(("steps", "longest"), [(9000, 1), (9000, 100), (40_000, 600), (300, 200), (20, 19), (20, 50)])
def test_autocovariance_to_a_longest_lag_equals_the_definition(steps: int, longest: int, offset: float) -> None:
    """In blocks and at once, of series and of their trace, against the sum over origins, to 1e-12 of Γ(0)."""
    x = offset + truth.ornstein_uhlenbeck(np.random.default_rng(12), (2, steps), 20.0)
    centred = x - x.mean(-1, keepdims=True)
    lags = range(min(longest, steps - 1) + 1)
    slow = np.stack([np.sum(centred[:, lag:] * centred[:, : steps - lag], axis=-1) for lag in lags], axis=-1) / steps
    found = series.autocovariance(x, longest)
    assert found.shape == slow.shape
    np.testing.assert_allclose(found, slow, rtol=0, atol=1e-12 * slow[:, 0].max())
    np.testing.assert_allclose(found, series.autocovariance(x)[:, : len(lags)], rtol=0, atol=1e-12 * slow[:, 0].max())
    np.testing.assert_allclose(series.autocovariance(x, longest, trace=True), found.sum(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(series.autocovariance(x[0], longest), found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("memory", [0, 50, 900])
@pytest.mark.parametrize("correlation_time", [2.0, 30.0, 400.0])
def test_error_bars_are_those_of_the_whole_autocovariance(correlation_time: float, memory: int) -> None:
    """Whether the sum is cut early or late in a long series, its error is that of Wolff's sum over all lags."""
    x = truth.ornstein_uhlenbeck(np.random.default_rng(13), (3, 20_000), correlation_time)
    _, error, n_eff = series.mean_and_error(x, memory=memory)
    for row, found, samples in zip(x, error, n_eff, strict=True):
        centred = row - row.mean()
        lags = range(10_000)
        covariance = np.array([np.dot(centred[lag:], centred[: len(row) - lag]) for lag in lags]) / len(row)
        tau = 0.5 + np.cumsum(covariance[1:] / covariance[0])
        lag = np.arange(1, len(tau) + 1)
        above = np.maximum(tau, 0.5 + 1e-12)
        decay = series.WINDOW / np.log((2 * above + 1) / (2 * above - 1))
        window = lag[np.argmax(np.exp(-lag / decay) - decay / np.sqrt(lag * len(row)) < 0)]
        sums = [tau[cut - 1] * (1 + (2 * cut + 1) / len(row)) for cut in (window, max(window, memory))]
        assert samples == pytest.approx(len(row) / (2 * max(sums)), rel=1e-9)
        freedom = len(row) / (2 * max(window, memory) + 1)
        student = stats.t.ppf(0.975, freedom) / 1.959963984540054
        exact = np.sqrt(covariance[0] * (1 + 1 / samples) / samples) * student
        assert found == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("memory", [30, 60])
def test_error_of_a_mean_whose_fluctuations_cancel_covers(memory: int) -> None:
    """White noise and three times the steps of another: only the first is left in the mean, a nineteenth of all."""
    rng = np.random.default_rng(14)
    drawn, swings = rng.standard_normal((2, 2000, 1001))
    x = drawn[:, 1:] + 3 * np.diff(swings)
    found = np.array([series.cancelling_error(row, memory) for row in x])
    z = x.mean(-1) / found[:, 0]
    assert 0.93 <= np.mean(np.abs(z) <= 1.959964) <= 0.985
    # As many as there are steps: what cancels makes none of them more.
    assert np.all(found[:, 1] <= 1000)
    of_independent = series.mean_and_error(x, memory=memory)[1]
    assert np.mean(np.abs(x.mean(-1)) <= 1.959964 * of_independent) > 0.999


@pytest.mark.parametrize("memory", [0, 30, 300])
@pytest.mark.parametrize("correlation_time", [2.0, 60.0, 400.0])
def test_error_of_a_mean_whose_fluctuations_cancel_equals_the_definition(correlation_time: float, memory: int) -> None:
    """In a long series, of which fewer lags are worked out than twice the window may be."""
    x = truth.ornstein_uhlenbeck(np.random.default_rng(16), (20_000,), correlation_time)
    covariance = series.autocovariance(x)
    _, window = series._cut_sum(covariance, len(x))
    width = 2 * max(int(window), memory) + 1
    variance = covariance[0] + 2 * sum((1 - lag / width) * covariance[lag] for lag in range(1, width))
    student = stats.t.ppf(0.975, 1.5 * len(x) / width) / series.NORMAL
    error, n_eff = series.cancelling_error(x, memory)
    assert error == pytest.approx(np.sqrt(variance * (1 + width / len(x)) / len(x)) * student, rel=1e-9)
    assert n_eff == pytest.approx(len(x) * covariance[0] / (variance * (1 + width / len(x))), rel=1e-9)


def test_error_of_a_mean_whose_fluctuations_cancel_of_degenerate_series() -> None:
    """Constant: 0. Fewer than four: none. One NaN: none."""
    assert series.cancelling_error(np.full(50, 3.0), 5) == (0.0, 50.0)
    assert np.isnan(series.cancelling_error(np.ones(3), 5)[0])
    assert np.isnan(series.cancelling_error(np.append(np.arange(50.0), np.nan), 5)).all()


def test_error_of_a_mean_whose_correlations_return_covers() -> None:
    """What is white and comes back twice, 20 and 40 steps later, is three times as noisy as it looks at first."""
    noise = np.random.default_rng(19).standard_normal((2000, 1040))
    x = noise[:, 40:] + noise[:, 20:-20] + noise[:, :-40]
    error, n_eff = np.array([series.returning_error(row, 20, 0) for row in x]).T
    assert 0.93 <= np.mean(np.abs(x.mean(-1)) <= 1.959964 * error) <= 0.97
    assert np.mean(n_eff) == pytest.approx(1000 / 3, rel=0.1)
    assert np.mean(np.abs(x.mean(-1)) <= 1.959964 * series.mean_and_error(x)[1]) < 0.8


@pytest.mark.parametrize("lag", [5, 300, 15_000])
@pytest.mark.parametrize("correlation_time", [2.0, 60.0])
def test_error_of_a_mean_whose_correlations_return_equals_the_definition(correlation_time: float, lag: int) -> None:
    """In a long series, of which fewer lags are worked out than twice ℓ may be."""
    x = truth.ornstein_uhlenbeck(np.random.default_rng(16), (20_000,), correlation_time)
    covariance = series.autocovariance(x)
    window = int(series._cut_sum(covariance, len(x))[1])
    near = [k for k in range(len(x)) if min(k, abs(k - lag), abs(k - 2 * lag)) <= window]
    if 2 * window >= lag:
        near = [k for k in near if k <= max(window, 2 * lag)]
    sums = [
        (2 * sum(covariance[k] for k in kept) - covariance[0]) * (1 + (2 * len(kept) - 1) / len(x))
        for kept in (near, range(window + 1))
    ]
    n_eff = len(x) * covariance[0] / max(*sums, covariance[0])
    student = stats.t.ppf(0.975, len(x) / (2 * len(near) - 1)) / series.NORMAL
    found, samples = series.returning_error(x, lag, 0)
    assert samples == pytest.approx(n_eff, rel=1e-9)
    assert found == pytest.approx(np.sqrt(covariance[0] * (1 + 1 / n_eff) / n_eff) * student, rel=1e-9)


def test_error_of_a_mean_whose_correlations_return_of_degenerate_series() -> None:
    """Constant: 0. Fewer than four: none. One NaN: none."""
    assert series.returning_error(np.full(50, 3.0), 5, 5) == (0.0, 50.0)
    assert np.isnan(series.returning_error(np.ones(3), 5, 5)[0])
    assert np.isnan(series.returning_error(np.append(np.arange(50.0), np.nan), 5, 5)).all()


@pytest.mark.parametrize(("momentum", "steps"), [(0.9, 40), (0.99, 300), (0.99, 1200), (0.0, 200)])
@pytest.mark.parametrize("curvature", [0.0, 1.0])
def test_mean_of_a_squared_velocity_covers(momentum: float, steps: int, curvature: float) -> None:
    """N(1−μ) effective samples, 3 to 12, where what swings makes the Γ-method alone cover 0.6 to 0.85."""
    burn_in = round(20 / (1 - momentum))
    kicks = np.random.default_rng(12).standard_normal((2000, burn_in + steps))
    # v_t = μ v_{t−1} + λθ + ξ with η = 0.05: differences of an AR(2) where it is confined.
    poles = [1.0, -(1 + momentum - 0.05 * curvature), momentum] if curvature else [1.0, -momentum]
    velocity = signal.lfilter([1.0, -1.0] if curvature else [1.0], poles, kicks)[:, burn_in:]
    squares = velocity**2
    mean, error, samples = series.mean_and_error(
        squares, memory=int(np.ceil(3 / (1 - momentum))), per_step=1 - momentum
    )
    assert (samples <= steps * (1 - momentum) * (1 + 1e-9)).all()
    covered = np.mean(np.abs(mean - squares.mean()) < series.NORMAL * error)
    assert covered >= 0.92
    if curvature and steps * (1 - momentum) >= 10:
        # Nor is the bar much wider than it takes.
        assert np.median(error) < 2 * np.std(mean)


_TIMES = np.arange(1000) / 1000


@pytest.mark.parametrize(
    ("course", "correlation_time", "steps", "lowest"),
    [
        (np.exp(np.log(1e-3) * _TIMES), 5.0, 1000, 0.93),
        # Of what is 1 for 100 steps a tenth of a thousand counts, ten integrated times.
        (np.where(_TIMES < 0.1, 1.0, 0.01), 5.0, 1000, 0.90),
        (np.exp(np.log(1e-3) * _TIMES[::50]), 0.1, 20, 0.93),
        (np.where(_TIMES[::50] < 0.1, 1.0, 0.01), 0.1, 20, 0.90),
    ],
)
def test_mean_under_a_steep_schedule_covers(
    course: np.ndarray, correlation_time: float, steps: int, lowest: float
) -> None:
    """Few samples count where the shape is steep: two probes of twenty are two, and their mean is not known to more."""
    shape = np.broadcast_to(course, (REPLICATES, steps))
    noise = 10 + truth.ornstein_uhlenbeck(np.random.default_rng(14), shape.shape, correlation_time)
    mean, error, samples = series.mean_and_error(shape * noise, shape)
    assert np.mean(np.abs(mean - 10 * course.mean()) < series.NORMAL * error) >= lowest
    assert (samples <= np.sum(course) ** 2 / np.sum(course**2) * (1 + 1e-9)).all()


@pytest.mark.parametrize("correlation_time", [0.1, 5.0])
def test_mean_under_a_schedule_covers(correlation_time: float) -> None:
    """What a cosine makes of noise of steady strength is no error; taken as noise it makes bars ten times too wide."""
    shape = np.broadcast_to(1 + np.cos(np.pi * _TIMES), (REPLICATES, 1000))
    noise = 10 + truth.ornstein_uhlenbeck(np.random.default_rng(13), shape.shape, correlation_time)
    mean, error, samples = series.mean_and_error(shape * noise, shape)
    exact = 10 * shape[0].mean()
    assert 0.93 <= np.mean(np.abs(mean - exact) < series.NORMAL * error) <= 0.97
    assert abs(mean.mean() - exact) < 4 * mean.std() / np.sqrt(REPLICATES)
    assert np.median(error) == pytest.approx(mean.std(), rel=0.1)
    _, plain, of_plain = series.mean_and_error(shape * noise)
    assert np.median(plain) > 8 * np.median(error)
    assert np.median(of_plain) < 10 < np.median(samples)
    # A shape that stays changes nothing, nor does one of nothing but 0.
    for still in (np.full(1000, 3.0), np.zeros(1000)):
        assert [list(part) for part in series.mean_and_error(noise[:3], still)] == [
            list(part) for part in series.mean_and_error(noise[:3])
        ]


def test_integrated_time_of_degenerate_series() -> None:
    """Constant: ½. A NaN spoils its own row alone. Two values; any leading shape."""
    rows = np.random.default_rng(17).standard_normal((2, 3, 400))
    rows[0, 1], rows[1, 2, 5] = 3.0, np.nan
    tau, error = series.integrated_time(series.autocovariance(rows), oscillating=True)
    assert tau.shape == error.shape == (2, 3)
    assert tau[0, 1] == 0.5
    assert np.isnan(tau[1, 2])
    assert np.isnan(error[1, 2])
    others = np.delete(tau.ravel(), [1, 5]), np.delete(error.ravel(), [1, 5])
    assert np.isfinite(others).all()
    alone, of_alone = series.integrated_time(series.autocovariance(rows[0, 0]), oscillating=True)
    assert (alone, of_alone) == pytest.approx((tau[0, 0], error[0, 0]), rel=1e-9)
    assert np.shape(series.integrated_time(series.autocovariance(np.array([1.0, 2.0])))[0]) == ()


@pytest.mark.slow
def test_integrated_time_of_a_spectrum_of_rates_covers() -> None:
    """Slow coordinates, fewer than squares at one time tell of, make the time: 0.83 without them."""
    rng, replicates, poles = np.random.default_rng(15), 400, 1 - 0.5 * np.geomspace(0.05, 2, 32)
    variance = 1 / (1 - poles**2)
    exact = np.sum(variance * (1 + poles) / (1 - poles)) / (2 * np.sum(variance))
    values, errors = np.empty((2, replicates))
    for index in range(replicates):
        kicks = rng.standard_normal((len(poles), 3000))
        rows = [signal.lfilter([1.0], [1.0, -pole], row)[1000:] for pole, row in zip(poles, kicks, strict=True)]
        positions = xr.DataArray(np.array(rows)[None], dims=("group", "sketch", "step"))
        found = correlation._measure(positions, np.array([1, 10]), 0)
        values[index], errors[index] = found["integrated_time"][0]
    # 97 integrated times, and ten of the slowest coordinate alone; 400 replicates spread by 1.5 % and 4 %.
    assert np.mean(np.abs(values - exact) < series.NORMAL * errors) >= 0.87
    assert 0.8 < errors.mean() / values.std() < 1.2


def test_deviation_of_an_integrated_time_is_bartletts_double_sum() -> None:
    """Σ_{s,t} cov(ρ(s), ρ(t)) with each term of Bartlett's formula written out, ρ of an AR(2) cut at W."""
    window = 12
    rho = series.autocovariance(truth.ar2(np.random.default_rng(18), (4000,), 1.1, -0.9))[: window + 1]
    rho = rho / rho[0]
    tau = 0.5 + rho[1:].sum()

    def at(lag: int) -> float:
        return rho[abs(lag)] if abs(lag) <= window else 0.0

    total = 0.0
    for s in range(1, window + 1):
        for t in range(1, window + 1):
            for u in range(-3 * window, 3 * window + 1):
                total += at(u) * at(u + t - s) + at(u + t) * at(u - s) + 2 * at(s) * at(t) * at(u) ** 2
                total -= 2 * at(t) * at(u) * at(u - s) + 2 * at(s) * at(u) * at(u - t)
    found = series._deviation_of_sum(rho, tau, window)
    assert found == pytest.approx(np.sqrt(total), rel=1e-9)


@pytest.mark.parametrize("steps", [2, 9000])
def test_autocovariance_to_a_longest_lag_of_degenerate_series(steps: int) -> None:
    """Constant: 0. One NaN: NaN everywhere, not only in the blocks that hold it."""
    x = np.stack([np.full(steps, 3.0), np.arange(steps) * 1.0])
    assert not series.autocovariance(x, 10)[0].any()
    x[0, -1] = np.nan
    found = series.autocovariance(x, 10)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


@given(st.integers(0, 2**31), st.floats(0.1, 1e6), st.floats(-1e3, 1e3))
def test_error_bars_scale_and_do_not_shift(seed: int, factor: float, offset: float) -> None:
    """stderr(a·x + b) = |a|·stderr(x), and the number of samples stays."""
    x = np.random.default_rng(seed).standard_normal(200).cumsum()
    _, error, n_eff = series.mean_and_error(x)
    _, scaled, same = series.mean_and_error(factor * x + offset)
    assert scaled == pytest.approx(factor * error, rel=1e-6)
    assert same == pytest.approx(n_eff, rel=1e-6)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0]])
def test_too_few_samples_have_no_error(values: list[float]) -> None:
    """A mean of fewer than four samples has no error bar."""
    _, error, _ = series.mean_and_error(np.array(values))
    assert np.isnan(error)


@pytest.mark.parametrize("steps", [50, 20_000])
def test_degenerate_series(steps: int) -> None:
    """Constant: error 0. One NaN: NaN, not a number that looks right."""
    mean, error, n_eff = series.mean_and_error(np.full(steps, 3.0))
    assert (mean, error, n_eff) == (3.0, 0.0, steps)
    broken = np.random.default_rng(0).standard_normal(steps)
    broken[7] = np.nan
    mean, error, _ = series.mean_and_error(broken)
    assert np.isnan(mean)
    assert np.isnan(error)
    with np.errstate(all="ignore"):
        ratio, _, _ = series.ratio_and_error(np.ones(50), np.zeros(50))
    assert not np.isfinite(ratio)


@pytest.mark.parametrize("freedom", [1, 2, 5, 20, 100])
def test_error_of_a_single_square_covers(freedom: int) -> None:
    """x(1 ± 1.96 r) holds the mean of x in 95 % of cases, also where x is the square of one number."""
    error = float(series.single_square_error(np.array(float(freedom))))
    squares = np.random.default_rng(10).chisquare(freedom, 100_000) / freedom
    assert np.mean(np.abs(squares - 1) <= 1.959964 * error * squares) == pytest.approx(0.95, abs=0.003)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "dimensions", "lowest"), [(4000, 4, 0.93), (1000, 4, 0.93), (1000, 16, 0.93), (250, 16, 0.90)]
)
def test_telescoping_ratio_covers_on_a_relaxing_quadratic(steps: int, dimensions: int, lowest: float) -> None:
    """Centred FDR1 of SGD with ηλ = 0.02, where the norm remembers 25 steps; a drift of the norm is seen."""
    theta, gradient = truth.gradient_descent(np.random.default_rng(9), (REPLICATES, dimensions, steps), 0.02)
    left = np.sum((theta - theta.mean(-1, keepdims=True)) * gradient, axis=1)
    right = 0.02 / 2 * np.sum(gradient**2, axis=1)
    ratio, error, _ = series.telescoping_ratio_and_error(left, right)
    covered = np.mean(np.abs(ratio - 1) <= 1.959964 * error)
    assert lowest <= covered <= (0.97 if steps > 500 else 1.0), covered
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(REPLICATES)
    # The joint fluctuation of both sides, which does not know that the gap telescopes, is far too wide.
    assert np.median(series.ratio_and_error(left, right)[1] / error) > (5 if steps > 500 else 1)
    if steps > 500 and dimensions == 16:
        ratio, error, _ = series.telescoping_ratio_and_error(left + 0.1 * right.mean(), right)
        assert np.mean(ratio - 1 > 3 * error) > 0.9
