"""Heat and entropy production against linear SGD, whose answers are exact."""

import numpy as np
import pytest
import xarray as xr

from thermodl.analyze import AnalysisSettings
from thermodl.analyze.physics import entropy_production
from thermodl.analyze.settings import NotDefinedError

import truth

STEPS = 2000
COUPLED, UNEQUAL = [[1.0, 0.6], [0.6, 1.0]], np.diag([1.0, 4.0])


def gyrator(momentum: float = 0.0, dampening: float = 0.0) -> truth.LinearDescent:
    """Two coupled coordinates with unequal noise: heat runs from one to the other."""
    return truth.LinearDescent(0.1, momentum, COUPLED, UNEQUAL, dampening)


def recorded(process: truth.LinearDescent, seed: int, steps: int = STEPS, each: int = 1) -> xr.Dataset:
    """A run as `open_run` gives it: each of `each` layers and groups holds an equal part of the coordinates."""
    theta, velocity, gradient, probe = (
        one[0].reshape(each, -1, steps) for one in process.simulate(np.random.default_rng(seed), 1, steps)
    )
    names = [f"group{index}" for index in range(each)]

    def moment(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.sum(left * right, axis=1)

    layered = {
        "gradient_squared": moment(gradient, gradient),
        "velocity_squared": moment(velocity, velocity),
        "velocity_dot_gradient": moment(velocity, gradient),
        "displacement_squared": moment(theta, theta),
    }
    constants = {
        "learning_rate": process.eta,
        "momentum": process.mu,
        "dampening": process.nu,
        "weight_decay": 0.0,
    }
    return xr.Dataset(
        {name: (("layer", "step"), values) for name, values in layered.items()}
        | {name: (("optimizer_group", "step"), np.full((1, steps), value)) for name, value in constants.items()}
        | {
            "parameter_sketch": (("group", "sketch", "step"), theta),
            "gradient_sketch": (("group", "sketch", "step"), gradient),
            "probe_sketch": (("group", "sketch", "probe"), probe),
            "noise_trace": (("layer", "probe"), moment(gradient - probe, gradient - probe) / 2),
            "gradient_dot": (("layer", "probe"), moment(gradient, probe)),
            "probe_step": ("probe", np.arange(steps)),
        },
        coords={
            "group": names,
            "layer": names,
            "step": np.arange(steps),
            "sgd_time": ("step", process.eta / (1 - process.mu) * np.arange(steps)),
            "layer_group": ("layer", names),
            "layer_size": ("layer", np.full(each, theta.shape[1])),
            "layer_optimizer_group": ("layer", np.zeros(each, int)),
        },
        attrs={"optimizer": {"class": "SGD", "nesterov": False}, "sampling": "replacement"},
    )


def test_10_gyrator_and_rotation_in_discrete_time() -> None:
    """Must-pass 10: kinetic and spectral forms, the fit's residual form, and 4ηw²/(2k−η(k²+w²)) agree."""
    eta, k, w = 0.1, 1.0, 2.0
    turning = truth.LinearDescent(eta, 0.0, [[k, w], [-w, k]], np.eye(2))
    assert turning.entropy_production == pytest.approx(4 * eta * w**2 / (2 * k - eta * (k**2 + w**2)), rel=1e-9)
    for process in (turning, gyrator()):
        one_step = np.eye(2) - process.eta * process.curvature
        sigma, _, _ = entropy_production.irreversibility(one_step, process.eta**2 * process.noise)
        assert sigma == pytest.approx(process.entropy_production, rel=1e-9)
        assert sigma == pytest.approx(process.entropy_production_of_the_spectrum, rel=1e-9)


@pytest.mark.parametrize("dampening", [0.0, 0.3])
def test_11_heavy_ball_three_ways(dampening: float) -> None:
    """Must-pass 11: residual form of order 2 = spectral = kinetic; nothing for one coordinate."""
    process = gyrator(0.9, dampening)
    rate = process.eta * (1 - dampening)
    coefficients = np.concatenate([1.9 * np.eye(2) - rate * process.curvature, -0.9 * np.eye(2)], axis=1)
    sigma, _, _ = entropy_production.irreversibility(coefficients, rate**2 * process.noise)
    assert sigma == pytest.approx(process.entropy_production, rel=1e-8)
    assert sigma == pytest.approx(process.entropy_production_of_the_spectrum, rel=1e-8)
    alone, _, _ = entropy_production.irreversibility(coefficients[:1, ::2], rate**2 * process.noise[:1, :1])
    assert alone == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("momentum", "dampening"), [(0.0, 0.0), (0.9, 0.3)])
