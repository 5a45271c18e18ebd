"""Variance and flatness against quadratic losses, whose curvatures, noise and variances are known."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from made_up import make_run
from scipy.optimize import minimize_scalar

from thermodl.analyze import AnalysisSettings, analyze, directions, lines, open_results, series, truth
from thermodl.analyze.modes import Motion, principal_directions
from thermodl.analyze.physics import flatness
from thermodl.analyze.settings import AnalysisError

Floats = np.ndarray
CURVATURES = np.geomspace(0.02, 0.6, 12)
FLAT = np.geomspace(0.02, 0.1, 12)


def descend(
    seed: int,
    curvatures: Floats,
    noise: Floats,
    eta: float,
    steps: int,
    *,
    momentum: float = 0.0,
    replicates: int = 1,
    epoch: int | None = None,
    probe_every: int = 5,
) -> tuple[Floats, Floats, Floats]:
    """θ and g of every step and g′ of every probe, (replicate, coordinate, n), stationary."""
    rng, shape = np.random.default_rng(seed), (replicates, len(curvatures))
    rounds = epoch or 1000
    burn_in = rounds * int(np.ceil(5 * (1 - momentum) / (eta * curvatures.min()) / rounds))
    x, v = np.zeros((2, *shape))
    theta, gradient = np.empty((2, steps, *shape))
    probe = np.sqrt(noise) * rng.standard_normal((len(range(0, steps, probe_every)), *shape))
    for t in range(-burn_in, steps):
        if (t + burn_in) % rounds == 0:
            drawn = np.sqrt(noise) * rng.standard_normal((rounds, *shape))
            if epoch:
                drawn = (drawn - drawn.mean(0)) * np.sqrt(epoch / (epoch - 1))
        g = curvatures * x + drawn[(t + burn_in) % rounds]
        if t >= 0:
            theta[t], gradient[t] = x, g
            if t % probe_every == 0:
                probe[t // probe_every] += curvatures * x
        v = momentum * v + g
        x = x - eta * v
    return tuple(np.moveaxis(one, 0, 2) for one in (theta, gradient, probe))


def recorded(
    motion: tuple[Floats, Floats, Floats],
    eta: float = 0.1,
    momentum: float = 0.0,
    sampling: str | None = "replacement",
    epoch: int | None = None,
) -> xr.Dataset:
    """A run as `open_run` gives it; each replicate is a group."""
    theta, gradient, probe = motion
    every = theta.shape[2] // probe.shape[2]
    at = np.arange(0, theta.shape[2], every)
    traces = np.sum((gradient[:, :, at] - probe) ** 2, axis=1) / 2
    run = make_run(theta, learning_rate=eta, momentum=momentum).assign(
        gradient_sketch=(("group", "sketch", "step"), gradient),
        probe_sketch=(("group", "sketch", "probe"), probe),
        noise_trace=(("layer", "probe"), traces),
    )
    run = run.assign_coords(probe_step=("probe", at))
    known = {"sampling": sampling, "steps_per_epoch": epoch}
    return run.assign_attrs({name: value for name, value in known.items() if value is not None})


def estimate(run: xr.Dataset, **settings: object) -> xr.Dataset:
    """All of the run but its first step."""
    chosen = {"segment": f"1:{run.sizes['step']}", "flatness_modes": 12} | settings
    return flatness.estimate(run, AnalysisSettings(**chosen))


def codes(results: xr.Dataset) -> list[str]:
    """Those of the verdicts."""
    return [one["code"] for one in results.attrs["verdicts"]]


def on_axes(
    motion: tuple[Floats, Floats, Floats], eta: float, momentum: float = 0.0, *, chosen: bool = False
) -> list[dict[str, Floats]]:
    """Each replicate measured along the coordinates themselves, or along directions chosen from its first half."""
    steps = motion[0].shape[2]
    places = np.arange(0, steps, steps // motion[2].shape[2])
    found = []
    for one in zip(*motion, strict=True):
        if chosen:
            axes, _ = principal_directions(one[0][:, : steps // 2], len(one[0]))
            one = tuple(axes.T @ values for values in one)
        along = Motion(one[0], [*one[1:]], 1.0)
        found.append(
            flatness.measure_directions(along, places, steps // 2, True, np.array([eta, momentum, 0.0]), np.nan)
        )
    return found


@pytest.mark.parametrize("power", [0, 1, 2])
def test_independent_batches_give_twice_a_minus_one(power: int) -> None:
    """ψ = 2(a−1) and a of C ∝ λ^a, within three errors, and said so."""
    noise = CURVATURES**power
    results = estimate(recorded(descend(power + 30, CURVATURES, noise, 0.1, 60_000))).sel(group="all")
    for name, exact in (
        ("flatness_exponent", 2 * (power - 1)),
        ("noise_exponent", power),
        ("exponent_iid", 2 * (power - 1)),
        ("exponent_epoch", 2 * power),
    ):
        assert abs(results[name] - exact) < 3 * results[f"{name}_stderr"], name
    assert 0.01 < float(results["flatness_exponent_stderr"]) < 0.25
    assert float(results["fit_directions"]) == 12
    assert "as-expected" in codes(results)
    assert results["flatness"].values == pytest.approx(results["curvature"].values ** -0.5)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_epochs_give_twice_a_in_flat_directions(power: int) -> None:
    """ψ = 2a below λ_×, from probes alone; the gradients of the steps give the curvature of white noise, not λ."""
    eta, epoch, noise = 0.5, 20, FLAT**power
    run = recorded(descend(power, FLAT, noise, eta, 80_000, epoch=epoch, probe_every=1), eta, 0.0, "shuffle", epoch)
    results = estimate(run).sel(group="all")
    # Not so flat that the loss has no part in it.
    exact = flatness.epoch_variance(noise, FLAT, eta, 0.0, epoch)
    psi = 2 * np.polyfit(np.log(FLAT), np.log(exact), 1)[0]
    assert abs(psi - 2 * power) < 0.4
    assert abs(results["flatness_exponent"] - psi) < 3 * results["flatness_exponent_stderr"]
    assert abs(results["noise_exponent"] - power) < 3 * results["noise_exponent_stderr"]
    assert float(results["crossover_curvature"]) == pytest.approx(3 / (eta * 21))
    assert "sampler-limited" in codes(results)
    assert float(results["fit_directions"]) >= 6
    assert (results["curvature_gradient"] > 2 * results["curvature_probe"]).mean() > 0.9
    ratio = results["mode_variance"] / results["variance_epoch"]
    assert ratio.values[results["mode_used"].values > 0] == pytest.approx(1, abs=0.5)


def test_expected_variances_are_those_of_the_closed_forms() -> None:
    """Of heavy ball, of epochs with and without momentum, in the flat limit, and of a walk by its definition."""
    lam, noise = np.array([0.01, 0.3, 1.5]), np.array([2.0, 1.0, 0.5])
    for momentum in (0.0, 0.9):
        white = flatness.white_variance(noise, lam, 0.1, momentum)
        exact = [truth.HeavyBall(0.1, momentum, *pair).variance for pair in zip(lam, noise, strict=True)]
        assert white == pytest.approx(exact)
    exact = [truth.epoch_variance(0.1, 30, *pair) for pair in zip(lam, noise, strict=True)]
    assert flatness.epoch_variance(noise, lam, 0.1, 0.0, 30) == pytest.approx(exact)
    flat = flatness.epoch_variance(np.ones(1), np.array([1e-7]), 0.1, 0.5, 4000)
    assert flat == pytest.approx([0.01 * 4001 / 6 / 0.25], rel=0.01)
    unstable = flatness.white_variance(np.ones(3), np.array([-1.0, 0.0, 50.0]), 0.1, 0.0)
    assert np.isnan(unstable).all()
    # The mean over time of min(s, t) − …: half the mean squared distance of two of its points.
    steps = np.arange(400)
    distance = np.abs(steps[:, None] - steps[None, :])
    assert distance.mean() / 2 == pytest.approx(400 / 6, rel=1e-4)


def test_against_an_obvious_reference() -> None:
    """λ, C and cosine content by loops, the line by trying slopes."""
    theta, gradient, probe = (one[0] for one in descend(1, CURVATURES[3:8], CURVATURES[3:8], 0.3, 4000))
    found = on_axes(tuple(one[None] for one in (theta, gradient, probe)), 0.3)[0]
    x, g = (values - values.mean(1, keepdims=True) for values in (theta[:, 2000::5], probe[:, 400:]))
    noise = gradient[:, 2000::5] - probe[:, 400:]
    for u in range(5):
        larger = [j for j in range(5) if x[j] @ x[j] > x[u] @ x[u]]
        slopes, *_ = np.linalg.lstsq(x[[u, *larger]].T, g[u])
        drawn = noise[u] @ noise[u]
        for j in larger:
            drawn -= (x[u] @ x[j]) * (noise[u] @ noise[j]) / (x[j] @ x[j])
        assert found["curvature_probe"][u] == pytest.approx(slopes[0])
        assert found["mode_noise"][u] == pytest.approx(drawn / 800)
        first = theta[u, :2000] - sum(theta[u, :2000]) / 2000
        wave = [np.cos(np.pi * (u + 1) * (t + 0.5) / 2000) for t in range(2000)]
        along = sum(p * q for p, q in zip(wave, first, strict=True)) / np.sqrt(sum(q * q for q in wave))
        assert found["cosine_content"][u] == pytest.approx(along**2 / sum(first**2))
    rng = np.random.default_rng(2)
    across, up = (
        directions.Measured(np.exp(power * np.arange(6.0) + 0.1 * rng.standard_normal(6)), *np.full((2, 6), 0.2), waves)
        for power, waves in ((0.5, 0.1 * rng.standard_normal((6, 500))), (1.0, 0.1 * rng.standard_normal((6, 500))))
    )
    vx, vy = ((0.2 / one.value) ** 2 for one in (across, up))
    line = lines.fit_line(across, up, np.stack([vx, vy, np.zeros(6)]), shared=False)
    x, y = np.log(across.value) + vx / 2, np.log(up.value) + vy / 2

    def misfit(slope: float) -> float:
        weight = 1 / (vy + slope**2 * vx)
        rest = y - slope * x
        return float(np.sum(weight * (rest - np.average(rest, weights=weight)) ** 2))

    best = minimize_scalar(misfit, bracket=(1.5, 2.5), options={"xtol": 1e-10})
    assert line.slope == pytest.approx(best.x, rel=1e-4)
    assert line.scatter == pytest.approx(best.fun / 4, rel=1e-4)


def test_a_turn_of_the_directions_leaves_curvature_and_noise() -> None:
    """A flat direction that holds 0.05 of a steep one keeps its λ and C, where ⟨θg⟩/⟨θ²⟩ is three times too large."""
    lam, noise = np.array([0.02, 0.6]), np.array([0.02, 0.6]) ** 2
    motion = descend(8, lam, noise, 0.4, 40_000)
    turn = np.array([[np.cos(0.05), np.sin(0.05)], [-np.sin(0.05), np.cos(0.05)]])
    straight, turned = on_axes(motion, 0.4)[0], on_axes(tuple(turn @ one for one in motion), 0.4)[0]
    theta, gradient = (turn @ one[0] for one in motion[:2])
    assert np.mean(theta[0] * gradient[0]) / np.var(theta[0]) > 0.06
    for name in ("curvature", "mode_noise"):
        assert turned[name] == pytest.approx(straight[name], rel=0.1), name


def test_the_choice_of_directions_leaves_curvature_and_variance() -> None:
    """λ and σ² of a heavy ball's principal directions, chosen in the first half, have no bias in 100 trainings."""
    lam, noise = np.geomspace(0.1, 1, 6), np.ones(6)
    found = on_axes(descend(3, lam, noise, 0.1, 4000, momentum=0.9, replicates=100), 0.1, 0.9, chosen=True)
    for name, exact in (("curvature", lam), ("mode_variance", flatness.white_variance(noise, lam, 0.1, 0.9))):
        value, error = (np.array([one[f"{name}{end}"] for one in found]) for end in ("", "_stderr"))
        ratios = (value / exact).mean(1)
        assert abs(ratios.mean() - 1) < 3 * ratios.std() / 10, name
        # Six directions of 6 and 12 % each, and not more.
        assert ratios.std() < 0.06
        # 90 %, since neighbours mix, less three spreads of a fraction of 600.
        assert np.mean(np.abs(value - exact) <= 1.96 * error) > 0.9 - 3 * 0.012, name


