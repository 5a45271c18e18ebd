"""The budget: it is kept, it is fair, and where there is none nothing changes."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from thermodl.record import Recorder, RecorderSettings, open_run  # noqa: E402
from thermodl.record.budget import Budget, share  # noqa: E402
from thermodl.record.check import check_recording  # noqa: E402
from thermodl.record.cli import record_run  # noqa: E402
from thermodl.record.plan import describe_plan, make_plan  # noqa: E402
from thermodl.record.schedule import compile_schedule  # noqa: E402
from thermodl.record.settings import SettingsError, make_settings  # noqa: E402
from thermodl.record.store import read_attributes  # noqa: E402


def test_shares_are_fair() -> None:
    """Who needs less than an equal part gets it, the others the rest; nothing is given twice."""
    assert share(10, {"a": 20, "b": 1, "c": 6}) == {"b": 1, "c": 4.5, "a": 4.5}
    assert share(30, {"a": 20, "b": 1, "c": 6}) == {"b": 1, "c": 6, "a": 20}
    assert share(-1, {"a": 20}) == {"a": 0}


class Clock:
    """A training whose times are given: what recording took so far, and the wall time."""

    def __init__(self, **each: float):
        self.each, self.wall_time = each, 0.0
        self.seconds: dict[str, float] = {"steps": 0.0, "probes": 0.0, "snapshots": 0.0}

    def take(self, kind: str, factor: float = 1.0) -> None:
        """Let time pass; `training` is no recording."""
        self.wall_time += factor * self.each[kind]
        if kind in self.seconds:
            self.seconds[kind] += factor * self.each[kind]

    @property
    def over(self) -> float:
        """By what the overhead is passed, as a time, at max_overhead 0.05."""
        recording = sum(self.seconds.values())
        return recording - 0.05 * (self.wall_time - recording)


@pytest.mark.parametrize("probe_every", [10, 1, "burst:4/40"])
def test_the_time_is_kept_within_one_event(probe_every: int | str) -> None:
    """After the compiling is paid for, no more than one event too much, though times vary; no channel is starved."""
    settings = RecorderSettings(probe_every=probe_every, snapshot_every=35, max_overhead=0.05)
    budget = Budget(settings, {"step": 1, "probe": 1, "snapshot": 1})
    clock, generator = Clock(training=1.0, steps=0.01, probes=2.0, snapshots=1.0), np.random.default_rng(0)
    due = {"probe": compile_schedule(probe_every), "snapshot": compile_schedule(35)}
    kept: dict[str, list[int]] = {"probe": [], "snapshot": []}
    clock.take("steps", 100)
    over = []
    for step in range(8000):
        for name in due:
            if due[name](step) and budget.allows(name, step, clock.wall_time, clock.seconds):
                kept[name].append(step)
                clock.take(f"{name}s", generator.uniform(0.5, 1.5))
        clock.take("training", generator.uniform(0.5, 1.5))
        clock.take("steps")
        over.append(clock.over)
    one_event = 4 * 3.0 if isinstance(probe_every, str) else 3.0
    assert max(over[200:]) < one_event
    # 0.05 − 0.01 of 8000 s, less the compiling, is used.
    spent = clock.seconds["probes"] + clock.seconds["snapshots"]
    assert 0.9 * 319 < spent < 319 + one_event
    demand = sum(map(due["probe"], range(8000)))
    assert 20 < len(kept["probe"]) < 0.6 * demand
    # One probe in ten steps, one snapshot in 35: the snapshots need less than half, and get nearly all of it.
    assert len(kept["snapshot"]) > (60 if probe_every == 1 else 0.5 * 8000 / 35)
    for entry in budget.thinned:
        assert entry["reason"] == "max_overhead"
        assert entry["kept"] == sum(step > entry["from_step"] for step in kept[entry["channel"]])
    if isinstance(probe_every, str):
        assert {step - step % 40 + i for step in kept["probe"] for i in range(4)} == set(kept["probe"])


def test_the_floor_is_said_once() -> None:
    """Where each step takes more than is allowed, or more bytes; compiling is no reason, nor is a budget that fits."""
    slow, clock = RecorderSettings(max_overhead=0.05), Clock(training=1.0, steps=0.1, probes=1.0)
    budget, fits = Budget(slow, {"step": 1, "probe": 1}), Budget(RecorderSettings(max_overhead=0.2), {"step": 1})
    clock.take("steps", 1000)
    said = []
    for step in range(1, 500):
        clock.take("training")
        clock.take("steps")
        said += budget.complaints(step, clock.wall_time, clock.seconds)
        assert not fits.complaints(step, clock.wall_time, clock.seconds)
        assert step % 50 or not budget.allows("probe", step, clock.wall_time, clock.seconds)
    assert len(said) == 1
    assert "max_overhead = 0.05 is less than what the inner products of each step take (0.1 of" in said[0]
    large = Budget(RecorderSettings(max_bytes=200_000), {"step": 100}, planned_steps=2000)
    said = [text for step in range(3) for text in large.complaints(step, 0.0, {})]
    assert len(said) == 1
    assert "max_bytes = 200,000 is less than the inner products of 2,000 steps may take (232,768 bytes" in said[0]


def train(folder: Path, steps: int = 300, planned: bool = True, stop: int = 0, **settings) -> tuple[nn.Module, int]:
    """A linear model on noise; the model, and the most bytes that the recording ever had after a step.

    Args:
        stop: a step after which the recorder is made anew from its state.
    """
    torch.manual_seed(0)
    model = nn.Linear(60, 50)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    draws, probes = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)

    def loss(generator: torch.Generator) -> torch.Tensor:
        return (model(torch.randn(8, 60, generator=generator)) - 1).square().mean()

    made = RecorderSettings.model_validate({"sketch_size": 8, "probe_every": 20, "snapshot_every": 5, **settings})

    def record(resume: dict | None) -> Recorder:
        attributes = {"planned_steps": steps} if planned else {}
        return Recorder(
            model, optimizer, folder, probe=lambda: loss(probes), settings=made, attributes=attributes, resume=resume
        )

    recorder, most = record(None), 0
    for step in range(steps):
        optimizer.zero_grad()
        value = loss(draws)
        value.backward()
        optimizer.step()
        recorder.log(loss=value)
        if step % 20 == 0:
            most = max(most, size(folder))
        if step + 1 == stop:
            state = recorder.state_dict()
            recorder.close("stopped")
            recorder = record(state)
    recorder.close()
    return model, max(most, size(folder))


def size(folder: Path) -> int:
    """Bytes of a recording, but for files that are being written."""
    files = [path for path in (folder / "run.zarr").rglob("*") if path.name == "zarr.json" or "c" in path.parts]
    return sum(path.stat().st_size for path in files if path.is_file() and "." not in path.name.removesuffix(".json"))


@pytest.mark.parametrize("planned", [True, False], ids=["planned", "endless"])
@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_the_bytes_are_kept(tolerance: float, planned: bool, tmp_path: Path) -> None:
    """A real run stays below, uses most of what it may, is the same twice, and has its certificate."""
    limit, settings = 500_000, {"snapshot_tolerance": tolerance, "max_bytes": "500 kB", "moments_window": 100}
    _, most = train(tmp_path / "run", planned=planned, **settings)
    assert most < limit
    run, attributes = open_run(tmp_path / "run"), read_attributes(tmp_path / "run")
    thinned = {entry["channel"]: entry for entry in attributes["thinned"]}
    assert (thinned["snapshot"]["reason"], "probe" in thinned) == ("max_bytes", False)
    assert run.sizes["snapshot"] + thinned["snapshot"]["skipped"] == 60
    assert run.sizes["probe"] == 15
    at = run["snapshot_step"].values
    if planned:
        assert most > 0.55 * limit
        # Over the whole training, if denser once it is known how small they get.
        assert at[-1] >= 270
        assert np.diff(at).max() <= 50
    _, checks = check_recording(tmp_path / "run")
    assert not [defect for check in checks for defect in check.defects]
    train(tmp_path / "again", planned=planned, flush_seconds=0.1, **settings)
    np.testing.assert_array_equal(open_run(tmp_path / "again")["snapshot_step"], at)


def test_a_resumed_recording_keeps_its_budget(tmp_path: Path) -> None:
    """It has the events of the one that was not interrupted, and counts them on."""
    limits = {"snapshot_tolerance": 0.1, "max_bytes": 400_000}
    train(tmp_path / "one", **limits)
    train(tmp_path / "two", stop=133, **limits)
    one, two = open_run(tmp_path / "one"), open_run(tmp_path / "two")
    for name in ("snapshot_step", "probe_step", "parameters", "noise_trace"):
        np.testing.assert_array_equal(one[name], two[name])
    assert one.attrs["thinned"] == two.attrs["thinned"]


@pytest.mark.parametrize("limit", [{"max_bytes": "1GB"}, {"max_overhead": 1e6}, {"max_bytes": 200_000}])
def test_without_a_probe(limit: dict, tmp_path: Path) -> None:
    """A budget asks nothing of channels that are not there, or have ended."""
    model = nn.Linear(30, 20)
    for name, optimizer, probe, said in (
        ("none", torch.optim.SGD(model.parameters(), lr=0.1), None, "curvature_every is set, but there is no probe"),
        ("adam", torch.optim.Adam(model.parameters(), lr=0.1), lambda: model(torch.randn(2, 30)).mean(), None),
        ("ended", torch.optim.SGD(model.parameters(), lr=0.1), lambda: model(torch.randn(2, 30)).mean(), "curvature"),
    ):
        settings = RecorderSettings.model_validate(
            {"curvature_every": 2, "snapshot_every": 1, "probe_every": 5, "sketch_size": 8, **limit}
        )
        warned = pytest.warns(RuntimeWarning, match=said) if said else contextlib.nullcontext()
        with warned, Recorder(model, optimizer, tmp_path / name, probe=probe, settings=settings) as recorder:
            for _ in range(50):
                optimizer.zero_grad()
                model(torch.randn(4, 30)).mean().backward()
                optimizer.step()
        assert not recorder.lost
        thinned = {entry["channel"] for entry in read_attributes(tmp_path / name)["thinned"]}
        assert ("snapshot" in thinned) == (limit == {"max_bytes": 200_000})
        assert open_run(tmp_path / name).sizes["step"] == 50


def test_a_channel_too_large_takes_no_room() -> None:
    """Where no snapshot of a window fits, the small ones get what they need all the same."""
    settings = RecorderSettings(probe_every=10, snapshot_every=100, moments_window=100, max_bytes=20_000_000)
    sizes = {"step": 2000, "probe": 300, "snapshot": 5_300_000, "window": 10_600_000}
    budget = Budget(settings, sizes, planned_steps=1000, fixed=5_300_000)
    due = {"probe": compile_schedule(10), "snapshot": compile_schedule(100), "window": compile_schedule(100)}
    kept = dict.fromkeys(due, 0)
    for step in range(1000):
        for name, is_due in due.items():
            kept[name] += is_due(step) and budget.allows(name, step, 0.0, {})
    assert (kept["probe"], kept["window"]) == (100, 0)


@pytest.mark.parametrize("steps", [2_000, 200_000])
def test_a_training_of_unknown_length_is_covered(steps: int) -> None:
    """Events go on to its end, ever farther apart, and small channels lose none."""
    settings = RecorderSettings(probe_every=20, snapshot_every=5, max_bytes=500_000_000)
    budget = Budget(settings, {"step": 200, "probe": 300, "snapshot": 1_000_000})
    kept: dict[str, list[int]] = {"probe": [], "snapshot": []}
    for step in range(steps):
        for name, every in (("probe", 20), ("snapshot", 5)):
            if step % every == 0 and budget.allows(name, step, 0.0, {}):
                kept[name].append(step)
    at = np.array(kept["snapshot"])
    assert len(kept["probe"]) == steps / 20
    assert len(at) > 100
    # Each gap is a small part of the time before it.
    assert np.all(np.diff(at)[10:] <= 0.1 * at[11:])
    assert at[-1] > 0.9 * steps


@pytest.mark.filterwarnings("ignore:recorder.max_")
def test_without_a_budget_nothing_changes(tmp_path: Path) -> None:
    """Nor with one that is wide enough, but for the attribute that says so; in a tight one the weights do not."""
    plain, _ = train(tmp_path / "none")
    train(tmp_path / "wide", max_bytes="1GB", max_overhead=1e6)
    none, wide = open_run(tmp_path / "none"), open_run(tmp_path / "wide")
    assert ("thinned" in none.attrs, wide.attrs["thinned"]) == (False, [])
    for name in none.data_vars:
        if name != "wall_time":
            np.testing.assert_array_equal(none[name], wide[name])
    model, _ = train(tmp_path / "tight", max_bytes=300_000, max_overhead=0.1)
    assert open_run(tmp_path / "tight").attrs["thinned"]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))


def test_a_recording_of_its_own_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says what was left out, and foretells it; a size is a number or has a unit."""
    table = {"model": "cnn", "steps": 60, "batch_size": 8, "device": "cpu", "evaluate_every": 0, "checkpoint_every": 0}
    table["recorder"] = {"sketch_size": 8, "snapshot_every": 2, "probe_every": 6, "max_bytes": "6MB"}
    settings = make_settings(table)
    record_run(settings, tmp_path / "run")
    said = capsys.readouterr().out
    kept = open_run(tmp_path / "run").sizes["snapshot"]
    assert f"left out were {30 - kept} snapshots from step" in said
    plan = make_plan(settings)
    assert 0 < plan.left["snapshot"] <= kept
    assert plan.left["probe"] == 10
    text = describe_plan(settings, tmp_path, plan)
    assert "max_bytes = 6,000,000 would leave 10 of 10 probes, " in text
    assert "would leave" not in describe_plan(settings, tmp_path, replace(plan, left={}))
    for value, number in (
        (2e9, 2 * 10**9),
        ("2e9", 2 * 10**9),
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("700k", 700_000),
    ):
        assert make_settings({"recorder": {"max_bytes": value}}).recorder.max_bytes == number
    with pytest.raises(
        SettingsError, match="max_bytes = 'much': expected a number of bytes, or one with a unit such as 500MB"
    ):
        make_settings({"recorder": {"max_bytes": "much"}})
