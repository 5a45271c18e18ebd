"""Response and fluctuation–dissipation ratio: theory to rounding, error bars on replicates, motion with X ≠ 1.

Every replicate is a group of one run of SGD with momentum on a quadratic loss, as in `test_coverage.py`.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from thermodl.analyze import AnalysisSettings
from thermodl.analyze.physics import response
from thermodl.analyze.settings import AnalysisError, NotDefinedError

import truth

REPLICATES, BATCH = 1000, 125
"""a run of many groups takes the square of their number"""


@dataclass(frozen=True)
class Motion:
    """θ_i of `dimensions` parameters: curvature λ_i, noise of variance C_i and correlation a^|t−s| between steps."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    curvature: tuple[float, ...] = (0.0,)
    noise: tuple[float, ...] = (1.0,)
    colour: float = 0.0
    cubic: float = 0.0
    dimensions: int = 16
    steps: int = 600
    probe_every: int = 1
    sketch: int | None = None

    def spread(self, values: tuple[float, ...]) -> np.ndarray:
        """A value for every dimension."""
        return np.resize(np.array(values), self.dimensions)

    def exact_ratio(self, longest: int) -> np.ndarray:
        """X_Δ at lags 1 to `longest` from the linear recursion of (θ, v, ξ) of each confined direction."""
        eta, mu, a = self.learning_rate, self.momentum, self.colour
        response_sum, displacement = np.zeros(longest), np.zeros(longest + 2)
        for curvature, noise in zip(self.spread(self.curvature), self.spread(self.noise), strict=True):
            # v' = μv + λθ + ξ, θ' = θ − ηv', ξ' = aξ + w
            step = np.array(
                [[1 - eta * curvature, -eta * mu, -eta], [curvature, mu, 1.0], [0.0, 0.0, a]],
            )
            drive = np.diag([0.0, 0.0, (1 - a**2) * noise])
            whole = np.linalg.solve(np.eye(9) - np.kron(step, step), drive.ravel()).reshape(3, 3)
            later = [whole]
            for _ in range(longest + 1):
                later.append(step @ later[-1])
            response_sum += np.cumsum([whole[0, 2] - one[0, 2] for one in later[1 : longest + 1]])
            displacement += 2 * np.array([whole[0, 0] - one[0, 0] for one in later])
        lag = np.arange(1, longest + 1)
        held = (displacement[lag] + displacement[lag + 1] - displacement[1]) / 2
        return eta / (1 - mu) * response_sum / held

    def run(self, rng: np.random.Generator, groups: int = BATCH) -> xr.Dataset:
        """A run as `open_run` gives it, of groups that share nothing but their hyper-parameters."""
        shape, width = (groups, self.dimensions), self.sketch or self.dimensions
        curvature, scale, a = self.spread(self.curvature), np.sqrt(self.spread(self.noise)), self.colour
        signs = rng.choice([-1.0, 1.0], shape) if width < self.dimensions else np.ones(shape)
        steps, burn_in = (
            self.steps,
            round(20 / (1 - self.momentum) + 10 / max(0.05, self.learning_rate * min(curvature) or 1)),
        )
        at = np.arange(0, steps, self.probe_every)
        seen = {name: np.empty((groups, width, steps)) for name in ("parameter", "gradient")}
        probe, trace = np.empty((groups, width, len(at))), np.empty((groups, len(at)))
        moved = np.empty((groups, steps))
        theta, velocity, xi = np.zeros(shape), np.zeros(shape), rng.standard_normal(shape)
        start = theta
        for step in range(-burn_in, steps):
            start = theta if step == 0 else start
            slope = curvature * theta + self.cubic * theta**3
            gradient = slope + scale * xi
            if step >= 0:
                moved[:, step] = np.sum((theta - start) ** 2, 1)
                for name, values in (("parameter", theta), ("gradient", gradient)):
                    seen[name][:, :, step] = fold(values * signs, width)
                if step % self.probe_every == 0:
                    other = slope + scale * rng.standard_normal(shape)
                    probe[:, :, step // self.probe_every] = fold(other * signs, width)
                    trace[:, step // self.probe_every] = np.sum((gradient - other) ** 2, 1) / 2
            velocity = self.momentum * velocity + gradient
            theta = theta - self.learning_rate * velocity
            xi = a * xi + np.sqrt(1 - a**2) * rng.standard_normal(shape)
        names = [f"replicate{index}" for index in range(groups)]
        constants = {"learning_rate": self.learning_rate, "momentum": self.momentum, "dampening": 0.0}
        return xr.Dataset(
            {
                "displacement_squared": (("layer", "step"), moved),
                "parameter_sketch": (("group", "sketch", "step"), seen["parameter"]),
                "gradient_sketch": (("group", "sketch", "step"), seen["gradient"]),
                "probe_sketch": (("group", "sketch", "probe"), probe),
                "noise_trace": (("layer", "probe"), trace),
                "probe_step": ("probe", at),
            }
            | {
                name: (("optimizer_group", "step"), np.full((1, steps), value))
                for name, value in (constants | {"weight_decay": 0.0}).items()
            },
            coords={
                "group": names,
                "layer": names,
                "step": np.arange(steps),
                "sgd_time": ("step", self.learning_rate / (1 - self.momentum) * np.arange(steps)),
                "layer_group": ("layer", names),
                "layer_size": ("layer", np.full(groups, self.dimensions)),
                "layer_optimizer_group": ("layer", np.zeros(groups, int)),
            },
            attrs={"optimizer": {"class": "SGD", "nesterov": False}, "sampling": "replacement"},
        )


def fold(values: np.ndarray, width: int) -> np.ndarray:
    """Strided sums, as the sketch takes them."""
    return values.reshape(len(values), -1, width).sum(1)


def analyzed(run: xr.Dataset, per_decade: int = 3, start: int = 0) -> xr.Dataset:
    """The whole of a run."""
    return response.estimate(run, AnalysisSettings(segment=f"{start}:{run.sizes['step']}", lags_per_decade=per_decade))


def replicated(motion: Motion) -> xr.Dataset:
    """Results of `REPLICATES` motions, (group, …)."""
    rng = np.random.default_rng(1)
    parts = [analyzed(motion.run(rng)).isel(group=slice(1, None)) for _ in range(REPLICATES // BATCH)]
    return xr.concat(parts, "group", data_vars="all", combine_attrs="override")


def naive(run: xr.Dataset, lag: int) -> dict[str, float]:
    """Everything at one lag of the first group, origin by origin, as the formulas are written."""
    eta, mu = float(run["learning_rate"][0, 0]), float(run["momentum"][0, 0])
    x, g = run["parameter_sketch"][0].values, run["gradient_sketch"][0].values
    middle = x.mean(1)
    sums = dict.fromkeys(("response", "summed", "noise", "displacement", "correlation", "asymmetry"), 0.0)
    for index, s in enumerate(run["probe_step"].values):
        t = s + lag
        if s < 1 or t + 1 >= x.shape[1]:
            continue
        other = run["probe_sketch"][0, :, index].values
        xi = g[:, s] - other
        sums["response"] -= (x[:, t] - x[:, s]) @ xi
        sums["summed"] -= sum((x[:, s + u] - x[:, s]) @ xi for u in range(1, lag + 1))
        sums["noise"] += xi @ xi / 2
        squared = [np.sum((x[:, s + u] - x[:, s]) ** 2) for u in (lag, lag + 1, 1)]
        sums["displacement"] += (squared[0] + squared[1] - squared[2]) / 2
        c = x - middle[:, None]
        sums["correlation"] += c[:, t] @ (c[:, t] + c[:, t - 1] - c[:, s] - c[:, s - 1])
        sums["asymmetry"] += (x[:, t] - x[:, s]) @ (other + g[:, t])
    origins = np.sum((run["probe_step"].values >= 1) & (run["probe_step"].values + lag + 1 < x.shape[1]))
    return {
        "response": sums["response"] / sums["noise"],
        "integrated_response": sums["summed"] / sums["noise"],
        "displacement_ratio": eta / (1 - mu) * sums["summed"] / sums["displacement"],
        "correlation_ratio": eta / (1 - mu) * sums["summed"] / sums["correlation"],
        "asymmetry": sums["asymmetry"] / origins,
    }


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("curvature", [0.0, 0.5, 1.0, 8.0, 15.0])
def test_theory_lies_on_the_fluctuation_dissipation_line(momentum: float, curvature: float) -> None:
    """c(τ−1) − c(τ+1) = 2T R(τ) and X_Δ = 1 to 1e-10 (physics.md, must-pass 3), at every ηλ and for free motion."""
    eta, longest = 0.1, 200
    pushed = [eta, eta * (1 + momentum - eta * curvature)]
    while len(pushed) < longest:
        pushed.append((1 + momentum - eta * curvature) * pushed[-1] - momentum * pushed[-2])
    ball = truth.HeavyBall(eta, momentum, curvature or 1.0)
    lag = np.arange(1, longest + 1)
    if curvature:
        correlation = ball.variance * ball.correlation(longest + 1)
        line = correlation[lag - 1] - correlation[lag + 1]
        assert np.max(np.abs(line - 2 * ball.temperature * np.array(pushed))) < 1e-10 * ball.variance
        moved = ball.mean_squared_displacement(longest + 1)
        if curvature < 15 or momentum:
            assert Motion(momentum=momentum, curvature=(curvature,), dimensions=1).exact_ratio(50) == pytest.approx(
                1, abs=1e-10
            )
    else:
        every = np.arange(longest + 2)
        moved = (eta / (1 - momentum)) ** 2 * (every - 2 * momentum * (1 - momentum**every) / (1 - momentum**2))
    held = (moved[lag] + moved[lag + 1] - moved[1]) / 2
    assert np.max(np.abs(eta / (1 - momentum) * np.cumsum(pushed) - held)) < 1e-10 * moved.max()


def test_estimates_are_those_of_the_formulas() -> None:
    """Against the sums written out; the jackknife moves a ratio by less than its error."""
    motion = Motion(curvature=(0.5, 2.0), dimensions=4, steps=400, probe_every=3)
    run = motion.run(np.random.default_rng(2), groups=2)
    results = analyzed(run, per_decade=4)
    assert set(results["lag"].values) >= {1, 100}
    for lag in results["lag"].values:
        for name, value in naive(run, lag).items():
            here = results.sel(lag=lag, group="replicate0")
            if name == "asymmetry":
                assert float(here[name]) == pytest.approx(value, rel=1e-9, abs=1e-12)
            elif name in here:
                assert abs(here[name] - value) < here[f"{name}_stderr"], (name, lag)


def test_products_are_those_of_the_formulas() -> None:
    """The kernel to rounding, with origins at both ends that have no neighbour."""
    rng = np.random.default_rng(3)
    x, g, xi, other = (rng.standard_normal((3, size)) for size in (40, 40, 40, 40))
    x = x.cumsum(1)
    found = response.series.response_products(x, g, xi, other, np.arange(40), np.array([1, 7]))
    assert np.isnan(found[:, :, 0]).all()
    assert np.isnan(found[:, 1, 32:]).all()
    s, t = 11, 18
    d = x[:, t] - x[:, s]
    ahead, behind = np.sum((x[:, t + 1] - x[:, s]) ** 2), np.sum((x[:, t - 1] - x[:, s]) ** 2)
    exact = [
        -d @ xi[:, s],
        -sum((x[:, s + u] - x[:, s]) @ xi[:, s] for u in range(1, 8)),
        (d @ d + ahead - np.sum((x[:, s + 1] - x[:, s]) ** 2)) / 2,
        x[:, t] @ (x[:, t] + x[:, t - 1]) / 2,
        x[:, t] @ (x[:, s] + x[:, s - 1]) / 2,
        d @ (other[:, s] + g[:, t]),
        (ahead - behind) / 2,
        d @ (xi[:, s] + other[:, s] + g[:, t]),
    ]
    assert found[:, 1, s] == pytest.approx(exact, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("motion", "highest"),
    [
        # Probes further apart than the velocity remembers give errors that fit, closer ones such that are safe.
        (Motion(probe_every=10, steps=2000, dimensions=8), 0.98),
        (Motion(probe_every=10, steps=2000, dimensions=8, curvature=(1.0,)), 0.985),
        (Motion(momentum=0.0, probe_every=5, steps=1000, curvature=(0.3, 1.0, 3.0), noise=(4.0, 0.1, 1.0)), 0.985),
        (Motion(), 1.0),
        (Motion(momentum=0.0, curvature=(1.0,)), 1.0),
        (Motion(dimensions=64, sketch=16, steps=800, probe_every=10), 1.0),
        # Noise that remembers: what is measured is not the response, and not 1, but has an exact value.
        (Motion(curvature=(1.0,), colour=-0.3, probe_every=5, steps=1000), 1.0),
        (Motion(curvature=(0.3, 1.0), colour=0.5, probe_every=5, steps=1000), 1.0),
    ],
)
def test_displacement_ratio_covers(motion: Motion, highest: float) -> None:
    """Confined and free, with unequal noise, through a sketch, and where X is not 1: unbiased at every lag."""
    results = replicated(motion)
    lag = results["lag"].values
    exact = np.ones(len(lag)) if min(motion.curvature) == 0 else motion.exact_ratio(int(lag[-1]))[lag - 1]
    assert motion.colour == 0 or np.max(np.abs(exact - 1)) > 0.3
    value, error = results["displacement_ratio"], results["displacement_ratio_stderr"]
    z = (value.mean("group") - exact) / (value.std("group") / np.sqrt(REPLICATES))
    fraction = (abs(value - xr.DataArray(exact, dims="lag")) <= 1.959964 * error).mean("group")
    many = lag <= motion.steps / 40
    # Eight lags that share their noise; of the longest the jackknife leaves a little.
    assert np.all(np.abs(z[many]) < 3.5), z.values
    assert np.all(np.abs(z) < 4.5), z.values
    assert np.all((fraction[many] >= 0.93) & (fraction[many] <= highest)), fraction.values
    assert np.all(fraction >= 0.9), fraction.values
    # The gap of an identity that holds is a normal score, or less where origins are neighbours and it telescopes.
    spread = results["asymmetry_z"].std("group")
    assert np.all(spread < 1.1), spread.values
    assert np.all(abs(results["asymmetry_z"].mean("group")) < 4.5 * spread / np.sqrt(REPLICATES))


def verdicts(results: xr.Dataset) -> dict[tuple[str, str], str]:
    """Status by quantity and code."""
    return {(one["quantity"], one["code"]): one["status"] for one in results.attrs["verdicts"]}


def test_one_long_run_agrees_and_its_identity_closes() -> None:
    """X = 1 and A = 0 of a quadratic loss; A ≠ 0 with the identity still closed where there is a quartic one."""
    rng = np.random.default_rng(4)
    quadratic = analyzed(Motion(curvature=(1.0,), steps=3000).run(rng, groups=2), start=1).sel(group="all")
    said = verdicts(quadratic)
    assert said["asymmetry", "identity-closes"] == "ok"
    short = quadratic.isel(lag=0)
    assert abs(short["displacement_ratio"] - 1) < 3 * short["displacement_ratio_stderr"] < 0.2
    assert abs(short["response"] - 0.1) < 3 * short["response_stderr"]
    assert 25 <= quadratic.attrs["response_lag"] <= 50
    quartic = Motion(curvature=(0.0,), cubic=0.5, steps=6000, learning_rate=0.05, momentum=0.5)
    results = analyzed(quartic.run(rng, groups=2), start=1)
    assert float(abs(results["asymmetry_z"]).max()) < 4
    drifting = Motion(steps=3000).run(rng, groups=2)
    drifting["gradient_sketch"] += 0.3
    assert verdicts(analyzed(drifting))["asymmetry", "identity-open"] == "caution"


def test_free_motion_agrees() -> None:
    """The verdict of X = 1 with an error that is small enough."""
    results = analyzed(Motion(steps=3000, dimensions=64).run(np.random.default_rng(5), groups=2))
    assert verdicts(results)["fdt_ratio", "agree"] == "ok"
    results = analyzed(Motion(steps=3000, dimensions=64, colour=0.7).run(np.random.default_rng(5), groups=2))
    assert verdicts(results)["fdt_ratio", "disagree"] == "caution"


def test_what_is_not_there_is_told() -> None:
    """No probes, none in the segment, shuffled epochs, a schedule, Nesterov, Adam."""
    run = Motion(steps=300, probe_every=100, dimensions=4).run(np.random.default_rng(6), groups=1)
    results = analyzed(run)
    assert list(results["group"].values) == ["all", "replicate0"]
    assert verdicts(results)["fdt_ratio", "unresolved"] == "untrusted"
    with pytest.raises(NotDefinedError, match="needs probe_sketch, which this run does not hold"):
        analyzed(run.drop_vars(["probe_sketch", "probe_step", "noise_trace"]))
    with pytest.raises(AnalysisError, match="needs gradient_sketch"):
        analyzed(run.drop_vars("gradient_sketch"))
    between = response.estimate(run, AnalysisSettings(segment="101:199"))
    assert verdicts(between)["response", "no-probe"] == "untrusted"
    assert not between.data_vars
    shuffled = analyzed(run.assign_attrs(sampling="shuffle"))
    assert verdicts(shuffled)["displacement_ratio", "sampler-limited"] == "untrusted"
    assert verdicts(analyzed(run.assign_attrs(sampling="unknown")))["response", "sampler-unknown"] == "caution"
    for kind, nesterov in (("SGD", True), ("Adam", False)):
        results = analyzed(run.assign_attrs(optimizer={"class": kind, "nesterov": nesterov}))
        assert "displacement_ratio" not in results
        assert np.isfinite(results["response"].sel(group="all", lag=1))
        assert verdicts(results)["displacement_ratio", "not-defined"] == "untrusted"
    run["learning_rate"] = run["learning_rate"] * np.linspace(1, 0.5, 300)
    assert verdicts(analyzed(run))["", "not-stationary"] == "untrusted"


def test_frozen_groups_and_groups_that_are_not_finite() -> None:
    """What does not move has no ratio and spoils nothing; what is not a number spoils itself and the sum."""
    run = Motion(steps=400, dimensions=4).run(np.random.default_rng(7), groups=3)
    run["parameter_sketch"][1] = 0.0
    run["gradient_sketch"][1], run["probe_sketch"][1], run["noise_trace"][1] = 0.0, 0.0, 0.0
    ratio = analyzed(run)["displacement_ratio"].sel(lag=1)
    assert np.isnan(ratio.sel(group="replicate1"))
    assert np.isfinite(ratio.sel(group=["all", "replicate0", "replicate2"])).all()
    run["probe_sketch"][2, :, 50] = np.nan
    results = analyzed(run).sel(lag=1)
    assert np.isfinite(results["displacement_ratio"].sel(group="replicate0"))
    assert np.isnan(results["displacement_ratio"].sel(group=["all", "replicate2"])).all()
    assert verdicts(results)["fdt_ratio", "unresolved"] == "untrusted"
    still = Motion(steps=400, dimensions=4).run(np.random.default_rng(7), groups=1)
    for name in ("parameter_sketch", "gradient_sketch", "probe_sketch", "noise_trace", "displacement_squared"):
        still[name] = still[name] * 0
    assert bool(analyzed(still)["displacement_ratio"].isnull().all())