@pytest.mark.parametrize("probes", [20, 30])
def test_curvature_from_few_probes(probes: int) -> None:
    """Sixteen directions take most of what twenty probes tell, which without counting leaves 0.66 of the intervals."""
    rng, count, replicates = np.random.default_rng(7), 16, 400
    curvatures = np.geomspace(0.3, 10, count)
    covered = np.zeros(count)
    for _ in range(replicates):
        positions = rng.standard_normal((count, probes)) / np.sqrt(curvatures)[:, None]
        gradients = curvatures[:, None] * positions + 2 * rng.standard_normal((count, probes))
        found = directions.measure_curvature(*directions.centred_and_alone(positions), gradients)
        covered += np.abs(found.value - curvatures) < series.NORMAL * found.error
    assert (np.abs(covered / replicates - 0.96) < 0.035).all()


@pytest.mark.parametrize(("power", "probes"), [(1, 40), (2, 40), (1, 20), (2, 20)])
def test_noise_exponent_from_few_probes(power: int, probes: int) -> None:
    """Ten probes in the measured half are the fewest; what they leave open must not go into the line as a bias."""
    noise, steps = CURVATURES**power, 100 * probes
    motion = descend(17, CURVATURES, noise, 0.2, steps, replicates=60, probe_every=100)
    found = on_axes(motion, 0.2)
    value, error = (np.array([one[f"noise_exponent{end}"] for one in found]) for end in ("", "_stderr"))
    known = np.isfinite(value)
    # A fraction of 60 has a spread of 3 to 4 %, a median of them one of a sixth of an error.
    assert known.mean() > (0.9 if probes == 40 else 0.0)
    assert np.mean(np.abs(value - power)[known] < 1.96 * error[known]) >= 0.85
    assert abs(np.median(value[known]) - power) < 0.3 * np.median(error[known])


