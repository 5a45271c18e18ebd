"""The pipeline: cached by content, settings side by side, refusals with a reason; on a synthetic run without torch."""

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from made_up import make_run

from thermodl import cli
from thermodl.analyze import AnalysisSettings, analyze, diffusion, open_results, open_run, physics, versions
from thermodl.analyze.export import results_table
from thermodl.analyze.physics import correlation, entropy_production
from thermodl.analyze.quantities import shuffled_epoch, steps_per_epoch
from thermodl.analyze.results import ResultsError, read_verdicts, write_results
from thermodl.analyze.segments import choose_segment, judge_segment, within
from thermodl.analyze.settings import AnalysisError, NotDefinedError, make_settings
from thermodl.analyze.truth import Process, simulate
from thermodl.analyze.verdicts import probe_verdicts
from thermodl.record.errors import RunError
from thermodl.record.writer import RunWriter
from thermodl.viewer.report import build_report

import truth

STEPS, SKETCH = 600, 16


def write_walk(
    folder: Path,
    *,
    optimizer: str = "SGD",
    nesterov: bool = False,
    probe_every: int = 5,
    learning_rate: np.ndarray | float = 0.01,
    momentum: float = 0.0,
    clipped: bool = False,
    diverged_at: int | None = None,
) -> None:
    """A run whose parameters walk freely: two layers of 16 parameters, sketched exactly; no probes every 0 steps."""
    rng = np.random.default_rng(0)
    sizes = {"layer": 2, "group": 2, "sketch": SKETCH, "parameter": 32, "optimizer_group": 1}
    layers = [
        {"name": name, "shape": [16], "size": 16, "group": name, "optimizer_group": 0} for name in ("first", "second")
    ]
    position = truth.brownian(rng, (2, SKETCH, STEPS), 0.5e-4)
    gradient = rng.standard_normal((2, SKETCH, STEPS))
    squared = np.sum(gradient**2, axis=1)
    rate = np.broadcast_to(learning_rate, (1, STEPS))
    momentum = np.nan if optimizer == "Adam" else momentum
    position[..., diverged_at:] *= 1.0 if diverged_at is None else np.nan
    block = {
        "step": np.arange(STEPS, dtype=float),
        "sgd_time": np.arange(STEPS) * 0.01,
        "loss": 1 + 0.1 * rng.standard_normal(STEPS),
        "learning_rate": rate,
        "momentum": np.full((1, STEPS), momentum),
        "dampening": np.full((1, STEPS), 0.0 * momentum),
        "weight_decay": np.zeros((1, STEPS)),
        "gradient_squared": squared,
        "parameter_dot_gradient": np.sum(position * gradient, axis=1),
        "parameter_squared": np.sum(position**2, axis=1),
        "displacement_squared": np.sum(position**2, axis=1),
        "update_squared": squared * 1e-4,
        "parameter_sketch": position,
        "gradient_sketch": gradient,
    }
    if clipped:
        block["clip_factor"] = np.where(rng.random(STEPS) < 0.5, 0.5, 1.0)
    if optimizer == "SGD":
        block |= {
            "velocity_squared": np.roll(squared, 1, axis=-1),
            "velocity_dot_gradient": rng.standard_normal((2, STEPS)),
            "parameter_dot_velocity": rng.standard_normal((2, STEPS)),
        }
    attributes = {
        "run_id": "walk",
        "layers": layers,
        "groups": ["first", "second"],
        "optimizer": {"class": optimizer, "nesterov": nesterov, "weight_decay_kind": "coupled"},
        "parameter_dtype": "float32",
        "sampling": "replacement",
        "not_recorded": {} if optimizer == "SGD" else {"velocity_squared": f"not defined for {optimizer}"},
    }
    writer = RunWriter(folder, sizes, list(block), attributes)
    writer.append("step", block)
    if probe_every:
        at = np.arange(0, STEPS, probe_every)
        noise = rng.gamma(8, 2, (2, len(at)))
        other = rng.standard_normal((2, SKETCH, len(at)))
        writer.append(
            "probe",
            {
                "probe_step": at.astype(float),
                "noise_trace": noise,
                "gradient_dot": rng.standard_normal((2, len(at))),
                "probe_sketch": other,
            },
        )
    writer.close("finished")


