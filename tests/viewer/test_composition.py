"""A composed recording: the real command and the real reader of settings take what is shown."""

import json
import math
import shlex
import tomllib

import pytest
from viewer.synthetic import write_run

from thermodl import cli
from thermodl.data import unpack_sample
from thermodl.record.forecast import Size
from thermodl.record.settings import RunSettings, assign, make_settings
from thermodl.viewer import catalog, composition

SETTINGS = [
    {},
    {"model": "mlp", "learning_rate": 1e-5, "sampling": "replacement", "nesterov": True, "clip_norm": 0.5},
    {"optimizer": "Adam", "recorder": {"probe_every": "log:10", "snapshot_every": [0, 10], "max_bytes": "2GB"}},
    {"optimizer": "Adam", "learning_rate": 0.05},
    {"model": "own.models:make", "data": "my data/it's; rm -rf $HOME `x` \"y\".zip", "data_root": "-x\x7f",
     "recorder": {"products_every": "burst:8/200", "max_overhead": 0.05}},
    {"model": "--help", "data": "\n\t\\ 照片 'a'"},
]  # fmt: skip


@pytest.mark.parametrize("table", SETTINGS)
def test_command_and_file_say_the_settings(table, monkeypatch):
    """The command as the real parser of `thermodl record` takes it, and the file as its reader does."""
    pytest.importorskip("torch")
    settings = make_settings(table)
    words = shlex.split(composition.command(settings, "mine", "my runs; ls"))
    taken = []
    monkeypatch.setattr("thermodl.record.plan.make_plan", lambda given: taken.append(given))
    monkeypatch.setattr("thermodl.record.plan.describe_plan", lambda given, folder, plan: str(folder))  # noqa: ARG005
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words[1:], "--dry-run"])
    assert stopped.value.code == 0
    assert taken == [settings]
    back = tomllib.loads(composition.toml(settings, "mine"))
    assert back.pop("name") == "mine"
    assert make_settings(back) == settings


@pytest.mark.slow
def test_a_composed_command_runs_dry(tmp_path, capsys, monkeypatch):
    """As it stands on the page, with the number of bytes that the page says."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    settings = make_settings({"steps": 60, "batch_size": 8, "device": "cpu"})
    words = shlex.split(composition.command(settings, "mine", "runs"))
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words[1:], "--dry-run"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    forecast = composition.foretell(settings, [])
    assert "105,866 parameters in 8 layers, 4 groups" in said
    assert f"{forecast.bytes_each['products']:,}" in said
    assert f"{forecast.bytes_each['snapshot']:,}" in said
    assert not list(tmp_path.iterdir())


def test_only_what_differs_is_said():
    assert composition.command(RunSettings(), "new", "runs") == "thermodl record --name new"
    assert composition.toml(RunSettings(), "new") == 'name = "new"\n'
    assert composition.changes(make_settings({"optimizer": "Adam"})) == {"optimizer": "Adam"}
    assert composition.changes(make_settings({"learning_rate": 0.001})) == {"learning_rate": 0.001}
    settings = make_settings({"seed": 3, "recorder": {"probe_every": "log:10"}})
    assert composition.changes(settings) == {"seed": 3, "recorder.probe_every": "log:10"}
    table = {}
    for word in shlex.split(composition.command(settings, "new", "runs"))[-1:]:
        assign(table, word)
    assert table == {"recorder": {"probe_every": "log:10"}}


@pytest.mark.parametrize(
    ("text", "entry"), [("50", 50), (" 0 ", 0), ("log:10", "log:10"), ("1, 2,3", [1, 2, 3]), ("[7]", [7]), ("²", "²"),
                        ("", ""), ("-1", "-1")]
)  # fmt: skip
def test_entries_as_they_are_typed(text, entry):
    assert composition.read_entry(text) == entry
    if isinstance(entry, list) and len(entry) > 1:
        assert composition.read_entry(composition.show_entry(entry)) == entry


def test_the_source_of_size_and_times_is_told(tmp_path):
    """The built-in model is known; another is taken from a run of the same model and data, or from the reader."""
    runs = [catalog.read_run(_timed(tmp_path / "old", "cnn")), catalog.read_run(_timed(tmp_path / "big", "resnet18"))]
    known = composition.foretell(make_settings({"steps": 10}), runs[1:])
    assert (known.size_from, known.times_from) == ("model", "")
    assert math.isnan(known.seconds)
    # 19 ms a step of which 1 ms is recording, and two steps with a probe.
    timed = composition.foretell(make_settings({"steps": 100}), runs[:1])
    assert timed.times_from == "old"
    assert timed.seconds == pytest.approx(100 * 0.019 + 2 * 0.05)
    assert timed.overhead == pytest.approx((100 * 0.001 + 2 * 0.05) / (100 * 0.018))
    assert timed.bytes == sum(timed.entries[name] * each for name, each in timed.bytes_each.items()) + 8 * 105_866
    other = make_settings({"model": "resnet18", "steps": 10, "batch_size": 7})
    found = composition.foretell(other, runs)
    assert (found.size_from, found.size, found.times_from) == ("big", Size(51_984, 8, 4), "")
    assert composition.foretell(other, runs[:1]) is None
    asked = composition.foretell(other, runs[:1], Size(1000, 2, 1))
    assert (asked.size_from, asked.bytes_each["snapshot"]) == ("asked", 4 * 1000 + 8 + 2 * 12)


def test_a_real_run_is_a_start(tmp_path):
    """With what its recorder was set to; its own forecast has its own entries."""
    unpack_sample(tmp_path)
    run = catalog.read_run(next(tmp_path.iterdir()))
    settings = composition.settings_of(run)
    assert settings.recorder.probe_every == run.attributes["recorder"]["probe_every"] == 10
    forecast = composition.foretell(settings, [run])
    recorded = {name: n for name, n in run.attributes["committed"].items() if name in forecast.entries}
    assert {name: forecast.entries[name] for name in recorded} == recorded


def _timed(folder, model):
    """A run of 3000 steps of 20 ms, 2 ms of which went into recording: half of that into 60 probes of 50 ms each."""
    write_run(folder)
    metadata = folder / "run.zarr" / "zarr.json"
    content = json.loads(metadata.read_bytes())
    attributes = content["attributes"]
    attributes["settings"]["model"] = model
    attributes["recorder_seconds"] = {"steps": 3.0, "probes": 60 * 0.05}
    metadata.write_text(json.dumps(content))
    return folder