def test_curvature_from_too_few_probes() -> None:
    """What least squares leave of fewer probes than directions is rounding, and no curvature."""
    rng, count = np.random.default_rng(8), 16
    positions, gradients = rng.standard_normal((2, count, 6)) / np.arange(1, count + 1)[:, None] ** 2
    found = directions.measure_curvature(*directions.centred_and_alone(positions), gradients)
    known = np.isfinite(found.value)
    assert (known == np.isfinite(found.error)).all()
    assert known.sum() == 4


@pytest.mark.parametrize(("spread", "code"), [(1.0, "no-range"), (1.02, "no-range"), (8.0, "as-expected")])
def test_curvatures_without_a_range_give_no_exponent(spread: float, code: str) -> None:
    """A line through curvatures that are one number within their errors is drawn by chance."""
    lam = np.geomspace(0.1, 0.1 * spread, 8)
    results = estimate(recorded(descend(9, lam, lam, 0.2, 20_000), 0.2))
    assert {one for one in codes(results) if one in ("no-range", "as-expected", "not-expected")} == {code}
    exponents = results[["flatness_exponent", "noise_exponent", "exponent_iid", "exponent_epoch"]].sel(group="all")
    said = {one["quantity"] for one in results.attrs["verdicts"] if one["code"] == "no-range"}
    assert said == (set(exponents) if code == "no-range" else set())
    assert all(np.isnan(one) == (code == "no-range") for one in exponents.values())
    assert float(results["fit_directions"].sel(group="all")) == 8