def test_everything_is_computed_once_and_then_cached(tmp_path: Path) -> None:
    """The second call computes nothing, a changed setting only what depends on it; names live side by side."""
    write_walk(tmp_path / "run")
    said: list[tuple[str, str]] = []

    def run(**settings: object) -> dict[str, str]:
        said.clear()
        analyze(tmp_path / "run", settings=make_settings(**settings), progress=lambda *pair: said.append(pair))
        return {analysis: state for analysis, state in said if state != "start"}

    assert set(run().values()) == {"computed"}
    assert set(run().values()) == {"cached"}
    changed = run(waiting_times=3)
    assert {changed.pop("ageing"), changed.pop("diffusion")} == {"computed"}
    assert set(changed.values()) == {"cached"}
    analyze(tmp_path / "run", ["diffusion"], make_settings(segment="100:500"), name="middle")
    assert open_results(tmp_path / "run")["diffusion"].attrs["segment"] != [100, 500]
    assert open_results(tmp_path / "run", "middle")["diffusion"].attrs["segment"] == [100, 500]
    assert sorted(open_results(tmp_path / "run", "middle")) == ["diffusion"]


@pytest.mark.parametrize("damage", ["halved", "missing", "re-recorded", "kernels"])
def test_what_no_longer_holds_is_not_called_cached(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that is damaged or lost, of another recording of the same id, or of other kernels, is made again."""
    write_walk(tmp_path / "run")
    analyze(tmp_path / "run", ["dissipation"])
    before = open_results(tmp_path / "run")["dissipation"]
    stored = tmp_path / "run" / "results.zarr" / "default" / "dissipation" / "gradient_dissipation" / "c" / "0"
    if damage == "halved":
        stored.write_bytes(stored.read_bytes()[:5])
    elif damage == "missing":
        stored.unlink()
        with pytest.raises(ResultsError, match="does not hold what was written"):
            open_results(tmp_path / "run")
    elif damage == "re-recorded":
        shutil.rmtree(tmp_path / "run" / "run.zarr")
        write_walk(tmp_path / "run", learning_rate=0.02)
    else:
        monkeypatch.setattr("thermodl.analyze.versions.KERNELS", versions.KERNELS + 1)
    said: list[str] = []
    analyze(tmp_path / "run", ["dissipation"], progress=lambda _, state: said.append(state))
    assert said == ["start", "computed"]
    again = open_results(tmp_path / "run")["dissipation"]
    assert again.drop_attrs().equals(before.drop_attrs()) == (damage != "re-recorded")


def test_results_say_how_they_were_made(tmp_path: Path) -> None:
    """Provenance, units and both languages on every variable; D of the walk within its error."""
    write_walk(tmp_path / "run")
    analyze(tmp_path / "run")
    results = open_results(tmp_path / "run")
    for dataset in results.values():
        for attribute in ("cache_key", "method", "reference", "explanation_zh", "thermodl_version", "run_id"):
            assert dataset.attrs[attribute]
        assert json.loads(dataset.attrs["settings"])
        assert dataset.attrs["committed_steps"] == STEPS
        assert all(verdict["zh"] and verdict["en"] for verdict in read_verdicts(dataset))
        for variable in dataset.data_vars.values():
            assert variable.attrs["units"]
            assert variable.attrs["long_name_zh"]
    d = results["diffusion"].sel(group="all")
    assert abs(d["diffusion_coefficient"] - 0.5e-4) <= 3 * d["diffusion_coefficient_stderr"]
    assert list(results["diffusion"]["group"].values) == ["all", "first", "second"]


def test_what_is_not_defined_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Adam has no heavy-ball velocity, and its step is not along the gradient; what needs neither is made."""
    write_walk(tmp_path / "run", optimizer="Adam")
    reasons = analyze(tmp_path / "run")
    assert sorted(reasons) == ["dissipation", "entropy_production", "stationarity"]
    assert "not of Adam" in str(reasons["stationarity"])
    assert "Adam steps otherwise" in str(reasons["dissipation"])
    assert ("diffusion_coefficient", "memory-unknown") in verdicts_of(tmp_path / "run", "diffusion")
    table = results_table({"temperature": open_results(tmp_path / "run")["temperature"]})
    assert ("temperature_noise", None, "not-defined") in zip(
        table["quantity"],
        table["value"],
        (str(codes).split()[0] if codes else "" for codes in table["codes"]),
        strict=True,
    )
    # What an older version has made is not left in its place.
    place = tmp_path / "run" / "results.zarr" / "default"
    shutil.rmtree(place / "dissipation")
    shutil.copytree(place / "temperature", place / "dissipation")
    analyze(tmp_path / "run")
    assert not open_results(tmp_path / "run")["dissipation"].data_vars
    temperature = open_results(tmp_path / "run")["temperature"]
    assert not [name for name in temperature if str(name).startswith("temperature_")]
    assert "noise_trace" in temperature
    assert next(verdict["code"] for verdict in read_verdicts(temperature)) == "not-defined"


def test_a_reason_that_cannot_be_written_costs_no_other_analysis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As results that cannot be; and the error of what is not defined travels between processes."""
    write_walk(tmp_path / "run", optimizer="Adam")

    def refuse(_path: Path, _name: str, analysis: str, _results: xr.Dataset) -> None:
        raise ResultsError(f"{analysis} cannot be written")

    monkeypatch.setattr("thermodl.analyze.pipeline.write_results", refuse)
    errors = analyze(tmp_path / "run", ["dissipation", "events"])
    assert [str(error) for error in errors.values()] == ["dissipation cannot be written", "events cannot be written"]
    error = pickle.loads(pickle.dumps(NotDefinedError("why", "为什么")))
    assert (str(error), error.zh) == ("why", "为什么")


@pytest.mark.parametrize(
    ("name", "time", "error", "expected"),
    [
        ("gradient", 0.25, 0.01, ("untrusted", "anticorrelated")),
        ("loss", 0.25, 0.01, ("caution", "anticorrelated")),
        ("gradient", 0.02, 0.27, ("untrusted", "unresolved")),
        ("parameter", 30.0, 16.0, ("untrusted", "unresolved")),
        ("parameter", np.nan, np.nan, ("untrusted", "unresolved")),
        ("parameter", 3.0, 0.5, ("ok", "long-enough")),
        ("parameter", 8.0, 2.0, ("caution", "too-short")),
    ],
)
def test_integrated_times_are_judged(name: str, time: float, error: float, expected: tuple[str, str]) -> None:
    """Of 200 steps: an error of half or more leaves nothing, and below ½ what cancels later is not in it."""
    values = {f"{name}_integrated_time{end}": ("group", [number]) for end, number in (("", time), ("_stderr", error))}
    (found,) = correlation._verdicts(xr.Dataset(values, coords={"group": ["all"]}), 200)
    assert (found["status"], found["code"]) == expected


@pytest.mark.parametrize(("slow", "expected"), [(0.0, "long-enough"), (0.1, "slow-part")])
def test_a_slow_part_is_not_missed(slow: float, expected: str) -> None:
    """White noise, and white noise above a tenth that remembers itself for a hundred steps, of which τ_int is 10.5."""
    rng = np.random.default_rng(12)
    moved = np.sqrt(1 - slow) * rng.standard_normal((8, 8000)) + np.sqrt(slow) * truth.ornstein_uhlenbeck(
        rng, (8, 8000), 100.0
    )
    run = make_run(moved[None])
    results = correlation.estimate(
        run.assign(gradient_sketch=run["parameter_sketch"]), AnalysisSettings(segment="0:8000")
    )
    codes = {item["quantity"]: item["code"] for item in results.attrs["verdicts"]}
    assert codes["parameter_integrated_time"] == expected


def test_without_probes(tmp_path: Path) -> None:
    """No noise temperature and no split, and a verdict that says why."""
    write_walk(tmp_path / "run", probe_every=0)
    assert list(analyze(tmp_path / "run")) == ["response"]
    results = open_results(tmp_path / "run")
    assert "temperature_noise" not in results["temperature"]
    assert "descent_power" not in results["dissipation"]
    for name in ("temperature", "dissipation"):
        assert any(verdict["code"] == "no-probe" for verdict in read_verdicts(results[name]))


def test_segments_are_cut_where_settings_change(tmp_path: Path) -> None:
    """`auto` never mixes learning rates; a segment that does is marked."""
    write_walk(tmp_path / "run", learning_rate=np.where(np.arange(STEPS) < 300, 0.01, 0.001))
    analyze(tmp_path / "run", ["dissipation"])
    assert open_results(tmp_path / "run")["dissipation"].attrs["segment"][0] >= 300
    analyze(tmp_path / "run", ["dissipation"], make_settings(segment="100:500"))
    dataset = open_results(tmp_path / "run")["dissipation"]
    assert dataset.attrs["segment_stationary"] is False
    assert "hyper-parameter changes" in read_verdicts(dataset)[0]["en"]


def test_a_change_close_to_the_end_leaves_what_was_before(tmp_path: Path) -> None:
    """The last constant stretch is too short to tell anything, and the one before it is nearly all."""
    write_walk(tmp_path / "run", learning_rate=np.where(np.arange(STEPS) < STEPS - 40, 0.01, 0.001))
    assert choose_segment(open_run(tmp_path / "run"), "auto").stop == STEPS - 40
    # A short rest before a schedule does not stand for the run.
    rate = np.where(np.arange(STEPS) < 100, 0.01, 0.01 - 1e-5 * np.arange(STEPS))
    write_walk(tmp_path / "schedule", learning_rate=rate)
    segment = choose_segment(open_run(tmp_path / "schedule"), "auto")
    assert (segment.start, segment.judgement) == (301, "scheduled")


def test_halves_of_a_motion_that_remembers_long_agree() -> None:
    """A stationary heavy ball of μ = 0.99 is seldom said to have moved: 4 of 100 here, 22 without its memory."""
    rng, process = np.random.default_rng(0), Process(0.002, 0.99, curvature=4.0)
    runs = (simulate(rng, process, dimensions=8, steps=2000) for _ in range(100))
    assert sum(judge_segment(run, 0, 2000).judgement == "moved" for run in runs) <= 8


def test_what_lies_outside_the_segment_is_left_out() -> None:
    """Steps, probes, curvatures and single samples; and probes that have no finite loss, which is said."""
    run = simulate(np.random.default_rng(0), Process(0.1), dimensions=4, steps=400)
    every = np.arange(0, 400, 5)
    run = run.assign(
        probe_loss=("probe", np.where(every % 100, 1.0, np.nan)),
        per_sample_noise_trace=(("layer", "per_sample"), 1.0 + every[None]),
    ).assign_coords(per_sample_step=("per_sample", every))
    part = within(run, judge_segment(run, 100, 300))
    assert {dim: part.sizes[dim] for dim in ("step", "probe", "curvature", "per_sample")} == {
        "step": 200,
        "probe": 38,
        "curvature": 40,
        "per_sample": 40,
    }
    codes = {one["code"]: one["en"] for one in probe_verdicts(run, part, "noise_trace")}
    assert list(codes) == ["lost-probes"]
    assert "2 of the segment's 40 probes had a loss that is not finite" in codes["lost-probes"]


@pytest.mark.parametrize(("first", "later", "said"), [(5, 5, False), (2, 50, True), (5, 15, False)])
def test_probes_that_grow_rare_are_said_to(first: int, later: int, said: bool) -> None:
    """Their mean is not the one over time."""
    run = simulate(np.random.default_rng(0), Process(0.1), dimensions=4, steps=800, probe_every=1)
    kept = np.concatenate([np.arange(0, 200, first), np.arange(200, 800, later)])
    part = run.isel(probe=kept)
    assert ["uneven-probes" for _ in range(said)] == [one["code"] for one in probe_verdicts(part, part, "noise_trace")]


def test_probes_that_a_budget_left_out_are_told_from_none(tmp_path: Path) -> None:
    """The way to mend it is another one."""
    write_walk(tmp_path / "run", probe_every=0)
    run = open_run(tmp_path / "run").assign_attrs(thinned=[{"channel": "probe", "skipped": 120}])
    (one,) = probe_verdicts(run, run, "noise_trace")
    assert (one["code"], "raise recorder.max_overhead or max_bytes" in one["en"]) == ("no-probe", True)


def test_a_few_losses_that_are_not_finite_cost_nothing() -> None:
    """Their place is bridged in correlations and in the balance of heat, as it is where events are sought."""
    run = simulate(np.random.default_rng(0), Process(0.1), dimensions=4, steps=2000)
    settings = AnalysisSettings(segment="0:2000")
    lost = run.assign(loss=run["loss"].where(run["step"] % 400 != 7))
    for analysis, name in ((correlation, "loss_integrated_time"), (entropy_production, "loss_decrease")):
        whole, bridged = (analysis.estimate(one, settings) for one in (run, lost))
        error = float(whole[f"{name}_stderr"])
        assert abs(float(bridged[name]) - float(whole[name])) < 0.5 * error
    half = run.assign(loss=run["loss"].where(run["step"] % 2 == 0))
    assert "loss_autocorrelation" not in correlation.estimate(half, settings)


def verdicts_of(folder: Path, analysis: str) -> dict[tuple[str, str], str]:
    """(quantity, code) → status of an analysis' verdicts."""
    found = read_verdicts(open_results(folder)[analysis])
    return {(one["quantity"], one["code"]): one["status"] for one in found}


def test_probes_that_say_nothing_are_told_apart(tmp_path: Path) -> None:
    """A segment between two probes is not a run without a probe; clipped steps beside unclipped probes are no noise."""
    write_walk(tmp_path / "rare", probe_every=500)
    assert analyze(tmp_path / "rare", settings=make_settings(segment="100:400")) == {}
    texts = [one["en"] for one in read_verdicts(open_results(tmp_path / "rare")["dissipation"])]
    assert any("none of the run's 2 probes lies in the segment" in text for text in texts)
    write_walk(tmp_path / "clipped", clipped=True)
    assert analyze(tmp_path / "clipped") == {}
    for analysis, quantity in (
        ("temperature", "temperature_noise"),
        ("dissipation", "descent_power"),
        ("diffusion", "diffusion_coefficient_predicted"),
    ):
        assert verdicts_of(tmp_path / "clipped", analysis)[quantity, "clipped"] == "untrusted"


def test_a_diverged_training_is_refused_by_name(tmp_path: Path) -> None:
    """Each analysis names the step; the stretch before it is analyzed where it is asked for."""
    write_walk(tmp_path / "run", diverged_at=400)
    reasons = analyze(tmp_path / "run")
    # The loss that is logged stays finite, and events are sought in nothing else.
    assert sorted(reasons) == [name for name in physics.names() if name != "events"]
    assert all("not finite from step 400 on; --segment 1:399" in str(reason) for reason in reasons.values())
    assert analyze(tmp_path / "run", settings=make_settings(segment="1:399")) == {}
    results = open_results(tmp_path / "run")
    assert np.isfinite(results["diffusion"]["diffusion_coefficient"]).all()
    assert np.isfinite(results["stationarity"]["fdr1_centred"]).all()
    late = results["stationarity"]["fdr1_centred_over_time"].sel(group="all")
    assert bool(late[late["window_step"] > 400].isnull().all())


def test_a_schedule_leaves_the_curves_over_time(tmp_path: Path) -> None:
    """Where every step has its own learning rate, what takes it step by step is shown, the rest marked untrusted."""
    write_walk(tmp_path / "run", learning_rate=0.01 * (1 + np.cos(np.pi * np.arange(STEPS) / STEPS)))
    assert analyze(tmp_path / "run") == {}
    for analysis, status in (
        ("temperature", "caution"),
        ("dissipation", "caution"),
        ("diffusion", "untrusted"),
        ("correlation", "untrusted"),
        ("stationarity", "untrusted"),
    ):
        assert verdicts_of(tmp_path / "run", analysis)["", "not-stationary"] == status
    temperature = open_results(tmp_path / "run")["temperature"]
    assert "temperature_noise" in temperature
    assert "kinetic_over_noise" not in temperature
    curve = open_results(tmp_path / "run")["dissipation"]["gradient_dissipation_over_time"].sel(group="all")
    assert float(curve[0]) > 10 * float(curve[-1])


def test_diffusion_within_the_memory_of_the_velocity(tmp_path: Path) -> None:
    """A segment too short for 5/(1−μ) is marked; Nesterov's motion at short lags is not predicted, its D is."""
    write_walk(tmp_path / "run", momentum=0.9, nesterov=True)
    analyze(tmp_path / "run", ["diffusion"])
    assert verdicts_of(tmp_path / "run", "diffusion")["diffusion_coefficient", "lag-too-short"] == "untrusted"
    diffusion = open_results(tmp_path / "run")["diffusion"]
    assert "diffusion_coefficient_predicted" in diffusion
    assert "predicted_mean_squared_displacement" not in diffusion


def test_mistakes_are_named(tmp_path: Path) -> None:
    """Unknown analysis, segment outside, run too short, no run."""
    write_walk(tmp_path / "run")
    with pytest.raises(AnalysisError, match="no analysis 'diffussion'; expected one of ageing, correlation, diffusion"):
        analyze(tmp_path / "run", ["diffussion"])
    reasons = analyze(tmp_path / "run", ["diffusion"], AnalysisSettings(segment="0:9000"))
    assert "within 0:600" in str(reasons["diffusion"])
    with pytest.raises(AnalysisError, match=r"^segment = 'a:b': expected auto, or start:stop such as 1000:3000$"):
        make_settings(segment="a:b")
    with pytest.raises(AnalysisError, match=r"^windows = 1: expected greater than or equal to 2$"):
        make_settings(windows=1)
    with pytest.raises(AnalysisError, match="there is no setting 'window'; expected one of segment, windows"):
        make_settings(window=4)
    with pytest.raises(RunError, match="no such folder"):
        analyze(tmp_path / "none")
    short = RunWriter(tmp_path / "short", {"layer": 1}, ["step"], {"layers": [], "groups": []})
    short.append("step", {"step": np.arange(10.0)})
    with pytest.raises(AnalysisError, match="10 committed steps; at least 64"):
        analyze(tmp_path / "short")


def test_a_running_run_is_analyzed_as_far_as_it_is_committed(tmp_path: Path) -> None:
    """More committed steps make a new key; the old result is replaced, never half."""
    write_walk(tmp_path / "run")
    analyze(tmp_path / "run", ["dissipation"])
    first = open_results(tmp_path / "run")["dissipation"].attrs["cache_key"]
    path = tmp_path / "run" / "run.zarr" / "zarr.json"
    metadata = json.loads(path.read_bytes())
    metadata["attributes"]["committed"]["step"] = 500
    metadata["attributes"]["committed"]["probe"] = 100
    path.write_text(json.dumps(metadata))
    assert open_run(tmp_path / "run").sizes["step"] == 500
    analyze(tmp_path / "run", ["dissipation"])
    again = open_results(tmp_path / "run")["dissipation"]
    assert again.attrs["cache_key"] != first
    assert again.attrs["committed_steps"] == 500


def test_broken_results(tmp_path: Path) -> None:
    """A newer format is named; results without units cannot be written."""
    write_walk(tmp_path / "run")
    analyze(tmp_path / "run", ["dissipation"])
    results = open_results(tmp_path / "run")["dissipation"]
    del results["gradient_dissipation"].attrs["units"]
    with pytest.raises(ValueError, match="'gradient_dissipation' has no attribute 'units'"):
        write_results(tmp_path / "run", "default", "dissipation", results)
    path = tmp_path / "run" / "results.zarr" / "default" / "dissipation" / "zarr.json"
    metadata = json.loads(path.read_bytes())
    metadata["attributes"]["format_version"] = 7
    path.write_text(json.dumps(metadata))
    with pytest.raises(ResultsError, match="results format 7"):
        open_results(tmp_path / "run")


def test_a_damaged_recording_costs_the_analyses_that_need_it(tmp_path: Path) -> None:
    """A chunk cut short or lost is named by the analyses that read it, the others are made; cut metadata refuse all."""
    write_walk(tmp_path / "run")
    array = tmp_path / "run" / "run.zarr" / "gradient_squared"
    chunk = array / "c" / "0" / "0"
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    # Also where all was analyzed while the recording was whole.
    assert analyze(tmp_path / "whole") == {}
    for run in ("run", "whole"):
        damaged = tmp_path / run / chunk.relative_to(tmp_path / "run")
        damaged.write_bytes(damaged.read_bytes()[:20])
        reasons = analyze(tmp_path / run)
        assert sorted(reasons) == ["dissipation", "entropy_production", "stationarity", "temperature"]
        assert all("gradient_squared is damaged" in str(reason) for reason in reasons.values())
    assert sorted(open_results(tmp_path / "run")) == [
        "ageing",
        "correlation",
        "diffusion",
        "events",
        "flatness",
        "noise",
        "response",
    ]
    chunk.unlink()
    reasons = analyze(tmp_path / "run")
    assert sorted(reasons) == ["dissipation", "entropy_production", "stationarity", "temperature"]
    assert all("gradient_squared lacks its chunk c/0/0, which" in str(reason) for reason in reasons.values())
    (array / "zarr.json").write_text("{", "utf-8")
    with pytest.raises(RunError, match="cannot be opened"):
        analyze(tmp_path / "run", force=True)


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    """One sentence for every analysis; what was written before stays."""
    write_walk(tmp_path / "run")
    (tmp_path / "run" / "results.zarr").write_text("in the way")
    errors = analyze(tmp_path / "run", ["dissipation", "correlation"])
    assert list(errors) == ["dissipation", "correlation"]
    assert all(isinstance(error, ResultsError) and "cannot be written" in str(error) for error in errors.values())


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({}, "unresolved"),
        ({"probe_every": 400}, "unresolved"),
        ({"clipped": True}, "clipped"),
        ({"optimizer": "Adam"}, "unresolved"),
    ],
)
def test_two_analyses_judge_alike_what_both_report(tmp_path: Path, how: dict[str, Any], code: str) -> None:
    """tr C and ‖∇L‖² of too few probes, below their error, or of clipped gradients, under any optimizer."""
    write_walk(tmp_path / "run", **how)
    assert analyze(tmp_path / "run", ["noise", "temperature"]) == {}
    both = [
        {
            (one["quantity"], one["status"], one["code"], one["en"], one["zh"])
            for one in read_verdicts(results)
            if one["quantity"] in ("noise_trace", "gradient_norm_squared")
        }
        for results in open_results(tmp_path / "run").values()
    ]
    assert both[0] == both[1]
    assert code in {one[2] for one in both[0]}


