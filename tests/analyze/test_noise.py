"""The analysis `noise` on gradients drawn from a known C: bias and coverage, traps, and what is not there."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from thermodl.analyze import AnalysisSettings, tails, truth
from thermodl.analyze.dimensions import inverse_dimension
from thermodl.analyze.physics import dissipation, noise, temperature
from thermodl.analyze.quantities import group_sum

BATCH, REPLICATES, STEPS = 125, 1000, 64
"""replicates are groups of one run, which takes the square of their number"""
EXAMPLES = 32


def noisy_run(
    rng: np.random.Generator,
    spread: np.ndarray,
    probes: int,
    *,
    signal: float = 1.0,
    groups: int = 1,
    sketch: int | None = None,
    parameters: int | None = None,
    **attributes: Any,
) -> xr.Dataset:
    """A run as `open_run` gives it, of groups that share nothing, with a probe at every step.

    Args:
        spread: (direction,) eigenvalues of C; their eigenvectors are drawn anew for every group.
        signal: ‖∇L‖² over tr C.
        sketch: coordinates that hold the parameters, folded with random signs; None if exact.
    """
    steps = max(probes, STEPS)
    count = parameters or len(spread)
    width = sketch or count
    shape = (groups, count)
    drawn = rng.standard_normal((2, groups, probes, len(spread))) * np.sqrt(spread)
    directions = np.linalg.qr(rng.standard_normal((groups, count, len(spread))))[0]
    mean = rng.standard_normal(shape)
    mean *= np.sqrt(signal * np.sum(spread) / np.sum(mean**2, axis=1, keepdims=True))
    g, other = mean[:, None] + drawn @ directions.transpose(0, 2, 1)
    signs = rng.choice([-1.0, 1.0], shape) if width < count else np.ones(shape)

    def sketched(vectors: np.ndarray) -> np.ndarray:
        folded = (vectors * signs[:, None]).reshape(groups, probes, -1, width).sum(2)
        return folded.transpose(0, 2, 1)

    names = [f"replicate{index}" for index in range(groups)]
    padded = np.full((groups, width, steps), np.nan)
    padded[..., :probes] = sketched(g)
    return xr.Dataset(
        {
            "noise_trace": (("layer", "probe"), np.sum((g - other) ** 2, axis=2) / 2),
            "gradient_dot": (("layer", "probe"), np.sum(g * other, axis=2)),
            "gradient_sketch": (("group", "sketch", "step"), padded),
            "probe_sketch": (("group", "sketch", "probe"), sketched(other)),
            "displacement_squared": (("layer", "step"), np.ones((groups, steps))),
        }
        | {
            name: (("optimizer_group", "step"), np.zeros((1, steps)))
            for name in ("learning_rate", "momentum", "dampening", "weight_decay")
        },
        coords={
            "group": names,
            "layer": names,
            "step": np.arange(steps),
            "sgd_time": ("step", np.arange(steps, dtype=float)),
            "probe_step": ("probe", np.arange(probes)),
            "layer_group": ("layer", names),
            "layer_size": ("layer", np.full(groups, count)),
            "layer_optimizer_group": ("layer", np.zeros(groups, int)),
        },
        attrs={"optimizer": {"class": "Adam", "nesterov": False}, "batch_size": EXAMPLES, "sampling": "replacement"}
        | attributes,
    )


def measured(run: xr.Dataset) -> xr.Dataset:
    """The analysis over all steps."""
    return noise.estimate(run, AnalysisSettings(segment=f"0:{run.sizes['step']}", windows=2)).compute()


def replicated(spread: np.ndarray, probes: int, **how: Any) -> xr.Dataset:
    """Results of `REPLICATES` groups, (group,)."""
    rng = np.random.default_rng(1)
    parts = [measured(noisy_run(rng, spread, probes, groups=BATCH, **how)) for _ in range(REPLICATES // BATCH)]
    return xr.concat(
        [part.isel(group=slice(1, None)) for part in parts], "group", data_vars="all", combine_attrs="override"
    )


def covered(results: xr.Dataset, name: str, exact: float, bias: float = 0.0) -> float:
    """Fraction of the 95 % intervals that hold the exact value, after a look at their mean.

    It must be as near as three of its standard errors, and `bias` of a single error.
    """
    value, error = results[name].values, results[f"{name}_stderr"].values
    shift = abs(value.mean() - exact) / value.std()
    assert shift < bias + 3 / np.sqrt(len(value)), f"{name} biased by {shift} of an error"
    return float(np.mean(abs(value - exact) <= 1.959964 * error))


def in_interval(results: xr.Dataset, name: str, exact: float) -> float:
    """Fraction of the intervals from `_low` to `_high` that hold the exact value; they may be open above."""
    low, high = results[f"{name}_low"].values, results[f"{name}_high"].values
    return float(np.mean((low <= exact) & ~(high < exact)))


@pytest.mark.slow
@pytest.mark.parametrize(("signal", "probes"), [(0.05, 40), (0.3, 40), (1.0, 40), (5.0, 40), (0.3, 160)])
def test_strengths_cover(signal: float, probes: int) -> None:
    """tr C, ‖∇L‖², their ratio and B_simple, from signals below the noise to above."""
    results = replicated(np.full(16, 0.5), probes, signal=signal)
    # Of forty samples the Γ-method's automatic window and Student's t make too much rather than too little: 98 %.
    most = 0.97 if probes > 40 else 0.985
    assert 0.93 <= covered(results, "noise_trace", 8.0) <= most
    assert 0.93 <= covered(results, "gradient_norm_squared", 8 * signal) <= most
    # A ratio of means is high by the squared relative error of its denominator, √(2/(16 n)).
    assert 0.93 <= covered(results, "signal_to_noise", signal, bias=0.1) <= most
    assert 0.93 <= in_interval(results, "simple_noise_scale", EXAMPLES / signal) <= most
    if signal >= 1:
        assert 0.93 <= covered(results, "simple_noise_scale", EXAMPLES / signal, bias=0.2) <= most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("directions", "probes", "parameters", "sketch"),
    [(16, 100, None, None), (16, 40, None, None), (16, 100, 512, 32), (16, 60, 512, 64)],
)
def test_dimensions_cover(directions: int, probes: int, parameters: int | None, sketch: int | None) -> None:
    """(tr C)²/tr C² of a spectrum that falls off, through exact sketches and such as fold 512 parameters."""
    spread = 0.7 ** np.arange(directions)
    exact = spread.sum() ** 2 / np.sum(spread**2)
    results = replicated(spread, probes, parameters=parameters, sketch=sketch)
    inverse = xr.Dataset(
        {"inverse": 1 / results["effective_dimension"]}
        | {"inverse_stderr": results["effective_dimension_stderr"] / results["effective_dimension"] ** 2}
    )
    fractions = covered(inverse, "inverse", 1 / exact, 0.1), in_interval(results, "effective_dimension", exact)
    # Of a sketch both probes and signs are known by first order only, which is safe.
    assert all(0.93 <= fraction <= (0.985 if sketch else 0.97) for fraction in fractions), fractions
    assert abs(float(results["effective_dimension"].median()) / exact - 1) < 0.05


def test_a_ratio_of_means_is_no_mean_of_ratios() -> None:
    """B_simple near 2,500 within its interval where the mean of the probes' own ratios is anything (physics.md, V3)."""
    batch, exact = 250, 2500
    run = noisy_run(np.random.default_rng(3), np.full(16, 0.5), 4000, signal=batch / exact, batch_size=batch)
    results = measured(run).sel(group="all")
    noises, signals = run["noise_trace"].values[0], run["gradient_dot"].values[0]
    ratio = batch * noises.mean() / signals.mean()
    assert float(results["simple_noise_scale"]) == pytest.approx(ratio, rel=1e-12)
    assert results["simple_noise_scale_low"] < exact < results["simple_noise_scale_high"]
    assert abs(ratio / exact - 1) < 0.2
    assert np.mean(signals < 0) > 0.2
    assert abs(np.mean(batch * noises / signals) / exact - 1) > 0.5