@pytest.mark.parametrize(("power", "mixed"), [(1, True), (3, False)])
def test_directions_that_are_not_told_apart_are_said_to_be_mixed(power: int, mixed: bool) -> None:
    """C ∝ λ makes all variances equal, C ∝ λ³ makes them as far apart as λ²."""
    lam = np.geomspace(0.05, 0.8, 6)
    results = estimate(recorded(descend(11, lam, lam**power, 0.1, 30_000)))
    assert ("mixed-directions" in codes(results)) == mixed
    assert float(results["fit_directions"].sel(group="all")) >= 4


@pytest.mark.parametrize(("count", "spread"), [(16, 3.0), (32, 10.0)])
def test_many_directions_and_few_relaxations_leave_the_variance(count: int, spread: float) -> None:
    """Along the coordinates, 20 relaxation times of the flattest: nothing negative, and right in the middle."""
    lam = np.geomspace(0.05, 0.05 * spread, count)
    found = on_axes(descend(5, lam, np.ones(count), 0.4, 2000, replicates=40), 0.4)
    exact = flatness.white_variance(np.ones(count), lam, 0.4, 0.0)
    ratios, errors = (np.array([one[f"mode_variance{end}"] for one in found]) / exact for end in ("", "_stderr"))
    assert ratios.min() > 0
    assert errors.min() > 0
    # Three spreads of the median of 40 whose own spread is a third to a half.
    assert np.all(np.abs(np.median(ratios, axis=0) - 1) < 0.25)
    # 90 % where ten to twenty relaxation times are measured, less three spreads of a fraction of 640.
    assert np.mean(np.abs(ratios - 1) <= 1.96 * errors) > 0.9 - 3 * 0.012


