"""Heat and entropy production against linear SGD, whose answers are exact."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from thermodl.analyze import AnalysisSettings, autoregression
from thermodl.analyze.physics import entropy_production
from thermodl.analyze.settings import NotDefinedError

import truth

STEPS = 2000
REPLICATES = 1000
COUPLED, UNEQUAL = [[1.0, 0.6], [0.6, 1.0]], np.diag([1.0, 4.0])
NEIGHBOURS = np.eye(4) + 0.4 * (np.eye(4, k=1) + np.eye(4, k=-1))
CHAIN = truth.LinearDescent(0.1, 0.9, NEIGHBOURS, np.diag([1.0, 4.0, 2.0, 8.0]))
HEATS = ("heat", "heat_stderr", "heat_direct", "heat_direct_stderr")


def gyrator(momentum: float = 0.0, dampening: float = 0.0) -> truth.LinearDescent:
    """Two coupled coordinates with unequal noise: heat runs from one to the other."""
    return truth.LinearDescent(0.1, momentum, COUPLED, UNEQUAL, dampening)


def recorded(
    process: truth.LinearDescent,
    seed: int,
    steps: int = STEPS,
    each: int = 1,
    replicates: int = 1,
    probe_every: int = 1,
) -> xr.Dataset:
    """A run as `open_run` gives it: of each replicate every one of `each` layers and groups holds an equal part."""
    theta, velocity, gradient, probe = (
        one.reshape(replicates * each, -1, steps)
        for one in process.simulate(np.random.default_rng(seed), replicates, steps)
    )
    names = [f"group{index}" for index in range(replicates * each)]
    probes, at = probe[..., ::probe_every], np.arange(0, steps, probe_every)
    difference = gradient[..., at] - probes

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
            "probe_sketch": (("group", "sketch", "probe"), probes),
            "noise_trace": (("layer", "probe"), moment(difference, difference) / 2),
            "gradient_dot": (("layer", "probe"), moment(gradient[..., at], probes)),
            "probe_step": ("probe", at),
        },
        coords={
            "group": names,
            "layer": names,
            "step": np.arange(steps),
            "sgd_time": ("step", process.eta / (1 - process.mu) * np.arange(steps)),
            "layer_group": ("layer", names),
            "layer_size": ("layer", np.full(len(names), theta.shape[1])),
            "layer_optimizer_group": ("layer", np.zeros(len(names), int)),
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
        sigma, _, _ = autoregression.irreversibility(one_step, process.eta**2 * process.noise)
        assert sigma == pytest.approx(process.entropy_production, rel=1e-9)
        assert sigma == pytest.approx(process.entropy_production_of_the_spectrum, rel=1e-9)


@pytest.mark.parametrize("dampening", [0.0, 0.3])
def test_11_heavy_ball_three_ways(dampening: float) -> None:
    """Must-pass 11: residual form of order 2 = spectral = kinetic; nothing for one coordinate."""
    process = gyrator(0.9, dampening)
    rate = process.eta * (1 - dampening)
    coefficients = np.concatenate([1.9 * np.eye(2) - rate * process.curvature, -0.9 * np.eye(2)], axis=1)
    sigma, _, _ = autoregression.irreversibility(coefficients, rate**2 * process.noise)
    assert sigma == pytest.approx(process.entropy_production, rel=1e-8)
    assert sigma == pytest.approx(process.entropy_production_of_the_spectrum, rel=1e-8)
    alone, _, _ = autoregression.irreversibility(coefficients[:1, ::2], rate**2 * process.noise[:1, :1])
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


def turned(process: truth.LinearDescent, steps: int, seed: int) -> dict[str, np.ndarray]:
    """What `turning` finds in each of `REPLICATES` motions, the circulation between different directions once."""
    theta, *_ = process.simulate(np.random.default_rng(seed), REPLICATES, steps)
    found = [autoregression.turning(one, np.random.default_rng(index)) for index, one in enumerate(theta)]
    columns = {name: np.stack([one[name] for one in found]) for name in found[0]}
    pairs = np.triu_indices(process.size, 1)
    return columns | {name: columns[name][:, *pairs] for name in ("circulation", "circulation_stderr")}


def exact(process: truth.LinearDescent) -> dict[str, Any]:
    """σ, the fastest cycling frequency and the circulation of the positions."""
    velocity, position = process.moments[: process.size], process.moments[process.size :]
    equal, drift = position[:, process.size :], process.mu * velocity[:, process.size :]
    # ⟨x_t x_{t+1}ᵀ⟩ with x_{t+1} = x_t − η(μv_t + (1−ν)(Hx_t + ξ_t)).
    later = equal - process.eta * (drift.T + (1 - process.nu) * equal @ process.curvature.T)
    area = (later - later.T) / 2
    deviation = np.sqrt(np.diag(equal))
    return {
        "entropy_production": process.entropy_production,
        "cycling_frequency": np.max(np.linalg.eigvals(area @ np.linalg.inv(equal)).imag),
        "circulation": (area / np.outer(deviation, deviation))[np.triu_indices(process.size, 1)],
    }


def covered(found: dict[str, np.ndarray], name: str, answer: Any, bias: float) -> np.ndarray:
    """Fraction of replicates whose 95 % interval holds the answer; their mean is off by at most `bias` of an error."""
    value, error = found[name], found[f"{name}_stderr"]
    shift = np.abs(value.mean(0) - answer) / value.std(0)
    assert np.all(shift < bias + 4 / np.sqrt(REPLICATES)), f"{name} is biased by {shift} of an error"
    return np.mean(np.abs(value - answer) <= 1.959964 * error, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_13_chance_is_as_stated_in_equilibrium(momentum: float) -> None:
    """Must-pass 13: p below 0.05 in 5 % of equilibrium motions, no bias; of order 1 by χ², else by scattered fits."""
    process = truth.LinearDescent(0.1, momentum, np.diag([1.0, 0.6, 0.3]), np.diag([1.0, 4.0, 1.0]))
    found = turned(process, STEPS, 2)
    assert covered(found, "entropy_production", 0.0, bias=0.1) >= 0.95
    # Of chance alone it is √(v₀ + (zg/2)²), and twice that for the largest σ̂.
    error = found["entropy_production_stderr"]
    assert np.max(error) <= 3 * np.median(error)
    # Three spreads of a fraction of 1,000.
    assert 0.03 <= np.mean(found["entropy_production_p"] < 0.05) <= 0.07
    assert np.mean(found["cycling_frequency"] > found["cycling_frequency_null"]) == pytest.approx(0.05, abs=0.025)
    fraction = covered(found, "circulation", 0.0, bias=0.0)
    assert np.all((fraction >= 0.93) & (fraction <= 0.97)), fraction


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "steps"),
    [
        (gyrator(), 1000),
        (gyrator(0.9), 1000),
        (truth.LinearDescent(0.1, 0.0, [[1.0, 2.0], [-2.0, 1.0]], np.eye(2)), 300),
        (CHAIN, 2000),
    ],
    ids=["gyrator", "heavy ball", "rotation", "chain"],
)
def test_irreversibility_covers(process: truth.LinearDescent, steps: int) -> None:
    """σ, circulation and the fastest cycling where it is well above chance: 40 integrated times or more."""
    found, answer = turned(process, steps, 5), exact(process)
    # Of the skewness of products and the memory of a short series there is a part of an error left.
    assert 0.93 <= covered(found, "entropy_production", answer["entropy_production"], bias=0.2) <= 0.97
    fraction = covered(found, "circulation", answer["circulation"], bias=0.3)
    assert np.all((fraction >= 0.925) & (fraction <= 0.975)), fraction
    answered, level = answer["cycling_frequency"], np.median(found["cycling_frequency_null"])
    assert answered > 2 * level
    assert 0.93 <= covered(found, "cycling_frequency", answered, bias=0.3) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("coupling", [0.1, 0.3])
def test_irreversibility_covers_currents_that_could_be_chance(coupling: float) -> None:
    """Never too rarely, σ nearly always: from far below to about what is told from equilibrium in half the cases."""
    process = truth.LinearDescent(0.1, 0.0, [[1.0, coupling], [coupling, 1.0]], UNEQUAL)
    found, answer = turned(process, 1000, 4), exact(process)
    assert covered(found, "entropy_production", answer["entropy_production"], bias=0.1) >= 0.95
    # Of two directions the frequency is |Q₁₂| over their sizes, and only the sign of Q₁₂ is lost.
    assert 0.93 <= covered(found, "cycling_frequency", answer["cycling_frequency"], bias=0.5) <= 0.985


def test_walks_have_an_estimate_or_none() -> None:
    """Fits that are next to not stationary are refused one by one, and never break the analysis."""
    rng = np.random.default_rng(7)
    walks = np.cumsum(rng.standard_normal((40, 3, 500)), axis=-1)
    for walk in walks:
        found = autoregression.turning(walk, rng)
        numbers = [found[name] for name in ("entropy_production", "entropy_production_stderr", "entropy_production_p")]
        assert np.isfinite(numbers).all() or np.isnan(numbers).all()


def test_an_error_does_not_grow_where_the_estimate_vanishes() -> None:
    """σ̂ of two directions in equilibrium comes out as near to 0 as one likes; its error stays that of chance."""
    process = truth.LinearDescent(0.1, 0.0, np.eye(2), np.eye(2))
    theta, *_ = process.simulate(np.random.default_rng(8), 200, 500)
    found = [autoregression.turning(one, np.random.default_rng(9)) for one in theta]
    plugin, error = (np.array([one[f"entropy_production{name}"] for one in found]) for name in ("_plugin", "_stderr"))
    assert np.min(plugin) < 1e-3 * np.median(plugin)
    # √(v₀ + (zg/2)²) = 8/N, and 13/N for the largest of 200.
    assert np.max(error) <= 3 * np.median(error)


def test_scattered_fits_are_those_of_motions() -> None:
    """Variances of σ̂, of the cycling and of the circulation from one fit are those over motions, within 25 %."""
    process = gyrator(0.9)
    theta, *_ = process.simulate(np.random.default_rng(5), 300, STEPS)
    fits = [autoregression.autoregression(autoregression.gram(one, 2), 2) for one in theta]
    sigma, rates, circulation = (
        np.stack(values) for values in zip(*[autoregression.irreversibility(*fit) for fit in fits], strict=True)
    )
    one_step = 1.9 * np.eye(2) - process.eta * process.curvature
    coefficients = np.concatenate([one_step, -0.9 * np.eye(2)], axis=1)
    moments = autoregression.stationary_moments(coefficients, process.eta**2 * process.noise)
    drawn = autoregression.irreversibility(*autoregression.scattered(moments, 2, STEPS, np.random.default_rng(6)))
    for values, near in zip((sigma, rates, circulation), drawn, strict=True):
        np.testing.assert_allclose(values.std(0), near.std(0), rtol=0.25, atol=1e-12)


def test_the_leading_direction_is_not_hot_by_choice() -> None:
    """In equilibrium no direction takes up heat, and least of all the one that by chance varies most."""
    process = truth.LinearDescent(0.1, 0.9, 0.1 * np.eye(64), np.eye(64))
    settings = AnalysisSettings(segment="0:2000")
    found = [
        entropy_production.estimate(recorded(process, seed, 2000), settings).sel(group="all") for seed in range(12)
    ]
    heat, error = (np.array([one[name][0] for one in found]) for name in ("mode_heat", "mode_heat_stderr"))
    assert abs(heat.mean()) < 3 * error.mean() / np.sqrt(len(heat))


@pytest.mark.slow
@pytest.mark.parametrize(("momentum", "dampening"), [(0.0, 0.0), (0.9, 0.3)])
def test_heat_covers(momentum: float, dampening: float) -> None:
    """q in both forms and over its temperature, with probes at every tenth step; a group is one coordinate."""
    process, batch = gyrator(momentum, dampening), 250
    settings = AnalysisSettings(segment=f"0:{STEPS}", windows=2, modes=2)
    parts = []
    for seed in range(REPLICATES // batch):
        run = recorded(process, seed, STEPS, each=2, replicates=batch, probe_every=10)
        results = entropy_production.estimate(run, settings).isel(group=slice(1, None))
        moved = {"mode_heat": results["mode_heat"][:, 0], "mode_heat_stderr": results["mode_heat_stderr"][:, 0]}
        parts.append({name: results[name] for name in HEATS} | moved)
    found = {name: np.concatenate([one[name].values for one in parts]).reshape(-1, 2) for name in parts[0]}
    temperature = process.eta * (1 - dampening) * np.diag(process.noise) / (2 * (1 - momentum))
    for name, answer in (
        ("heat", process.heat),
        ("heat_direct", process.heat),
        ("mode_heat", process.heat / temperature),
    ):
        fraction = covered(found, name, answer, bias=0.2)
        assert np.all((fraction >= 0.93) & (fraction <= 0.98)), (name, fraction)


def test_what_cannot_be_had_is_said() -> None:
    """Other optimizers, no probes, nothing that moves, shuffled epochs; no warnings."""
    settings, run = AnalysisSettings(segment="0:400", modes=2), recorded(gyrator(), 4, 400)
    with pytest.raises(NotDefinedError, match="under Adam the noise has another"):
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


@pytest.mark.parametrize(
    ("heat", "fall", "status", "words"),
    [
        (1e-3, 0.9e-3, "ok", "agrees with the decrease of the loss"),
        (1e-3, 0.2e-3, "caution", "does not agree with"),
        (1.9e-4, -1e-6, "caution", "nothing can be said"),
    ],
)
def test_a_balance_of_what_is_not_known_to_differ_from_0_is_none(
    heat: float, fall: float, status: str, words: str
) -> None:
    """The error, 1e-4, is that of the heat."""
    of_all = {"heat": heat, "heat_direct": heat, "heat_direct_stderr": 1e-4}
    alone = {"power_ratio": 1.0, "power_ratio_stderr": 0.01, "loss_decrease": fall, "loss_decrease_stderr": 0.0}
    results = xr.Dataset({name: ("group", [value]) for name, value in of_all.items()}, {"group": ["all"]})
    (found,) = entropy_production._balance(results.assign(alone))
    assert found["status"] == status
    assert words in found["en"]


@pytest.mark.parametrize(("steps", "expected"), [(150, "order-limited"), (600, "not-seen")])
def test_equilibrium_with_momentum_is_not_called_irreversible(steps: int, expected: str) -> None:
    """The same temperature in four directions, in a motion too short for the second order that it has, and longer."""
    process = truth.LinearDescent(0.1, 0.9, 2 * np.eye(4), np.eye(4))
    found = []
    for seed in range(30):
        results = entropy_production.estimate(
            recorded(process, seed, steps), AnalysisSettings(segment=f"0:{steps}", modes=4, windows=2)
        )
        found.append({one["code"] for one in results.attrs["verdicts"] if one["quantity"] == "entropy_production"})
    assert sum("irreversible" in codes for codes in found) <= (0 if expected == "order-limited" else 2)
    assert sum(expected in codes for codes in found) >= 25