def test_against_the_obvious_way() -> None:
    """tr C, ‖∇L‖² and d_eff written out, of one group and of two that share their noise."""
    rng = np.random.default_rng(4)
    run = noisy_run(rng, np.array([3.0, 1.0, 0.5]), 50, groups=2)
    results = measured(run)
    x = (run["gradient_sketch"].values[..., :50] - run["probe_sketch"].values) / np.sqrt(2)
    assert results["noise_trace"].values[0] == pytest.approx(np.sum(x**2) / 50)
    both, pairs = np.concatenate(x).T, [(i, j) for i in range(50) for j in range(50) if i != j]
    top = np.mean([(both[i] @ both[j]) ** 2 for i, j in pairs])
    bottom = np.mean([(both[i] @ both[i]) * (both[j] @ both[j]) for i, j in pairs])
    # What is added to second order is far below one error.
    gap = abs(1 / results["effective_dimension"].values[0] - top / bottom)
    error = results["effective_dimension_stderr"].values[0] / results["effective_dimension"].values[0] ** 2
    assert gap < error / 4
    shared = np.stack([x[0], x[0]])
    value, _, _ = inverse_dimension(shared, np.array([3, 3]))
    assert value == pytest.approx(value[0])


def test_micro_batches_and_single_examples_agree() -> None:
    """Brought to the batch in use, with 1 − B/N where it is drawn without replacement, and held against the probes."""
    run = noisy_run(np.random.default_rng(5), np.full(16, 0.5), 64, sampling="shuffle", train_size=64)
    rng = np.random.default_rng(6)
    chunks = 16 * rng.chisquare(48, (1, 64)) / 48
    chunks[:, 3] = np.nan
    run = run.assign(
        chunk_noise_trace=(("layer", "step"), chunks),
        per_sample_noise_trace=(("layer", "per_sample"), 8 * EXAMPLES * 63 / 32 * rng.chisquare(480, (1, 20)) / 480),
    ).assign_coords(per_sample_step=("per_sample", np.arange(0, 60, 3)))
    results = measured(run)
    codes = {one["quantity"]: one["code"] for one in results.attrs["verdicts"]}
    per_sample = run["per_sample_noise_trace"].values.mean()
    exact = {"noise_trace_chunks": np.nanmean(chunks) / 2, "noise_trace_samples": per_sample * (32 / 63) / EXAMPLES}
    for name, value in exact.items():
        assert float(results[name].sel(group="all")) == pytest.approx(value)
        assert codes[f"{name}_ratio"] == "agree"
    # B_simple is of one example: C of batches that share none of theirs holds a half already.
    scale = float((results["simple_noise_scale"] * results["signal_to_noise"]).sel(group="all"))
    assert scale == pytest.approx(2 * EXAMPLES)
    marked = measured(run.assign_attrs(chunk_statistics=True)).attrs["verdicts"]
    assert ("noise_trace_chunks", "chunk-statistics") in {(one["quantity"], one["code"]) for one in marked}