def test_walk_is_marked() -> None:
    """A free walk in many coordinates: drift modes with the fractions 6/(π²k²), no exponent."""
    rng = np.random.default_rng(3)
    kicks = rng.standard_normal((1, 60, 6000))
    theta = -0.1 * np.cumsum(kicks, axis=2) + 0.1 * kicks
    results = estimate(recorded((theta, kicks, rng.standard_normal((1, 60, 1200))))).sel(group="all")
    ratio = results["mode_variance_fraction"] / results["variance_fraction_walk"]
    assert ratio.values[:3] == pytest.approx(1, abs=0.3)
    assert (results["cosine_content"] > flatness.DRIFT).values[:3].all()
    assert {"drift-mode", "marked", "unresolved"} <= {*codes(results)}
    assert np.isnan(results["flatness_exponent"])
    assert float(results["mode_used"].sum()) == 0
    # Each coordinate alone spreads as a walk of that many steps does.
    spread = theta[0, :, 3000:].var(-1).mean() / float(results["variance_walk"][0])
    assert spread == pytest.approx(1, abs=0.35)


def test_momentum_and_dampening_leave_curvature_and_noise() -> None:
    """λ and C of heavy ball are those without momentum; σ² is that of heavy ball."""
    lam, noise = np.geomspace(0.1, 1, 6), np.geomspace(0.1, 1, 6)
    found = on_axes(descend(4, lam, noise, 0.02, 30_000, momentum=0.9), 0.02, 0.9)[0]
    for name, exact in (("curvature", lam), ("mode_noise", noise)):
        assert np.all(np.abs(found[name] - exact) < 3.5 * found[f"{name}_stderr"])
    exact = flatness.white_variance(noise, lam, 0.02, 0.9)
    assert np.all(np.abs(found["mode_variance"] - exact) < 3.5 * found["mode_variance_stderr"])


def exponent(curvatures: Floats, noise: Floats, eta: float) -> float:
    """ψ of independent batches at this η, 2(a−1) as it goes to 0; weighed as directions are, by relaxation times."""
    variance = flatness.white_variance(noise, curvatures, eta, 0.0)
    return 2 * np.polyfit(np.log(curvatures), np.log(variance), 1, w=np.sqrt(curvatures))[0]