@pytest.mark.parametrize(
    ("attributes", "epoch", "shuffled"),
    [
        ({"sampling": "shuffle", "steps_per_epoch": 125}, 125, 125),
        ({"sampling": "shuffle", "batch_size": 64, "train_size": 8000}, 125, 125),
        ({"sampling": "replacement", "batch_size": 64, "train_size": 8000}, 125, None),
        ({"batch_size": 64, "train_size": 8000}, 125, None),
        ({"sampling": "shuffle", "batch_size": 64}, None, None),
        ({"sampling": "shuffle", "batch_size": 64, "train_size": 64}, None, None),
    ],
)
def test_an_epoch_is_known_from_what_was_recorded(
    tmp_path: Path, attributes: dict[str, Any], epoch: int | None, shuffled: int | None
) -> None:
    """In every analysis alike, also where one's own loop gave the sizes of batch and data alone."""
    write_walk(tmp_path / "run")
    run = open_run(tmp_path / "run")
    run.attrs = {key: value for key, value in run.attrs.items() if key != "sampling"} | attributes
    assert (steps_per_epoch(run), shuffled_epoch(run)) == (epoch, shuffled)
    found = diffusion(run)
    assert np.nan_to_num(float(found["steps_per_epoch"])) == (shuffled or 0)
    limited = [one["en"] for one in read_verdicts(found) if one["code"] == "sampler-limited"]
    assert [f"epochs of {shuffled} steps" in one for one in limited] == ([True] if shuffled else [])