def test_what_is_not_there() -> None:
    """Nothing to measure, little, one value that is not finite, no noise, no batch size: a word, no wrong number."""

    def codes(results: xr.Dataset) -> set[tuple[str, str]]:
        return {(one["quantity"], one["code"]) for one in results.attrs["verdicts"]}

    rng = np.random.default_rng(7)
    run = noisy_run(rng, np.full(4, 1.0), 40, groups=2)
    none = measured(run.drop_dims("probe"))
    assert not [name for name in none if "over_time" not in str(name)]
    assert ("noise_trace", "no-probe") in codes(none)
    two = measured(run.isel(probe=slice(2)))
    assert ("noise_trace", "unresolved") in codes(two)
    assert two["noise_trace_stderr"].isnull().all()
    broken = run.copy(deep=True)
    broken["noise_trace"][0, 5] = broken["gradient_dot"][0, 5] = np.nan
    broken["probe_sketch"][0, :, 5] = np.nan
    results = measured(broken)
    assert ("noise_trace", "unresolved") in codes(results)
    assert results["effective_dimension"].isnull().values.tolist() == [True, True, False]
    frozen = run.copy(deep=True)
    for name in ("noise_trace", "gradient_dot", "gradient_sketch", "probe_sketch"):
        frozen[name][0] = 0.0
    results = measured(frozen)
    assert results["noise_trace"].values[1] == 0
    for name in ("signal_to_noise", "simple_noise_scale", "effective_dimension"):
        assert results[name].isnull().values.tolist() == [False, True, False], name
    silent = run.copy(deep=True)
    silent["noise_trace"][:] = 0.0
    silent["probe_sketch"][:] = silent["gradient_sketch"].values[..., :40]
    assert measured(silent)["signal_to_noise"].isnull().all()
    unknown = measured(run.assign_attrs(batch_size=None))
    assert ("simple_noise_scale", "batch-size-unknown") in codes(unknown)
    assert "simple_noise_scale" not in unknown
    lone = measured(noisy_run(rng, np.ones(1), 40))
    assert float(lone["effective_dimension"].sel(group="all")) == pytest.approx(1)