@pytest.mark.slow
def test_error_bars_cover() -> None:
    """95 % intervals of λ, σ² and C, of every direction, and of ψ and a, in 100 trainings for each a."""
    # Less three spreads of a fraction of 100.
    least = 0.95 - 3 * 0.022
    for power in (0, 1, 2):
        noise = CURVATURES**power
        found = on_axes(descend(power + 10, CURVATURES, noise, 0.2, 15_000, replicates=100), 0.2)
        variance = flatness.white_variance(noise, CURVATURES, 0.2, 0.0)
        for name, exact in (
            ("curvature", CURVATURES),
            ("curvature_probe", CURVATURES),
            ("mode_variance", variance),
            ("mode_noise", noise),
            ("flatness_exponent", exponent(CURVATURES, noise, 0.2)),
            ("noise_exponent", power),
        ):
            value, error = (np.array([one[f"{name}{end}"] for one in found]) for end in ("", "_stderr"))
            covered = np.mean(np.abs(value - exact) <= 1.96 * error, axis=0)
            # Of twelve directions with noise of their own: 0.93 less three spreads of a fraction of 1,200.
            assert np.mean(covered) >= (least if name.endswith("exponent") else 0.91), (power, name, np.mean(covered))
            bias = np.abs(value.mean(0) - exact)
            assert np.all(bias < (0.5 if name.endswith("exponent") else 0.75) * error.mean(0)), (power, name)


@pytest.mark.slow
def test_the_choice_of_directions_leaves_the_exponents() -> None:
    """ψ and a of principal directions, known from 40 relaxation times of the flattest, are covered and not biased."""
    for power in (0, 1, 2):
        noise = CURVATURES**power
        motion = descend(power + 20, CURVATURES, noise, 0.4, 10_000, replicates=100)
        found = on_axes(motion, 0.4, chosen=True)
        for name, exact in (("flatness_exponent", exponent(CURVATURES, noise, 0.4)), ("noise_exponent", power)):
            value, error = (np.array([one[f"{name}{end}"] for one in found]) for end in ("", "_stderr"))
            assert np.mean(np.abs(value - exact) <= 1.96 * error) >= 0.95 - 3 * 0.022, (power, name)
            assert abs(value.mean() - exact) < 0.4 * error.mean(), (power, name)
    # Of equal variances, those that are chosen keep theirs where they are measured anew.
    rng = np.random.default_rng(5)
    same = rng.standard_normal((200, 2000))
    directions, largest = principal_directions(same[:, :1000], 4)
    again = (directions.T @ same[:, 1000:]).var(-1)
    assert np.all(largest > 1.8)
    assert again == pytest.approx(1, abs=0.15)


def test_what_cannot_be_had_is_said() -> None:
    """No probes, unknown or shuffled sampling, other optimizers, clipping, a sketch that mixes; no sketch at all."""
    run = recorded(descend(5, CURVATURES[4:], CURVATURES[4:], 0.1, 4000))
    bare = run.drop_vars([name for name in run.variables if "probe" in run[name].dims])
    results = estimate(bare)
    assert "no-probe" in codes(results)
    assert np.isnan(results["noise_exponent"]).all()
    assert np.isfinite(results["flatness_exponent"]).all()
    for sampling in ("shuffle", None):
        other = estimate(bare.drop_attrs().assign_attrs(optimizer=run.attrs["optimizer"], sampling=sampling))
        assert np.isnan(other["curvature"]).all()
        assert np.isfinite(other["curvature_gradient"].values[:, :4]).all()
        assert np.isnan(other["flatness_exponent"]).all()
    assert "sampler-unknown" in codes(estimate(run.assign_attrs(sampling="unknown")))
    for optimizer in ({"class": "Adam", "nesterov": False}, {"class": "SGD", "nesterov": True}):
        results = estimate(run.assign_attrs(optimizer=optimizer))
        assert "not-defined" in codes(results)
        assert np.isnan(results["variance_iid"]).all()
        assert np.isfinite(results["curvature"].values[:, :4]).all()
    clipped = run.assign(clip_factor=("step", np.full(4000, 0.5)))
    assert "clipped" in codes(estimate(clipped))
    mixed = run.assign_coords(layer_size=("layer", [1000]))
    assert "sketch-directions" in codes(estimate(mixed))
    with pytest.raises(AnalysisError, match="needs gradient_sketch"):
        estimate(run.drop_vars("gradient_sketch"))


