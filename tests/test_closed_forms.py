"""SGD on a quadratic loss, through the real recorder, store and pipeline, against its closed forms (physics.md 1.5)."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import truth

torch = pytest.importorskip("torch")

from record.quadratic import record_quadratic  # noqa: E402

from thermodl.analyze import AnalysisSettings, analyze, open_results, open_run  # noqa: E402

DIMENSIONS = 64
SETTINGS = [(eta, mu) for mu in (0.0, 0.9) for eta in (0.05, 0.2, 0.8)]


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda p: f"eta{p[0]}-mu{p[1]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """One recorded and analyzed quadratic; λ = 1, so that ηλ is the learning rate."""
    eta, mu = request.param
    folder = tmp_path_factory.mktemp("quadratic") / "run"
    record_quadratic(folder, learning_rate=eta, momentum=mu, dimensions=DIMENSIONS, seed=int(1000 * eta + 10 * mu))
    steps = open_run(folder).sizes["step"]
    assert analyze(folder, settings=AnalysisSettings(segment=f"1:{steps}")) == {}
    return truth.HeavyBall(eta, mu), folder, open_results(folder)


def assert_within(results: xr.Dataset, name: str, exact: float, errors: float = 3.0, **where: object) -> None:
    """The value of group `all` lies within `errors` standard errors of the exact one, and the error is no excuse."""
    value = float(results[name].sel(group="all", **where))
    error = float(results[f"{name}_stderr"].sel(group="all", **where))
    assert error < 0.2 * abs(exact) + 0.01
    assert abs(value - exact) <= errors * error, f"{name} {where}: {value} ± {error}, exact {exact}"


def test_temperatures(case) -> None:
    """Both thermometers read ηC/(2(1−μ)) at every ηλ, and ⟨v_mid²⟩ = C/(2(1−μ))."""
    ball, _, results = case
    temperature = results["temperature"]
    assert_within(temperature, "temperature_noise", ball.temperature)
    assert_within(temperature, "temperature_kinetic", ball.temperature)
    assert_within(temperature, "kinetic_over_noise", 1.0)
    assert_within(temperature, "noise_trace", DIMENSIONS * ball.noise)
    # T_kin = η⟨v_mid²⟩
    value = float(temperature["temperature_kinetic"].sel(group="all")) / ball.eta
    error = float(temperature["temperature_kinetic_stderr"].sel(group="all")) / ball.eta
    assert abs(value - ball.mid_velocity_squared) <= 3 * error


def test_variance_over_time_reads_more_than_the_noise(case) -> None:
    """Var_t(g) = C + λ²Σ, not C: η·Var(g)/2 reads that."""
    ball, _, results = case
    assert_within(
        results["temperature"], "temperature_variance", ball.eta / 2 * (ball.noise + ball.lam**2 * ball.variance)
    )


def test_mean_squared_displacement(case) -> None:
    """2Σ(1 − ρ(τ)) at short and long lags."""
    ball, _, results = case
    diffusion = results["diffusion"]
    exact = ball.mean_squared_displacement(200)
    for lag in (1, 2, 5, 10, 32, 100):
        lag = int(diffusion["lag"].sel(lag=lag, method="nearest"))
        assert_within(diffusion, "mean_squared_displacement", exact[lag], lag=lag)


def test_autocorrelation(case) -> None:
    """ρ(τ) of the AR(2) that heavy ball is."""
    ball, _, results = case
    correlation = results["correlation"]
    exact = ball.correlation(200)
    for lag in (1, 2, 5, 10, 32):
        lag = int(correlation["lag"].sel(lag=lag, method="nearest"))
        assert_within(correlation, "parameter_autocorrelation", exact[lag], lag=lag)
    tau = 0.5 + ball.correlation(5000)[1:].sum()
    value = float(correlation["parameter_integrated_time"].sel(group="all"))
    assert abs(value - tau) <= 3 * float(correlation["parameter_integrated_time_stderr"].sel(group="all"))


def test_dissipation_splits(case) -> None:
    """η⟨‖g‖²⟩ = ηλ²Σ + ηC per dimension."""
    ball, _, results = case
    dissipation = results["dissipation"]
    descent = ball.eta * ball.lam**2 * ball.variance * DIMENSIONS
    noise = ball.eta * ball.noise * DIMENSIONS
    assert_within(dissipation, "descent_power", descent)
    assert_within(dissipation, "noise_power", noise)
    assert_within(dissipation, "gradient_dissipation", descent + noise)


def test_stationarity(case) -> None:
    """FDR1 holds within its errors, and the recording closes the identity to 1e-10 in float64."""
    _, _, results = case
    stationarity = results["stationarity"]
    assert_within(stationarity, "fdr1_centred", 1.0)
    assert float(stationarity["identity_residual"].max()) < 1e-10
    assert np.all(stationarity["identity_residual"] <= stationarity["identity_floor"])


def test_free_diffusion(tmp_path: Path) -> None:
    """Without curvature D = η²C/(2(1−μ)²), measured and predicted."""
    record_quadratic(tmp_path / "run", learning_rate=0.1, momentum=0.9, curvature=0.0, dimensions=64, steps=6000)
    analyze(tmp_path / "run", ["diffusion"], AnalysisSettings(segment="1:6000"))
    diffusion = open_results(tmp_path / "run")["diffusion"]
    exact = 0.1**2 / (2 * (1 - 0.9) ** 2)
    assert_within(diffusion, "diffusion_coefficient", exact)
    assert_within(diffusion, "diffusion_coefficient_predicted", exact)
    assert_within(diffusion, "diffusion_coefficient_sgd_time", 0.1 / (2 * (1 - 0.9)))


@pytest.mark.parametrize(("dampening", "weight_decay"), [(0.5, 0.0), (0.0, 0.3)])
def test_dampening_and_coupled_decay(tmp_path: Path, dampening: float, weight_decay: float) -> None:
    """Dampening scales the noise temperature by 1−ν; coupled decay adds to the curvature and leaves T alone."""
    eta, mu = 0.2, 0.9
    record_quadratic(
        tmp_path / "run", learning_rate=eta, momentum=mu, dampening=dampening, weight_decay=weight_decay, seed=5
    )
    analyze(tmp_path / "run", settings=AnalysisSettings(segment="1:4000"))
    results = open_results(tmp_path / "run")
    temperature = eta * (1 - dampening) / (2 * (1 - mu))
    assert_within(results["temperature"], "temperature_noise", temperature)
    assert_within(results["temperature"], "temperature_kinetic", temperature)
    assert_within(results["stationarity"], "fdr1_centred", 1.0)
    assert float(results["stationarity"]["identity_residual"].max()) < 1e-10
    ball = truth.HeavyBall(eta * (1 - dampening), mu, 1.0 + weight_decay)
    exact = ball.mean_squared_displacement(20)
    assert_within(results["diffusion"], "mean_squared_displacement", exact[10], lag=10)
