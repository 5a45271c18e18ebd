"""The double well and the scale-invariant layer, through recorder, store and pipeline, against their exact answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thermodl.analyze import truth

torch = pytest.importorskip("torch")

from test_closed_forms import assert_within  # noqa: E402

from record.quadratic import record_double_well, record_scale_invariant  # noqa: E402
from thermodl.analyze import AnalysisSettings, analyze, errorbar, open_results, open_run  # noqa: E402

pytestmark = pytest.mark.slow
DIMENSIONS, STEPS = 64, 6000
ETA, MU, DECAY = 0.1, 0.9, 0.01
"""of the scale-invariant layer"""


@pytest.fixture(scope="module")
def wells(tmp_path_factory: pytest.TempPathFactory) -> tuple[truth.DoubleWell, Path, Any]:
    """A recorded and analyzed double well, which every parameter crosses many times."""
    well, folder = truth.DoubleWell(0.1, 3.0), tmp_path_factory.mktemp("wells") / "run"
    record_double_well(folder, learning_rate=well.eta, noise=well.noise, dimensions=DIMENSIONS, steps=STEPS)
    assert analyze(folder, settings=AnalysisSettings(segment=f"1:{STEPS}")) == {}
    return well, folder, open_results(folder)


@pytest.fixture(scope="module")
def sphere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A recorded and analyzed scale-invariant layer."""
    folder = tmp_path_factory.mktemp("sphere") / "run"
    record_scale_invariant(
        folder, learning_rate=ETA, momentum=MU, weight_decay=DECAY, dimensions=DIMENSIONS, steps=STEPS
    )
    assert analyze(folder, settings=AnalysisSettings(segment=f"1:{STEPS}")) == {}
    return folder, open_results(folder)


def test_temperatures_of_the_double_well(wells) -> None:
    """The noise thermometer is exact for any loss; the others read what the quadrature says."""
    well, _, results = wells
    temperature = results["temperature"]
    assert_within(temperature, "temperature_noise", well.temperature)
    assert_within(temperature, "temperature_configurational", well.temperature, excuse=0.05)
    assert_within(temperature, "temperature_kinetic", well.kinetic_temperature)
    assert_within(temperature, "kinetic_over_noise", well.kinetic_temperature / well.temperature)
    assert_within(temperature, "temperature_variance", well.eta / 2 * (well.noise + well.force_squared))
    assert_within(results["dissipation"], "descent_power", well.eta * well.force_squared * DIMENSIONS)
    assert_within(results["dissipation"], "noise_power", well.eta * well.noise * DIMENSIONS)
    assert_within(results["stationarity"], "fdr1_centred", 1.0, excuse=0.01)
    assert float(results["stationarity"]["identity_residual"].max()) < 1e-10
    assert_within(results["noise"], "effective_dimension", DIMENSIONS)


def test_motion_in_the_double_well(wells) -> None:
    """Occupancy, displacements and autocorrelation, from one step to beyond the passage from well to well."""
    well, folder, results = wells
    exact = well.correlation(400)
    occupied = open_run(folder)["parameter_squared"].isel(layer=0, step=slice(1, None)) / DIMENSIONS
    mean, error, _ = errorbar.mean_with_error(occupied, "step")
    assert float(error) < 0.02
    assert abs(float(mean) - exact[0]) < 3 * float(error)
    diffusion, correlation = results["diffusion"], results["correlation"]
    for near in (1, 10, 100):
        lag = int(diffusion["lag"].sel(lag=near, method="nearest"))
        assert_within(diffusion, "mean_squared_displacement", 2 * (exact[0] - exact[lag]), lag=lag)
        lag = int(correlation["lag"].sel(lag=near, method="nearest"))
        assert_within(correlation, "parameter_autocorrelation", exact[lag] / exact[0], lag=lag, excuse=0.06)


def test_response_of_the_double_well(wells) -> None:
    """Without a push: R(τ), X_Δ and A are those of the transfer operator, since the noise is Gaussian."""
    well, _, results = wells
    response = results["response"]
    longest = int(response["lag"].sel(lag=100, method="nearest"))
    correlation, pushed = well.correlation(longest + 1), np.concatenate([[0], well.response(longest)])
    displaced = 2 * (correlation[0] - correlation)
    for lag in response["lag"].values[response["lag"] <= longest]:
        assert_within(response, "response", pushed[lag], lag=lag, excuse=0.03)
        moved = (displaced[lag] + displaced[lag + 1] - displaced[1]) / 2
        ratio = well.eta * well.noise * pushed[: lag + 1].sum() / moved
        assert_within(response, "displacement_ratio", ratio, lag=lag, excuse=0.3)
        asymmetry = well.noise * pushed[lag] - (displaced[lag + 1] - displaced[lag - 1]) / (2 * well.eta)
        where = {"group": "all", "lag": lag}
        z = (response["asymmetry"] / DIMENSIONS - asymmetry) / (response["asymmetry_stderr"] / DIMENSIONS)
        assert abs(float(z.sel(where))) < 4, lag
    assert float(abs(response["asymmetry_z"]).max()) < 4


def test_temperatures_of_the_scale_invariant_layer(sphere) -> None:
    """Linear dynamics under noise that falls as 1/‖w‖: the thermometers agree, and the noise is that of the radius."""
    folder, results = sphere
    temperature = results["temperature"]
    inverse = (1 / open_run(folder)["parameter_squared"]).isel(layer=0, step=slice(1, None))
    mean, error, _ = errorbar.mean_with_error(inverse, "step")
    # η C(P−1)⟨1/‖w‖²⟩/(2(1−μ)), shared by P parameters, of which one direction has no noise
    exact = ETA * (DIMENSIONS - 1) * float(mean) / (2 * (1 - MU) * DIMENSIONS)
    value, own = (
        float(temperature[name].sel(group="all")) for name in ("temperature_noise", "temperature_noise_stderr")
    )
    assert own < 0.02 * exact
    assert abs(value - exact) < 3 * np.hypot(own, exact * float(error / mean))
    assert_within(temperature, "kinetic_over_noise", 1.0, excuse=0.03)
    ball = truth.HeavyBall(ETA, MU, DECAY)
    rho = ball.correlation(200)
    correlation = results["correlation"]
    for near in (1, 10, 100):
        lag = int(correlation["lag"].sel(lag=near, method="nearest"))
        assert_within(correlation, "parameter_autocorrelation", rho[lag], lag=lag, excuse=0.1)


def test_19_angular_step_of_a_recording(sphere) -> None:
    """√(η²⟨v²⟩/⟨w²⟩) = √(2η·wd/(1+μ)); the gradient has no radial part, so FDR1 says the radial balance and no more."""
    folder, results = sphere
    run = open_run(folder).isel(layer=0)
    squared = run["parameter_squared"].values
    np.testing.assert_allclose(run["parameter_dot_gradient"].values, DECAY * squared, rtol=1e-10)
    balance = errorbar.telescoping_ratio_with_error(
        DECAY * run["parameter_squared"][1:-1],
        ETA / 2 * (1 + MU) * run["velocity_squared"].shift(step=-1)[1:-1],
        "step",
    )
    ratio, error = float(balance[0]), float(balance[1])
    assert error < 0.002
    assert abs(ratio - 1) < 3 * error
    moved = ETA * np.sqrt(run["velocity_squared"].values[1:].mean() / squared.mean())
    exact = truth.angular_step(ETA, MU, DECAY)
    assert abs(moved - exact) < 3 * error / 2 * exact
    assert_within(results["stationarity"], "fdr1_raw", 1.0, excuse=0.002)