def test_12_heat_of_each_coordinate(momentum: float, dampening: float) -> None:
    """Must-pass 12: both forms, within three errors of theory, with a sum of 0."""
    process = gyrator(momentum, dampening)
    results = entropy_production.estimate(recorded(process, 1, 20_000, each=2), AnalysisSettings(segment="0:20000"))
    exact = np.array([process.heat.sum(), *process.heat])
    for name in ("heat", "heat_direct"):
        assert np.all(np.abs(results[name] - exact) < 3.5 * results[f"{name}_stderr"])
    # Without momentum the heat is 3.5 of its errors, which no single run is sure to show.
    assert momentum == 0 or results["heat"].sel(group="group0") > 3 * results["heat_stderr"].sel(group="group0")
    assert results["power_ratio"] == pytest.approx(1, abs=3 * float(results["power_ratio_stderr"]))
    # Both coordinates together turn; each alone cannot.
    error = float(results["entropy_production_stderr"][0])
    assert abs(float(results["entropy_production"][0]) - process.entropy_production) < 3.5 * error
    assert np.isnan(results["entropy_production"][1:]).all()


@pytest.mark.slow
def test_13_chance_is_as_stated_in_equilibrium(monkeypatch: pytest.MonkeyPatch) -> None:
    """Must-pass 13: p below 0.05 in 5 % of equilibrium motions, no bias; of order 1 by χ², of 2 by surrogates."""
    monkeypatch.setattr(entropy_production, "_SURROGATES", 60)
    curvature, noise = np.diag([1.0, 0.6, 0.3]), np.diag([1.0, 4.0, 1.0])
    for momentum in (0.0, 0.9):
        process = truth.LinearDescent(0.1, momentum, curvature, noise)
        theta, *_ = process.simulate(np.random.default_rng(2), 100, STEPS)
        found = [entropy_production.turning(one, np.random.default_rng(i)) for i, one in enumerate(theta)]
        sigma, chance = (
            np.array([one[name] for one in found]) for name in ("entropy_production", "entropy_production_p")
        )
        assert abs(sigma.mean()) < 3 * sigma.std() / 10
        # Three spreads of a fraction of 100.
        assert np.mean(chance < 0.05) <= 0.05 + 3 * 0.022


@pytest.mark.slow
def test_entropy_production_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    """95 % intervals of a gyrator and of a heavy ball hold σ."""
    monkeypatch.setattr(entropy_production, "_SURROGATES", 60)
    for momentum in (0.0, 0.9):
        process = gyrator(momentum)
        theta, *_ = process.simulate(np.random.default_rng(3), 100, STEPS)
        found = [entropy_production.turning(one, np.random.default_rng(i)) for i, one in enumerate(theta)]
        sigma, error = (
            np.array([one[name] for one in found]) for name in ("entropy_production", "entropy_production_stderr")
        )
        assert abs(sigma.mean() - process.entropy_production) < 3 * sigma.std() / 10
        assert np.mean(np.abs(sigma - process.entropy_production) <= 1.96 * error) >= 0.95 - 3 * 0.022


def test_what_cannot_be_had_is_said() -> None:
    """Other optimizers, no probes, nothing that moves, shuffled epochs; no warnings."""
    settings, run = AnalysisSettings(segment="0:400", modes=2), recorded(gyrator(), 4, 400)
    with pytest.raises(NotDefinedError, match="not defined for Adam"):
        entropy_production.estimate(run.assign_attrs(optimizer={"class": "Adam", "nesterov": False}), settings)
    shuffled = entropy_production.estimate(run.assign_attrs(sampling="shuffle"), settings)
    assert "coloured-noise" in [one["code"] for one in shuffled.attrs["verdicts"]]
    bare = entropy_production.estimate(run.drop_vars([*[n for n in run if "probe" in run[n].dims]]), settings)
    assert "heat" not in bare
    assert np.isfinite(bare["entropy_production"]).all()
    frozen = run.assign(parameter_sketch=0 * run["parameter_sketch"])
    results = entropy_production.estimate(frozen, settings)
    assert np.isnan(results["entropy_production"]).all()
    assert "one-direction" in [one["code"] for one in results.attrs["verdicts"]]
