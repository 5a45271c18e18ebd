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

REPLICATES, BATCH = 1000, 250
"""a run of many groups takes the square of their number"""


@dataclass(frozen=True)
class Motion:
    """SGD of `dimensions` parameters: curvature λ_i, noise of variance C_i and correlation a^|t−s| between steps.

    `sources` independent noises are shared by all parameters, which makes C no function of H. A hidden `force` of
    variance `force` and correlation `persistence`^|t−s| pulls batch and probe alike. Of every `probe_every` steps the
    first `burst` have a probe.
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    dampening: float = 0.0
    curvature: tuple[float, ...] = (0.0,)
    noise: tuple[float, ...] = (1.0,)
    sources: int | None = None
    colour: float = 0.0
    force: float = 0.0
    persistence: float = 0.0
    cubic: float = 0.0
    dimensions: int = 16
    steps: int = 600
    probe_every: int = 1
    burst: int = 1
    sketch: int | None = None

    def spread(self, values: tuple[float, ...]) -> np.ndarray:
        """A value for every dimension."""
        return np.resize(np.array(values), self.dimensions)

    @property
    def mobility(self) -> float:
        """η(1−ν)/(1−μ)."""
        return self.learning_rate * (1 - self.dampening) / (1 - self.momentum)

    @property
    def temperature(self) -> float:
        """η(1−ν) tr C/(2(1−μ)P)."""
        return self.mobility * float(np.mean(self.spread(self.noise))) / 2

    def correlations(self, longest: int) -> tuple[np.ndarray, np.ndarray]:
        """tr c(τ) and 𝓡(τ) at lags 0 to `longest`, from the linear recursion of (θ, v, ξ, u) of each direction."""
        eta, mu, kept = self.learning_rate, self.momentum, 1 - self.dampening
        correlation, response = np.zeros(longest + 1), np.zeros(longest + 1)
        for curvature, noise in zip(self.spread(self.curvature), self.spread(self.noise), strict=True):
            # v' = μv + (1−ν)(λθ + ξ − u), θ' = θ − ηv', ξ' = aξ + w, u' = bu + w'
            velocity = np.array([kept * curvature, mu, kept, -kept])
            position = np.array([1.0, 0, 0, 0]) - eta * velocity
            step = np.array([position, velocity, [0, 0, self.colour, 0], [0, 0, 0, self.persistence]])
            drive = np.diag([0, 0, (1 - self.colour**2) * noise, (1 - self.persistence**2) * self.force])
            later = np.linalg.solve(np.eye(16) - np.kron(step, step), drive.ravel()).reshape(4, 4)
            kick = later[0, 2]
            for lag in range(longest + 1):
                correlation[lag] += later[0, 0]
                response[lag] += kick - later[0, 2]
                later = step @ later
        return correlation, response

    def exact_ratio(self, longest: int) -> np.ndarray:
        """X_Δ at lags 1 to `longest`; 1 for free motion without memory."""
        if min(self.curvature) == 0:
            return np.ones(longest)
        correlation, response = self.correlations(longest + 1)
        lag = np.arange(1, longest + 1)
        held = correlation[0] + correlation[1] - correlation[lag] - correlation[lag + 1]
        return self.mobility * np.cumsum(response[lag]) / held

    def run(self, rng: np.random.Generator, groups: int = BATCH) -> xr.Dataset:
        """A run as `open_run` gives it, of groups that share nothing but their hyper-parameters."""
        shape, width, steps = (groups, self.dimensions), self.sketch or self.dimensions, self.steps
        curvature, scale = self.spread(self.curvature), np.sqrt(self.spread(self.noise))
        a, b = self.colour, self.persistence
        mixing = np.random.default_rng(0).standard_normal((self.sources or 0, self.dimensions))
        mixing /= np.linalg.norm(mixing, axis=0)
        signs = rng.choice([-1.0, 1.0], shape) if width < self.dimensions else np.ones(shape)
        slowest = min(value for value in (*self.curvature, 1.0) if value)
        burn_in = round(20 / (1 - self.momentum) + 10 / max(0.05, self.learning_rate * slowest))
        at = np.flatnonzero(np.arange(steps) % self.probe_every < self.burst)
        seen = {name: np.empty((groups, width, steps)) for name in ("parameter", "gradient")}
        probe, trace = np.empty((groups, width, len(at))), np.empty((groups, len(at)))
        moved = np.empty((groups, steps))

        def draw() -> np.ndarray:
            white = rng.standard_normal((groups, self.sources) if self.sources else shape)
            return white @ mixing if self.sources else white

        theta, velocity, xi = np.zeros(shape), np.zeros(shape), draw()
        pull = np.sqrt(self.force) * rng.standard_normal(shape) if self.force else 0.0
        start = theta
        for step in range(-burn_in, steps):
            start = theta if step == 0 else start
            slope = curvature * theta + self.cubic * theta**3 - pull
            gradient = slope + scale * xi
            if step >= 0:
                moved[:, step] = np.sum((theta - start) ** 2, 1)
                for name, values in (("parameter", theta), ("gradient", gradient)):
                    seen[name][:, :, step] = fold(values * signs, width)
                if step % self.probe_every < self.burst:
                    index = np.searchsorted(at, step)
                    other = slope + scale * draw()
                    probe[:, :, index] = fold(other * signs, width)
                    trace[:, index] = np.sum((gradient - other) ** 2, 1) / 2
            velocity = self.momentum * velocity + (1 - self.dampening) * gradient
            theta = theta - self.learning_rate * velocity
            xi = a * xi + np.sqrt(1 - a**2) * draw()
            if self.force:
                pull = b * pull + np.sqrt((1 - b**2) * self.force) * rng.standard_normal(shape)
        names = [f"replicate{index}" for index in range(groups)]
        constants = {"learning_rate": self.learning_rate, "momentum": self.momentum, "dampening": self.dampening}
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
                "sgd_time": ("step", self.mobility * np.arange(steps)),
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
def test_03_theory_lies_on_the_fluctuation_dissipation_line(momentum: float, curvature: float) -> None:
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
        single = Motion(momentum=momentum, curvature=(curvature,), dimensions=1)
        assert single.exact_ratio(50) == pytest.approx(1, abs=1e-10)
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
    found = response.response_products(x, g, xi, other, np.arange(40), np.array([1, 7]))
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
        (Motion(probe_every=10, steps=2000, dimensions=16, curvature=(0.03, 0.1)), 0.985),
        (Motion(momentum=0.0, probe_every=5, steps=1000, curvature=(0.3, 1.0, 3.0), noise=(4.0, 0.1, 1.0)), 0.985),
        # Parameters that share few noises, and [H, C] ≠ 0, which the trace does not see.
        (Motion(0.1, 0.5, 0.5, probe_every=5, steps=1000, curvature=(0.3, 1.0, 3.0), sources=8, dimensions=24), 0.985),
        (Motion(probe_every=50, burst=10, steps=1000), 1.0),
        (Motion(steps=400), 1.0),
        (Motion(dimensions=32, sketch=8, steps=800, probe_every=10), 1.0),
        # Noise that remembers: what is measured is not the response, and not 1, but has an exact value.
        (Motion(curvature=(0.3, 1.0), colour=0.5, probe_every=5, steps=600, dimensions=8), 1.0),
        # A force that remembers, which batch and probe share: this is the response, out of equilibrium.
        (Motion(momentum=0.0, curvature=(1.0,), force=0.2, persistence=0.95, probe_every=5, steps=1000), 0.985),
    ],
)
def test_ratio_and_temperature_cover(motion: Motion, highest: float) -> None:
    """X_Δ at every lag and the FDT temperature: unbiased, and covered, also where X is not 1."""
    results = replicated(motion)
    lag, at = results["lag"].values, results.attrs["response_lag"]
    exact = xr.DataArray(motion.exact_ratio(int(lag[-1]))[lag - 1], dims="lag", coords={"lag": lag})
    assert (motion.colour or motion.force) == 0 or np.max(np.abs(exact - 1)) > 0.3
    value, error = results["displacement_ratio"], results["displacement_ratio_stderr"]
    z = (value.mean("group") - exact) / (value.std("group") / np.sqrt(REPLICATES))
    fraction = (abs(value - exact) <= 1.959964 * error).mean("group")
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
    hot = motion.temperature / float(exact.sel(lag=at))
    # Where X is not resolved, as under coloured noise that leaves next to no response, its inverse is nothing.
    resolved = float(results["fdt_ratio"].std()) < 0.3 * abs(float(exact.sel(lag=at)))
    assert resolved or motion.colour
    for name, truly in [("temperature_noise", motion.temperature)] + [("fdt_temperature", hot)] * resolved:
        value, error = results[name], results[f"{name}_stderr"]
        z = float((value.mean() - truly) / value.std()) * np.sqrt(REPLICATES)
        fraction = float((abs(value - truly) <= 1.959964 * error).mean())
        # Eighteen such scores, each of its own motion: one beyond 3.5 in a hundred suites.
        assert abs(z) < 3.5, (name, z)
        assert 0.93 <= fraction <= highest, (name, fraction)


def verdicts(results: xr.Dataset) -> dict[tuple[str, str], str]:
    """Status by quantity and code."""
    return {(one["quantity"], one["code"]): one["status"] for one in results.attrs["verdicts"]}


def test_03_data_lie_on_the_fluctuation_dissipation_line() -> None:
    """χ over ½[c(τ)+c(τ+1)] has the slope −1/T, over the displacement 1/2T (must-pass 3): 3 standard errors on data."""
    motion = Motion(curvature=(1.0,), dimensions=4, steps=800, probe_every=2)
    results = analyzed(motion.run(np.random.default_rng(8), groups=100), per_decade=4, start=1)
    short = results.isel(group=slice(1, None)).where(results["lag"] <= 12, drop=True)
    parts = [short.isel(group=slice(first, first + 5)).mean("group") for first in range(0, 100, 5)]
    for axis, exact in (("correlation", -1 / motion.temperature), ("displacement", 0.5 / motion.temperature)):
        slopes = [np.polyfit(part[axis], part["integrated_response"], 1)[0] for part in parts]
        assert abs(np.mean(slopes) - exact) < 3 * np.std(slopes, ddof=1) / np.sqrt(20), axis
    for of in ("correlation", "displacement"):
        gap = (short[f"response_of_{of}"] - short["integrated_response"]).mean("group")
        assert np.all(abs(gap) < 0.03 * short["integrated_response"].mean("group")), of


def test_14_active_motion_has_the_temperatures_of_its_closed_forms() -> None:
    """An active Ornstein–Uhlenbeck particle, physics.md 1.7 and must-pass 14: T_eff(t), T(ω) and X_Δ to order η."""
    eta, k, memory, active, longest = 0.005, 1.0, 0.5, 0.02, 4000
    motion = Motion(eta, 0.0, curvature=(k,), noise=(4.0,), force=active / memory, persistence=np.exp(-eta / memory),
                    dimensions=1)  # fmt: skip
    correlation, response = motion.correlations(longest + 1)
    lag = np.arange(1, longest + 1)
    lost, pushed, time = correlation[lag - 1] - correlation[lag + 1], response[lag] / 4, eta * lag
    excess = active / (1 - (k * memory) ** 2)
    local = motion.temperature + excess * (1 - np.exp(-time * (1 / memory - k)))
    early = time < 5
    assert lost[early] / (2 * pushed[early]) == pytest.approx(local[early], rel=0.02)
    for frequency in (0.3, 1.0, 3.0):
        wave = np.sin(frequency * time)
        exact = motion.temperature + active / (1 + (frequency * memory) ** 2)
        assert wave @ lost / (2 * wave @ pushed) == pytest.approx(exact, rel=0.02)
    decayed = np.exp(-k * time)
    left = (motion.temperature * decayed + excess * (decayed - k * memory * np.exp(-time / memory))) / k
    heat = k * ((motion.temperature + excess * (1 - k * memory)) / k - left) / (1 - decayed)
    assert motion.temperature / motion.exact_ratio(longest) == pytest.approx(heat, rel=0.02)


def test_motion_out_of_equilibrium_is_told_from_one_in_it() -> None:
    """A force with memory, which batch and probe share: X < 1 and A ≠ 0 are resolved, and the identity closes."""
    motion = Motion(momentum=0.0, curvature=(1.0,), force=0.2, persistence=0.95, dimensions=64, steps=3000)
    results = analyzed(motion.run(np.random.default_rng(9), groups=2), start=1)
    for name in ("displacement_ratio", "correlation_ratio"):
        whole = results.sel(group="all", lag=results.attrs["response_lag"])
        value, error = whole[name], whole[f"{name}_stderr"]
        assert value + 5 * error < 1
        assert abs(value - motion.exact_ratio(results.attrs["response_lag"])[-1]) < 3 * error
    assert abs(whole["asymmetry"]) > 5 * whole["asymmetry_stderr"]
    said = verdicts(results)
    assert said["fdt_ratio", "disagree"] == "caution"
    assert said["asymmetry", "identity-closes"] == "ok"


def test_one_long_run_agrees_and_its_identity_closes() -> None:
    """X = 1 and R = η of a quadratic loss; the identity closes on a quartic one too, and not on gradients of others."""
    rng = np.random.default_rng(4)
    quadratic = analyzed(Motion(curvature=(1.0,), steps=3000).run(rng, groups=2), start=1).sel(group="all")
    said = verdicts(quadratic)
    assert said["asymmetry", "identity-closes"] == "ok"
    short = quadratic.isel(lag=0)
    assert abs(short["displacement_ratio"] - 1) < 3 * short["displacement_ratio_stderr"] < 0.2
    assert abs(short["response"] - 0.1) < 3 * short["response_stderr"]
    assert 25 <= quadratic.attrs["response_lag"] <= 50
    quartic = Motion(curvature=(0.0,), cubic=0.5, steps=3000, learning_rate=0.05, momentum=0.5)
    results = analyzed(quartic.run(rng, groups=2), start=1)
    assert float(abs(results["asymmetry_z"]).max()) < 4
    drifting = Motion(steps=3000).run(rng, groups=2)
    drifting["gradient_sketch"] += 0.3
    assert verdicts(analyzed(drifting))["asymmetry", "identity-open"] == "caution"


def test_bursts_of_steps_are_not_crossed() -> None:
    """Inner products of 400 steps in every 500: the last such stretch is taken, and the probes within it."""
    run = Motion(dimensions=4, steps=1000, probe_every=3).run(np.random.default_rng(10), groups=2)
    due = np.arange(1000) % 500 < 400
    for name in ("displacement_squared", "parameter_sketch", "gradient_sketch"):
        run[name] = run[name].where(xr.DataArray(due, dims="step"))
    run.attrs["recorder"] = {"products_every": "burst:400/500"}
    burst = response.estimate(run, AnalysisSettings(lags_per_decade=3))
    assert 500 <= burst.attrs["segment"][0] < burst.attrs["segment"][1] == 900
    first = burst.attrs["segment"][0]
    alone = response.estimate(run, AnalysisSettings(segment=f"{first}:900", lags_per_decade=3))
    assert np.isfinite(burst["displacement_ratio"].sel(lag=1)).all()
    xr.testing.assert_equal(burst, alone)


def test_free_motion_agrees() -> None:
    """The verdict of X = 1 with an error that is small enough."""
    results = analyzed(Motion(steps=2000, dimensions=64, probe_every=2).run(np.random.default_rng(5), groups=2))
    assert verdicts(results)["fdt_ratio", "agree"] == "ok"
    results = analyzed(
        Motion(steps=2000, dimensions=64, probe_every=2, colour=0.7).run(np.random.default_rng(5), groups=2)
    )
    assert verdicts(results)["fdt_ratio", "disagree"] == "caution"


def test_what_is_not_there_is_told() -> None:
    """No probes, none in the segment, shuffled epochs, a schedule, Nesterov, Adam."""
    run = Motion(steps=300, probe_every=100, dimensions=4).run(np.random.default_rng(6), groups=1)
    results = analyzed(run)
    assert list(results["group"].values) == ["all", "replicate0"]
    assert verdicts(results)["fdt_ratio", "unresolved"] == "untrusted"
    # T/X of an X that may be 0 has no two equal sides.
    assert verdicts(results)["fdt_temperature", "unresolved"] == "untrusted"
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
    assert shuffled["response"].attrs["long_name"] == "noise–response correlation"
    decaying = run.assign(weight_decay=run["weight_decay"] + 0.01)
    assert "displacement_ratio" in analyzed(decaying)
    scheduled = run.assign(learning_rate=run["learning_rate"] * np.linspace(1, 0.5, 300))
    for other, kind, nesterov, decay in (
        (run, "SGD", True, "coupled"),
        (run, "Adam", False, "coupled"),
        (decaying, "SGD", False, "decoupled"),
        (scheduled, "SGD", False, "coupled"),
    ):
        rule = {"class": kind, "nesterov": nesterov, "weight_decay_kind": decay}
        results = analyzed(other.assign_attrs(optimizer=rule))
        assert (("response", "gaussian-only") in verdicts(results)) == (kind == "Adam")
        assert "displacement_ratio" not in results
        assert np.isfinite(results["response"].sel(group="all", lag=1))
        assert verdicts(results)["displacement_ratio", "not-defined"] == "untrusted"
    assert verdicts(results)["", "not-stationary"] == "untrusted"


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