def test_what_is_not_to_be_trusted_stands_beside_its_analysis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the stored verdicts say, computed or kept."""
    write_walk(tmp_path / "run")
    for state in (r"computed in [\d.]+ s", "cached"):
        with pytest.raises(SystemExit):
            cli.main(["analyze", str(tmp_path / "run"), "--only", "correlation,dissipation"])
        lines = capsys.readouterr().out.splitlines()
        start, stop = open_results(tmp_path / "run")["correlation"].attrs["segment"]
        assert f"  from steps {start}–{stop - 1}, which are not shown to be stationary" in lines
        for analysis, results in open_results(tmp_path / "run").items():
            verdicts = read_verdicts(results)
            found = [(one["quantity"], one["code"]) for one in verdicts if one["status"] == "untrusted"]
            cautions = sum(one["status"] == "caution" for one in verdicts)
            (line,) = (line for line in lines if line.startswith(f"  {analysis}: "))
            counted = f"; cautions: {cautions}" if cautions else ""
            assert re.match(rf"  {analysis}: {state}{counted}(; not to be trusted: |$)", line)
            assert ("not to be trusted" in line) == bool(found)
            assert all(code in line and (quantity or "all of it") in line for quantity, code in found)
    assert any("not to be trusted" in line for line in lines)


def test_one_analysis_that_breaks_does_not_stop_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect gives a traceback, its name at the end and code 1; what is not defined is said, and is no failure."""
    both = [str(tmp_path / name) for name in ("one", "two")]
    for path in both:
        write_walk(Path(path))
    kinds = iter([lambda en, _: ZeroDivisionError(en), NotDefinedError, NotDefinedError])

    def estimate(*_: object) -> xr.Dataset:
        raise next(kinds)("no such thing", "没有")

    monkeypatch.setattr("thermodl.analyze.physics.temperature.estimate", estimate)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["analyze", *both, "--only", "temperature,dissipation"])
    assert stopped.value.code == 1
    out, error = capsys.readouterr()
    assert "Traceback" in error
    assert error.splitlines()[-1] == f"thermodl: {both[0]} temperature: ZeroDivisionError: no such thing"
    assert "  temperature: not defined: no such thing" in out.splitlines()
    assert all("dissipation" in open_results(path) for path in both)
    assert "temperature" not in open_results(both[0])
    kept = open_results(both[1])["temperature"]
    assert not kept.data_vars
    (why,) = read_verdicts(kept)
    assert (why["code"], why["en"], why["zh"]) == ("not-defined", "Not defined: no such thing.", "没有定义：没有。")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["analyze", both[1], "--only", "temperature"])
    assert stopped.value.code == 0
    out, error = capsys.readouterr()
    assert not error
    assert "  temperature: not defined: no such thing" in out.splitlines()
    # Exports and the report take it for what it is.
    table = results_table(open_results(both[1]))
    at = table["analysis"].index("temperature")
    assert [table[column][at] for column in ("quantity", "value", "verdict", "codes")] == [
        "",
        None,
        "untrusted",
        "not-defined",
    ]
    assert table["analysis"].count("temperature") == 1
    assert "no such thing." in build_report(Path(both[1]))