def test_groups_of_different_learning_rates_share_no_line() -> None:
    """Directions of `all` belong to one group or the other, and none of the expected exponents is theirs."""
    curvatures = np.geomspace(0.1, 1, 8)
    run = recorded(descend(3, curvatures, curvatures, 0.1, 8000, replicates=2))
    names = ("learning_rate", "momentum", "dampening", "weight_decay")
    two = {name: (("optimizer_group", "step"), np.repeat(run[name].values, 2, axis=0)) for name in names}
    two["learning_rate"][1][1] *= 0.1
    results = estimate(run.drop_vars(names).assign(two).assign_coords(layer_optimizer_group=("layer", [0, 1])))
    of_exponent = [one for one in results.attrs["verdicts"] if one["quantity"] == "flatness_exponent"]
    assert [(one["status"], one["code"]) for one in of_exponent] == [("untrusted", "not-defined")]


def test_degenerate_motions() -> None:
    """Frozen, constant but for two points, too few steps, one coordinate, one lost value: no numbers, no warnings."""
    run = recorded(descend(6, CURVATURES[6:], CURVATURES[6:], 0.1, 400))
    frozen = run.assign(parameter_sketch=0 * run["parameter_sketch"])
    two = frozen["parameter_sketch"].copy()
    two[:, :, [100, 300]] = 1.0
    lost = run["parameter_sketch"].copy()
    lost[0, 0, 50] = np.nan
    for positions in (frozen["parameter_sketch"], two, lost):
        results = estimate(run.assign(parameter_sketch=positions))
        assert np.isnan(results["flatness_exponent"]).all()
        assert "unresolved" in codes(results)
    silent = run.assign(gradient_sketch=0 * run["gradient_sketch"], probe_sketch=0 * run["probe_sketch"])
    assert np.isnan(estimate(silent)["flatness_exponent"]).all()
    gap = run["gradient_sketch"].copy()
    gap[0, 0, 300] = np.nan
    assert np.isnan(estimate(run.assign(gradient_sketch=gap))["flatness_exponent"]).all()
    single = recorded(descend(7, CURVATURES[-1:], CURVATURES[-1:], 0.1, 4000))
    results = estimate(single)
    assert results["curvature"].values[0, 0] == pytest.approx(0.6, rel=0.3)
    assert "unresolved" in codes(results)
    with pytest.raises(AnalysisError, match="holds 63 steps"):
        estimate(run, segment="10:73")


def test_through_the_recorder_and_the_pipeline(tmp_path: Path) -> None:
    """A quadratic trained by torch, recorded, analyzed and read again: ψ = −2 for noise that is the same everywhere."""
    torch = pytest.importorskip("torch")
    from thermodl.record.quadratic import record_quadratic

    curvatures = torch.logspace(-0.7, 0, 8, dtype=torch.float64)
    setup = {"learning_rate": 0.4, "momentum": 0.0, "dimensions": 8, "steps": 2400, "burn_in": 100, "seed": 1}
    record_quadratic(tmp_path / "run", curvature=curvatures, **setup)
    settings = AnalysisSettings(segment="0:2400")
    assert analyze(tmp_path / "run", ["flatness"], settings) == {}
    results = open_results(tmp_path / "run")["flatness"].sel(group="all")
    assert float(results["fit_directions"]) >= 7
    assert abs(results["flatness_exponent"] + 2) < 3 * results["flatness_exponent_stderr"]
    assert abs(results["noise_exponent"]) < 3 * results["noise_exponent_stderr"]
    assert np.sort(results["curvature"].values[:8]) == pytest.approx(curvatures.numpy(), rel=0.3)
    assert results["mode_noise"].values[:8] == pytest.approx(1, abs=0.3)