def test_what_is_not_resolved_is_said() -> None:
    """A signal far below the noise leaves B_simple open above; noise in more directions than probes tell, d_eff."""
    run = noisy_run(np.random.default_rng(9), np.ones(512), 12, signal=0.0, parameters=512, sketch=8)
    results = measured(run)
    codes = {(one["quantity"], one["code"]) for one in results.attrs["verdicts"]}
    assert {("simple_noise_scale", "unresolved"), ("effective_dimension", "lower-bound")} <= codes
    assert results["simple_noise_scale_high"].isnull().all()
    assert float(results["effective_dimension"].max()) <= 12 * 8


@pytest.mark.parametrize(("sampling", "said"), [("shuffle", True), (None, True), ("replacement", False)])
def test_signal_of_shuffled_batches_is_doubted(sampling: str | None, said: bool) -> None:
    """Their noise knows where the parameters are, and g·g′ is not ‖∇L‖² alone: in every analysis that shows it."""
    run = truth.simulate(np.random.default_rng(9), truth.Process(0.1, 0.9), dimensions=8, steps=200)
    run = run.assign_attrs(sampling=sampling, batch_size=8, train_size=1000)
    of_signal = {"gradient_norm_squared", "signal_to_noise", "simple_noise_scale", "descent_power", "descent_fraction"}
    settings = AnalysisSettings(segment="0:200", windows=2)
    doubted: set[str] = set()
    for analysis in (noise, temperature, dissipation):
        codes = codes_of(analysis.estimate(run, settings))
        doubted |= {quantity for quantity, code in codes if code == "shuffled-signal"}
    assert doubted == (of_signal if said else set())


def test_a_lost_layer_spoils_its_groups_alone() -> None:
    """NaN in one layer is NaN in its group and in `all`; 0·NaN is not added to the others."""
    run = noisy_run(np.random.default_rng(10), np.ones(4), 8, groups=3)
    values = xr.DataArray(np.arange(6.0).reshape(3, 2), dims=("layer", "step"))
    values[1, 0] = np.nan
    for data in (values, values.chunk({"layer": 1})):
        found = group_sum(data, run).values
        np.testing.assert_array_equal(found, [[np.nan, 9], [0, 1], [np.nan, 3], [4, 5]])


