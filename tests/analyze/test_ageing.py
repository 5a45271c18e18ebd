"""Ageing: which clock makes all waiting times alike, on motions whose answer is known; every replicate is a group."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from made_up import make_run
from scipy import signal

from thermodl.analyze import AnalysisSettings
from thermodl.analyze.physics import ageing, diffusion
from thermodl.analyze.settings import AnalysisError

import truth

STEPS, COORDINATES = 4000, 32
STEADY = np.ones(STEPS)
TIME = np.arange(1, STEPS + 1.0)
SCHEDULE = np.where(TIME < STEPS / 3, 1.0, np.where(TIME < 2 * STEPS / 3, 0.3, 0.1))


def driven_run(
    positions: np.ndarray, learning_rate: np.ndarray = STEADY, noise: np.ndarray | None = STEADY, **options: Any
) -> xr.Dataset:
    """Given positions (group, coordinate, step), said to be made at a learning rate by noise of a variance (step,)."""
    groups, width, steps = positions.shape
    if noise is not None:
        noise = noise * np.random.default_rng(9).chisquare(width, (groups, steps))
    return make_run(positions, learning_rate=learning_rate, noise_trace=noise, **options)


def free_motion(groups: int, step_size: np.ndarray, seed: int) -> np.ndarray:
    """Independent steps of given sizes."""
    noise = np.random.default_rng(seed).standard_normal((groups, COORDINATES, STEPS))
    return np.cumsum(noise * step_size, axis=-1)


def age(run: xr.Dataset, **settings: int) -> xr.Dataset:
    """The analysis of all steps."""
    return ageing.estimate(run, AnalysisSettings(segment=f"0:{run.sizes['step']}", **settings))


def code(results: xr.Dataset) -> str:
    """The verdict on the ageing of all groups together."""
    return results.attrs["verdicts"][0]["code"]


MOTIONS = {
    "brownian": (STEADY, STEADY, STEADY, "not-ageing"),
    "schedule": (SCHEDULE, SCHEDULE, STEADY, "trivial-ageing"),
    "decaying-noise": (TIME**-0.3, STEADY, TIME**-0.6, "trivial-ageing"),
    "slowing-by-itself": (TIME**-0.3, STEADY, STEADY, "genuine-ageing"),
}


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_clock_is_found(motion: str) -> None:
    """Free motion at constant strength, under a schedule, under fading noise, and slowing for no recorded reason."""
    step_size, learning_rate, noise, expected = MOTIONS[motion]
    results = age(driven_run(free_motion(10, step_size, 1), learning_rate, noise))
    assert code(results) == expected
    if expected != "genuine-ageing":
        # Free motion moves by the lapse of noise time, which is that of steps where both are 1.
        moved, lag = (
            results["displacement_on_noise_time"].sel(group="all"),
            results["lag_on_noise_time"].sel(group="all"),
        )
        z = (moved - lag) / results["displacement_on_noise_time_stderr"].sel(group="all")
        assert float(abs(z).max()) < 4
        # A mean of five probes does not follow the first steps of a fast decay.
        late = results.isel(clock_step=results["clock_step"].values >= STEPS // 8)
        exact = np.concatenate([[0.0], np.cumsum(step_size[:-1] ** 2)])[late["clock_step"].values]
        lapse = late["noise_time"] - late["noise_time"][0]
        np.testing.assert_allclose(lapse, exact - exact[0], rtol=0.03, atol=1e-3 * exact[-1])


def test_sgd_time_is_a_clock_too() -> None:
    """Confined motion whose spread stays while the learning rate falls relaxes in SGD time, not in Σ η²."""
    rng = np.random.default_rng(2)
    clock = np.concatenate([[0.0], np.cumsum(SCHEDULE[:-1] / 50)])
    decay = np.exp(-np.diff(clock))
    x = np.empty((20, COORDINATES, STEPS))
    x[..., 0] = rng.standard_normal(x.shape[:2])
    for step, a in enumerate(decay):
        x[..., step + 1] = a * x[..., step] + np.sqrt(1 - a**2) * rng.standard_normal(x.shape[:2])
    results = age(driven_run(x, SCHEDULE))
    assert code(results) == "trivial-ageing"
    assert float(results["collapse_sgd_time_p"].sel(group="all")) > 0.01
    assert float(results["collapse_noise_time_p"].sel(group="all")) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("motion", ["schedule", "fractional", "confined", "momentum", "sketched"])
def test_a_collapse_is_significant_as_often_as_it_says(motion: str) -> None:
    """Where curves collapse the score is 1, its spread its error, p below 5 % in 5 %, and the slope is covered.

    At long lags the directions that displacements fill are taken to become fewer as at shorter ones, never more: where
    they stay, chance lets the score come out a little low.
    """
    groups, clock = 150, "steps"
    if motion == "schedule":
        clock, run = "noise_time", driven_run(free_motion(groups, SCHEDULE, 3), SCHEDULE)
    elif motion == "fractional":
        rng = np.random.default_rng(3)
        walks = [truth.fractional_brownian(rng, COORDINATES, STEPS, 0.7) for _ in range(groups)]
        run = driven_run(np.stack(walks), noise=None)
    elif motion == "confined":
        rng = np.random.default_rng(3)
        run = driven_run(truth.ornstein_uhlenbeck(rng, (groups, COORDINATES, STEPS), 50.0), noise=None)
    else:
        # Free heavy ball, μ = 0.9; of 64 dimensions 16 sketch coordinates are seen.
        width = 64 if motion == "sketched" else 16
        kicks = np.random.default_rng(3).standard_normal((groups, width, STEPS))
        walks = np.cumsum(signal.lfilter([1.0], [1.0, -0.9], kicks, axis=-1), axis=-1)
        signs = np.random.default_rng(4).choice([-1.0, 1.0], (groups, width, 1))
        seen = (walks * signs).reshape(groups, -1, 16, STEPS).sum(1)
        run = make_run(seen, momentum=0.9, size=width)
    of_each = age(run).isel(group=slice(1, None))
    score, error = of_each[f"collapse_{clock}"], of_each[f"collapse_{clock}_stderr"]
    spread = float(score.std())
    assert 0.8 < float(score.mean()) < 1.12
    assert spread == pytest.approx(float(error.mean()), rel=0.2)
    significant = float((of_each[f"collapse_{clock}_p"] < 0.05).mean())
    # Three spreads of a fraction of 150; lags share most of their noise.
    assert significant <= 0.105
    slope = of_each[f"ageing_exponent_{clock}"] / of_each[f"ageing_exponent_{clock}_stderr"]
    assert abs(float(slope.mean())) < 4 / np.sqrt(groups)
    assert 0.9 <= float((abs(slope) < 1.96).mean()) <= 0.99


def test_whole_epochs_are_compared() -> None:
    """The noise of shuffled epochs adds up to nothing over each; a free walk in it goes nowhere, and does not age."""
    epoch = 50
    noise = np.random.default_rng(10).standard_normal((10, COORDINATES, 8000 // epoch, epoch))
    noise -= noise.mean(-1, keepdims=True)
    run = make_run(np.cumsum(noise.reshape(10, COORDINATES, 8000), axis=-1))
    assert code(age(run)) != "not-ageing"
    run.attrs |= {"sampling": "shuffle", "train_size": epoch, "batch_size": 1}
    assert code(age(run)) == "not-ageing"
    # Motion that slows is found in whole epochs too.
    slowing = driven_run(free_motion(10, TIME**-0.3, 12))
    slowing.attrs |= run.attrs
    assert code(age(slowing)) == "genuine-ageing"


def test_rare_hops_are_no_ageing() -> None:
    """A stationary motion of few and large jumps scatters more than a normal one of the same covariance."""
    rng = np.random.default_rng(11)
    hops = rng.standard_normal((40, COORDINATES, STEPS)) * (rng.random((40, COORDINATES, STEPS)) < 0.002)
    walks = np.cumsum(hops + 0.01 * rng.standard_normal(hops.shape), axis=-1)
    of_each = age(driven_run(walks, noise=None)).isel(group=slice(1, None))
    # Three spreads of a fraction of 40 that is 0.05.
    assert float((of_each["collapse_steps_p"] < 0.05).mean()) <= 0.15


@pytest.mark.parametrize(("exponent", "seed"), [(0.4, 4), (1.5, 5)])
def test_15_scaled_brownian_motion_is_told_from_fractional(exponent: float, seed: int) -> None:
    """Must-pass 15: Δ(t, 2t)/t^α = 2^α − 1, and the time average shows another exponent than the ensemble."""
    positions = truth.scaled_brownian(np.random.default_rng(seed), (40, COORDINATES, STEPS + 1), exponent)
    results = age(driven_run(positions, np.ones(STEPS + 1), np.ones(STEPS + 1)))
    assert code(results) == "genuine-ageing"
    exact = 2**exponent - 1
    of_each = results.isel(group=slice(1, None))
    for name, value in (("doubling_exponent", exponent), ("doubling_ratio", exact)):
        z = (of_each[name] - value) / of_each[f"{name}_stderr"]
        # A logarithm is normal and its exponential a little skew.
        assert abs(float(z.mean())) < 0.6, name
        assert 0.85 <= float((abs(z) < 1.96).mean()) <= 1, name
    # Naive, written out: the same from the positions.
    age_of, together = results["doubling_age"].values, positions.reshape(-1, STEPS + 1)
    naive = np.array([np.mean((together[:, 2 * t] - together[:, t]) ** 2) for t in age_of])
    assert np.allclose(results["doubling_displacement"].sel(group="all"), naive)
    assert np.allclose(naive / age_of**exponent, exact, rtol=0.2)
    averaged = diffusion.estimate(make_run(positions[:10]), AnalysisSettings(segment=f"1:{STEPS}", lags_per_decade=4))
    alpha = averaged["local_exponent"].sel(group="all").isel(lag=slice(1, 5)).mean()
    assert abs(float(alpha) - 1) < 0.1


@pytest.mark.parametrize("hurst", [0.3, 0.7])
def test_16_fractional_brownian_motion_does_not_age(hurst: float) -> None:
    """Must-pass 16: α = 2H from doubled ages, and increments that are stationary."""
    rng = np.random.default_rng(6)
    positions = np.stack([truth.fractional_brownian(rng, COORDINATES, STEPS, hurst) for _ in range(20)])
    results = age(driven_run(positions, noise=None))
    assert code(results) == "not-ageing"
    for name, exact in (("doubling_exponent", 2 * hurst), ("doubling_ratio", 1.0)):
        value, error = (float(results[which].sel(group="all")) for which in (name, f"{name}_stderr"))
        assert abs(value - exact) < 3 * error
        assert error < 0.1


def test_the_map_is_the_displacement_of_single_origins() -> None:
    """Against the definition, written out; NaN past the end; groups and all."""
    positions = free_motion(2, STEADY, 7)
    results = age(driven_run(positions), waiting_times=4, lags_per_decade=3)
    for i, waited in enumerate(results["waiting_time"].values):
        for j, lag in enumerate(results["lag"].values):
            found = results["two_time_displacement"].isel(waiting_time=i, lag=j).values
            if waited + lag < STEPS:
                moved = np.mean((positions[..., waited + lag] - positions[..., waited]) ** 2, axis=1)
                assert np.allclose(found, [moved.mean(), *moved])
            else:
                assert np.all(np.isnan(found))


def test_what_is_missing_is_said() -> None:
    """Without probes, with too few, of Adam, and of motions of too few dimensions."""
    slowing = free_motion(3, TIME**-0.3, 8)
    results = age(driven_run(slowing, noise=None))
    assert code(results) == "unresolved"
    assert "noise time is missing" in results.attrs["verdicts"][0]["en"]
    assert "collapse_noise_time" not in results
    few = age(driven_run(slowing, probe_every=1000))
    assert any("4 probes; at least 8" in item["en"] for item in few.attrs["verdicts"])
    adam = driven_run(slowing)
    adam.attrs["optimizer"] = {"class": "Adam", "nesterov": False}
    assert [item["code"] for item in age(adam).attrs["verdicts"]] == ["unresolved", "not-defined"]
    assert code(age(driven_run(free_motion(1, STEADY, 8)[:, :1]))) == "unresolved"


def test_degenerate_motion_gives_nan_or_a_reason() -> None:
    """Frozen groups, a NaN, gaps in the sketches, and a run without them."""
    frozen = free_motion(3, STEADY, 9)
    frozen[1] = 0.0
    results = age(driven_run(frozen))
    assert np.isnan(results["collapse_steps"].values[2])
    assert np.isfinite(results["collapse_steps"].values[[0, 1, 3]]).all()
    assert code(age(driven_run(np.zeros((1, 4, STEPS))))) == "unresolved"
    hole = free_motion(2, STEADY, 9)
    run = driven_run(hole)
    hole[..., 3001] = np.nan
    run["parameter_sketch"] = run["parameter_sketch"].dims, hole
    assert np.isfinite(age(run)["collapse_steps"]).all()
    gaps = driven_run(free_motion(20, STEADY, 9))
    gaps.attrs["recorder"] = {"products_every": "burst:300/400"}
    gaps["parameter_sketch"] = gaps["parameter_sketch"].where(gaps["step"] % 400 < 300)
    assert code(ageing.estimate(gaps, AnalysisSettings())) == "not-ageing"
    with pytest.raises(AnalysisError, match="needs parameter_sketch"):
        age(gaps.drop_vars("parameter_sketch"))
