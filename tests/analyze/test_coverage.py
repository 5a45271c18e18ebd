"""Error bars of whole analyses: every replicate is a group of one run, of SGD with momentum whose answer is known."""

import numpy as np
import pytest
import xarray as xr

from thermodl.analyze import AnalysisSettings
from thermodl.analyze.physics import diffusion, temperature

import truth

LEARNING_RATE, MOMENTUM = 0.1, 0.9
REPLICATES = 1000


def replicated_run(
    *, dimensions: int, steps: int, curvature: float = 0.0, slope: float = 0.0, sketch: int | None = None, seed: int = 0
) -> xr.Dataset:
    """A run as `open_run` gives it, of `REPLICATES` groups that share nothing but their hyper-parameters.

    Each is SGD on ½λθ² + Gθ per dimension with unit white noise, its velocity stationary. Fewer sketch coordinates
    than dimensions fold them with random signs.
    """
    rng = np.random.default_rng(seed)
    shape, width = (REPLICATES, dimensions), sketch or dimensions
    signs = rng.choice([-1.0, 1.0], shape) if width < dimensions else np.ones(shape)
    moments = {
        name: np.empty((REPLICATES, steps))
        for name in ("gradient_squared", "velocity_squared", "velocity_dot_gradient", "displacement_squared")
    }
    sketches = {name: np.empty((REPLICATES, width, steps)) for name in ("parameter_sketch", "gradient_sketch")}
    theta, velocity = np.zeros(shape), np.zeros(shape)
    start = theta
    burn_in = round(20 / (1 - MOMENTUM))
    for step in range(-burn_in, steps):
        if step == 0:
            start = theta
        gradient = curvature * theta + slope + rng.standard_normal(shape)
        if step >= 0:
            moments["gradient_squared"][:, step] = np.sum(gradient**2, 1)
            moments["velocity_squared"][:, step] = np.sum(velocity**2, 1)
            moments["velocity_dot_gradient"][:, step] = np.sum(velocity * gradient, 1)
            moments["displacement_squared"][:, step] = np.sum((theta - start) ** 2, 1)
            for name, values in (("parameter_sketch", theta), ("gradient_sketch", gradient)):
                sketches[name][:, :, step] = (values * signs).reshape(REPLICATES, -1, width).sum(1)
        velocity = MOMENTUM * velocity + gradient
        theta = theta - LEARNING_RATE * velocity
    names = [f"replicate{index}" for index in range(REPLICATES)]
    constants = {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM, "dampening": 0.0, "weight_decay": 0.0}
    return xr.Dataset(
        {name: (("layer", "step"), values) for name, values in moments.items()}
        | {name: (("group", "sketch", "step"), values) for name, values in sketches.items()}
        | {name: (("optimizer_group", "step"), np.full((1, steps), value)) for name, value in constants.items()},
        coords={
            "group": names,
            "layer": names,
            "step": np.arange(steps),
            "sgd_time": ("step", LEARNING_RATE / (1 - MOMENTUM) * np.arange(steps)),
            "layer_group": ("layer", names),
            "layer_size": ("layer", np.full(REPLICATES, dimensions)),
            "layer_optimizer_group": ("layer", np.zeros(REPLICATES, int)),
        },
        attrs={"optimizer": {"class": "SGD", "nesterov": False}},
    ).chunk()


def covered(results: xr.Dataset, name: str, exact: np.ndarray | float) -> xr.DataArray:
    """Fraction of the replicates whose 95 % interval holds the exact value; their mean must be near it."""
    value = results[name].isel(group=slice(1, None))
    error = results[f"{name}_stderr"].isel(group=slice(1, None))
    shift = abs(value.mean("group") - exact) / (value.std("group") / np.sqrt(REPLICATES))
    assert np.all(shift < 4), f"biased by {shift.values} of its standard error"
    return (abs(value - exact) <= 1.959964 * error).mean("group")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dimensions", "steps", "slope", "sketch"),
    [(16, 400, 0.0, None), (16, 400, 0.5, None), (2, 1000, 0.5, None), (64, 400, 0.5, 16)],
)
def test_kinetic_temperature_without_drift_covers(
    dimensions: int, steps: int, slope: float, sketch: int | None
) -> None:
    """ηC/(2(1−μ)) with and without a slope, for few parameters, and through a sketch that is not exact."""
    run = replicated_run(dimensions=dimensions, steps=steps, slope=slope, sketch=sketch)
    results = temperature.estimate(run, AnalysisSettings(segment=f"0:{steps}", windows=2)).compute()
    exact = truth.HeavyBall(LEARNING_RATE, MOMENTUM).temperature
    assert 0.93 <= covered(results, "temperature_kinetic_drift_free", exact) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dimensions", "steps", "curvature", "sketch"),
    [(16, 1000, 0.0, None), (4, 600, 0.0, None), (64, 600, 0.0, 16), (16, 1000, 1.0, None)],
)
def test_two_time_displacement_covers(dimensions: int, steps: int, curvature: float, sketch: int | None) -> None:
    """From one step to a quarter of the run, below and above the memory of the velocity, free and confined."""
    run = replicated_run(dimensions=dimensions, steps=steps, curvature=curvature, sketch=sketch, seed=1)
    settings = AnalysisSettings(segment=f"0:{steps}", lags_per_decade=3, waiting_times=2)
    results = diffusion.estimate(run, settings)
    lag = results["lag"].values
    if curvature:
        exact = truth.HeavyBall(LEARNING_RATE, MOMENTUM, curvature).mean_squared_displacement(int(lag.max()))[lag]
    else:
        forgotten = 2 * MOMENTUM * (1 - MOMENTUM**lag) / (1 - MOMENTUM**2)
        exact = LEARNING_RATE**2 / (1 - MOMENTUM) ** 2 * (lag - forgotten)
    # The spread of a fraction of 1,000 replicates is 0.7 %; lags and waiting times share most of their noise.
    fraction = covered(results, "two_time_mean_squared_displacement", xr.DataArray(exact, dims="lag"))
    assert np.all((fraction >= 0.92) & (fraction <= 0.985)), fraction.values
    assert 0.93 <= fraction.mean() <= 0.97