def test_colour_of_shuffled_and_of_independent_batches() -> None:
    """S(0)/tr C is 1 of independent batches and 0 of shuffled epochs, with −1/(M−1) per lag within one."""
    rng, batches, steps = np.random.default_rng(11), 16, 1600
    run = noisy_run(rng, np.ones(32), steps, train_size=batches * EXAMPLES, steps_per_epoch=batches)
    white = measured(run).sel(group="all")
    assert abs(float(white["low_frequency_weight"]) - 1) < 3 * float(white["low_frequency_weight_stderr"])
    assert ("low_frequency_weight", "white") in codes_of(white)
    # The noise of an epoch's batches adds up to 0; the probe's does not take part.
    noises = rng.standard_normal((steps // batches, batches, 32))
    noises = (noises - noises.mean(1, keepdims=True)) * np.sqrt(batches / (batches - 1))
    g, other = noises.reshape(steps, 32).T, rng.standard_normal((32, steps))
    shuffled = run.assign(
        gradient_sketch=(("group", "sketch", "step"), g[None]),
        probe_sketch=(("group", "sketch", "probe"), other[None]),
        epoch=("step", np.arange(steps) // batches),
    ).assign_attrs(sampling="shuffle")
    results = measured(shuffled).sel(group="all")
    value, error = float(results["low_frequency_weight"]), float(results["low_frequency_weight_stderr"])
    assert abs(value) < 3 * error < 0.3
    assert float(results["low_frequency_weight_shuffled"]) == pytest.approx(0, abs=0.02)
    gap = abs(results["noise_autocovariance"] - results["noise_autocovariance_shuffled"])
    assert bool((gap < 4 * results["noise_autocovariance_stderr"]).all())
    assert ("low_frequency_weight", "coloured-epoch") in codes_of(results)


def test_17_tail_index_traps() -> None:
    """(17) α̂ of pooled normal coordinates with log-normal scales is near 1; coordinate by coordinate it is 2."""
    rng = np.random.default_rng(12)
    scale = np.exp(2 * rng.standard_normal((256, 1)))
    normal = scale * rng.standard_normal((256, 1024))
    pooled = rng.permutation(normal[:, :40].ravel())[:10000]
    sums = pooled.reshape(100, 100).sum(1)
    naive = np.log(100) / (np.log(abs(sums)).mean() - np.log(abs(pooled)).mean())
    assert naive < 1.4
    value, error = tails.tail_statistics(tails.tail_sums(normal))
    twin, _ = tails.tail_statistics(tails.tail_sums(tails.gaussian_twin(normal, rng)))
    assert np.all(abs(value - twin) < 4 * error)
    assert 1 / value[2] == pytest.approx(2, abs=0.1)
    cauchy, error = tails.tail_statistics(tails.tail_sums(scale * rng.standard_cauchy((256, 1024))))
    assert np.all(abs(cauchy[2:] - 1) < 4 * error[2:])
    # Light but not normal: below 2, and rising with the length of the sums.
    light, _ = tails.tail_statistics(tails.tail_sums(scale * rng.laplace(size=(256, 1024))))
    assert 1 / light[3] < 1 / light[2] < 1.97


def test_07_finite_population_correction() -> None:
    """(7) Of B of N without replacement tr C = (S²/B)(1−B/N), 0 at B = N, and not S²/B."""
    rng, examples = np.random.default_rng(13), 40
    gradients = rng.standard_normal((examples, 3))
    spread = gradients.var(0, ddof=1).sum()
    for batch in (10, 40):
        drawn = np.array([gradients[rng.permutation(examples)[:batch]] for _ in range(4000)])
        found = drawn.mean(1).var(0, ddof=1).sum()
        assert found == pytest.approx(spread / batch * (1 - batch / examples), rel=0.06, abs=1e-12)
        chunks = drawn.reshape(4000, 5, -1, 3).mean(2)
        traces = np.sum((chunks - chunks.mean(1, keepdims=True)) ** 2, axis=(1, 2)) / 4 / 5
        run = noisy_run(rng, np.ones(3), 64, batch_size=batch, train_size=examples, sampling="shuffle")
        run["chunk_noise_trace"] = ("layer", "step"), np.resize(traces.mean(), (1, 64))
        assert float(measured(run)["noise_trace_chunks"].sel(group="all")) == pytest.approx(found, rel=0.06, abs=1e-12)


def test_08_sketch_is_taken_off_the_trace_of_the_square() -> None:
    """(8) tr C² through a sketch is tr C²(1+1/k) + (tr C)²/k: 1/d_eff raw is several times 1/d_eff."""
    run = noisy_run(np.random.default_rng(14), np.ones(256), 1000, parameters=1024, sketch=64)
    x = (run["gradient_sketch"].values[0, :, :1000] - run["probe_sketch"].values[0]) / np.sqrt(2)
    raw = np.sum(np.cov(x) ** 2) / np.trace(np.cov(x)) ** 2
    results = measured(run).sel(group="all")
    assert raw * 256 > 4
    assert results["effective_dimension_low"] < 256
    assert not results["effective_dimension_high"] < 256


def codes_of(results: xr.Dataset) -> set[tuple[str, str]]:
    """Quantities and codes of the verdicts."""
    return {(one["quantity"], one["code"]) for one in results.attrs["verdicts"]}


@pytest.mark.parametrize(
    ("attributes", "lacking"),
    [
        ({}, "sampling"),
        ({"train_size": 1000}, "sampling"),
        ({"sampling": "shuffle"}, "train_size"),
        ({"sampling": "shuffle", "train_size": 1000}, ""),
        ({"sampling": "replacement"}, ""),
    ],
)
def test_what_the_batch_size_at_which_noise_equals_signal_lacks_is_named(
    attributes: dict[str, Any], lacking: str
) -> None:
    found = noise._batch_size(xr.Dataset(attrs={"batch_size": 8, **attributes}))
    assert [one["code"] for one in found] == (["sampler-unknown"] if lacking else [])
    assert all(f" {lacking} " in one["en"] and f" {lacking}" in one["zh"] for one in found)


def test_tails_of_a_coarse_precision_are_those_of_a_fine_one() -> None:
    """Sums of coarse numbers cancel exactly at times, which is no value that is not finite."""
    fine = np.random.default_rng(21).standard_normal((16, 1200))
    coarse = np.round(fine * 8) / 8
    # A coordinate that is ever 0 itself is left out.
    coarse[coarse == 0] = 1 / 8
    blocks = coarse[:, : 1200 // 8 * 8].reshape(16, -1, 8)
    assert (blocks.sum(2) == 0).sum() > 10
    (expected, error), (found, _) = (tails.tail_statistics(tails.tail_sums(values)) for values in (fine, coarse))
    assert (abs(found - expected) < 3 * error).all()
