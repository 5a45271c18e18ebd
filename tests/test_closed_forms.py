"""SGD on a quadratic loss, through the real recorder, store and pipeline, against its closed forms (physics.md 1.5)."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import truth

torch = pytest.importorskip("torch")

from record.quadratic import record_pair, record_quadratic  # noqa: E402
from thermodl.analyze import AnalysisSettings, analyze, open_results, open_run  # noqa: E402
from thermodl.record import RecorderSettings  # noqa: E402

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


def assert_within(
    results: xr.Dataset, name: str, exact: float, *, group: str = "all", excuse: float | None = None, **where: object
) -> None:
    """The value lies within three standard errors of the exact one; these are below `excuse`, a fifth of it if None."""
    value = float(results[name].sel(group=group, **where))
    error = float(results[f"{name}_stderr"].sel(group=group, **where))
    assert error < (0.2 * abs(exact) if excuse is None else excuse), f"{name} {where}: {value} ± {error}"
    assert abs(value - exact) <= 3 * error, f"{name} {where}: {value} ± {error}, exact {exact}"


def test_01_temperatures(case) -> None:
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


def test_02_mean_squared_displacement(case) -> None:
    """2Σ(1 − ρ(τ)) at short and long lags."""
    ball, _, results = case
    diffusion = results["diffusion"]
    exact = ball.mean_squared_displacement(200)
    for lag in (1, 2, 5, 10, 32, 100):
        lag = int(diffusion["lag"].sel(lag=lag, method="nearest"))
        assert_within(diffusion, "mean_squared_displacement", exact[lag], lag=lag)


def test_02_autocorrelation(case) -> None:
    """ρ(τ) of the AR(2) that heavy ball is."""
    ball, _, results = case
    correlation = results["correlation"]
    exact = ball.correlation(200)
    for lag in (1, 2, 5, 10, 32):
        lag = int(correlation["lag"].sel(lag=lag, method="nearest"))
        assert_within(correlation, "parameter_autocorrelation", exact[lag], lag=lag, excuse=0.05)
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
    assert_within(stationarity, "fdr1_centred", 1.0, excuse=0.005)
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
    # One displacement of 64 independent parameters is known to √(2/64), not to the √2 of a single one.
    two_time = diffusion.sel(lag=1000, waiting_time=0, method="nearest")
    steps = int(two_time["lag"])
    walk = 2 * exact * (steps - 2 * 0.9 * (1 - 0.9**steps) / (1 - 0.9**2))
    where = {"lag": steps, "waiting_time": 0}
    assert_within(two_time.expand_dims("lag").expand_dims("waiting_time"), "two_time_mean_squared_displacement",
                  walk, excuse=0.25 * walk, **where)  # fmt: skip


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


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_drift_is_taken_off_and_diffusion_is_not(tmp_path: Path, slope: float) -> None:
    """Without curvature the kinetic temperature holds ηG²/(1−μ)² of a constant slope G; free of it, ηC/(2(1−μ)).

    In 400 steps at μ = 0.9 diffusion alone gives the mean velocity a twentieth of that.
    """
    eta, mu, dimensions = 0.1, 0.9, 2000
    settings = RecorderSettings(probe_every=5, snapshot_every=0, sketch_size=dimensions)
    record_quadratic(tmp_path / "run", learning_rate=eta, momentum=mu, curvature=0.0, slope=slope,
                     dimensions=dimensions, steps=400, settings=settings)  # fmt: skip
    analyze(tmp_path / "run", ["temperature"], AnalysisSettings(segment="1:400"))
    temperature = open_results(tmp_path / "run")["temperature"]
    exact = eta / (2 * (1 - mu))
    assert_within(temperature, "temperature_kinetic", exact + eta * slope**2 / (1 - mu) ** 2, excuse=0.02)
    assert_within(temperature, "temperature_kinetic_drift_free", exact, excuse=0.02 * exact)


def test_optimizer_groups_of_their_own(tmp_path: Path) -> None:
    """Two blocks with their own η and μ: each has its own temperature, clock, FDR1 and D; `all` is their mean."""
    settings = {"slow": (0.02, 0.0), "fast": (0.05, 0.9)}
    record_pair(tmp_path / "run", settings, dimensions=48, steps=6000)
    assert analyze(tmp_path / "run", settings=AnalysisSettings(segment="1:6000")) == {}
    results = open_results(tmp_path / "run")
    balls = {name: truth.HeavyBall(eta, mu) for name, (eta, mu) in settings.items()}
    for name, ball in balls.items():
        for quantity in ("temperature_noise", "temperature_kinetic", "temperature_kinetic_drift_free"):
            assert_within(results["temperature"], quantity, ball.temperature, group=name)
        assert_within(results["temperature"], "temperature_variance",
                      ball.eta / 2 * (ball.noise + ball.lam**2 * ball.variance), group=name)  # fmt: skip
        assert_within(results["stationarity"], "fdr1_centred", 1.0, group=name, excuse=0.01)
        assert_within(results["diffusion"], "diffusion_coefficient_predicted",
                      ball.temperature * ball.eta / (1 - ball.mu), group=name)  # fmt: skip
        ratio = results["diffusion"]["diffusion_coefficient"] / results["diffusion"]["diffusion_coefficient_sgd_time"]
        assert float(ratio.sel(group=name)) == pytest.approx(ball.eta / (1 - ball.mu))
    mean = float(np.mean([ball.temperature for ball in balls.values()]))
    for quantity in ("temperature_noise", "temperature_kinetic", "temperature_kinetic_drift_free"):
        assert_within(results["temperature"], quantity, mean)
    assert_within(results["stationarity"], "fdr1_centred", 1.0, excuse=0.01)
    assert float(results["stationarity"]["identity_residual"].max()) < 1e-10


def test_a_frozen_group_spoils_nobody(tmp_path: Path) -> None:
    """A learning rate of 0 moves nothing: its group has no FDR1, and the others and `all` are what they were."""
    record_pair(tmp_path / "run", {"moving": (0.05, 0.9), "frozen": (0.0, 0.9)}, dimensions=16, steps=3000)
    assert analyze(tmp_path / "run", settings=AnalysisSettings(segment="1:3000")) == {}
    results = open_results(tmp_path / "run")
    stationarity = results["stationarity"]
    for group in ("all", "moving"):
        assert_within(stationarity, "fdr1_centred", 1.0, group=group, excuse=0.02)
        assert float(stationarity["identity_residual"].sel(group=group)) < 1e-10
    assert np.isnan(float(stationarity["fdr1_raw"].sel(group="frozen")))
    assert_within(results["temperature"], "temperature_kinetic_drift_free", 0.05 / (2 * (1 - 0.9)), group="moving")
    assert np.isfinite(results["diffusion"]["diffusion_coefficient_sgd_time"].sel(group="all"))
