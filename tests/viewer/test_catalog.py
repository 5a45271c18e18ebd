"""Ids are the only way to a run, and a broken run gives its reason."""

import json
import shutil
import time
from pathlib import Path

import pytest
from viewer.synthetic import write_all_results, write_run

from thermodl.analyze.versions import find_changes
from thermodl.data import unpack_sample
from thermodl.record.errors import RunError
from thermodl.record.store import SILENT_AFTER_SECONDS
from thermodl.viewer import catalog, figures, tables


@pytest.fixture(scope="module")
def runs(world):
    return catalog.scan(world)


@pytest.mark.parametrize(
    "hostile",
    [
        "../good",
        "/etc/passwd",
        "good/",
        "./good",
        "good\n",
        "good\0",
        "%2e%2e",
        "..",
        "",
        "GOOD",
        None,
        3,
        ["good"],
        {},
    ],
)
def test_hostile_ids_lead_nowhere(runs, hostile):
    assert catalog.find(runs, hostile) is None


def test_a_link_out_of_the_folder_is_not_a_run(world, tmp_path):
    (tmp_path / "link").symlink_to(world / "good")
    assert catalog.scan(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "state"),
    [("good", "finished"), ("running", "running"), ("silent", "silent"), ("no-results", "finished")],
)
def test_states(runs, name, state):
    assert runs[name].state == state


@pytest.mark.parametrize(
    ("name", "word"), [("empty", "run.zarr"), ("truncated-metadata", "metadata"), ("newer-format", "version 99")]
)
def test_a_broken_run_says_why_without_paths_of_this_computer(runs, world, name, word):
    assert runs[name].broken
    assert word in runs[name].problem
    assert str(world) not in runs[name].problem


def test_a_missing_folder_is_an_error_of_one_sentence(tmp_path):
    with pytest.raises(RunError, match="no folder"):
        catalog.scan(tmp_path / "nowhere")


def test_settings_of_a_foreign_loop_are_its_plain_attributes():
    attributes = {"format": "thermodl-run", "layers": [], "batch_size": 8, "optimizer": {"class": "SGD"}}
    assert catalog.settings_of(attributes) == {"batch_size": 8, "optimizer.class": "SGD"}


def test_what_only_sgd_gets_is_no_setting_of_others():
    table = {"learning_rate": 0.001, "momentum": 0.9, "dampening": 0.0, "nesterov": False}
    of_sgd, of_adam = (catalog.settings_of({"settings": {"optimizer": name, **table}}) for name in ("SGD", "Adam"))
    assert of_sgd == {"optimizer": "SGD", **table}
    assert of_adam == {"optimizer": "Adam", "learning_rate": 0.001}


def test_what_recording_took_is_no_setting():
    """Two equal runs differ in it; it stands beside versions and command."""
    attributes = {"settings": {"seed": 1}, "provenance": {"torch": "2.6"}, "recorder_seconds": {"steps": 2.5}}
    assert catalog.settings_of(attributes) == {"seed": 1}
    assert catalog.provenance_of(attributes) == {"torch": "2.6", "recorder_seconds.steps": 2.5}


def test_a_foreign_loop_shows_the_hyperparameters_of_its_optimizer():
    attributes = {"committed": {"step": 7}, "optimizer": {"class": "SGD", "learning_rate": 0.05, "momentum": 0.9}}
    (row,) = tables.runs([catalog.Run("mine", Path("mine"), attributes, "finished")], "en").to_dict("records")
    assert (row["learning rate"], row["momentum"]) == ("0.05", "0.9")


def test_the_sample_was_made_by_these_analyses(tmp_path):
    """Whoever looks at it first finds nothing missing and nothing marked as stale."""
    unpack_sample(tmp_path)
    (run,) = catalog.scan(tmp_path).values()
    assert set(run.analyzed) == set(figures.ANALYSES)
    assert not [name for name, stored in run.analyzed.items() if find_changes(run.attributes, stored)]


@pytest.mark.parametrize("attributes", ["text", ["list"], 3, None])
def test_results_whose_attributes_are_no_table_do_not_break_the_list_of_runs(tmp_path, attributes):
    folder = write_all_results(write_run(tmp_path / "good"))
    (folder / "results.zarr" / "default" / "noise" / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    run = catalog.scan(tmp_path)["good"]
    assert "noise" not in run.analyzed
    assert "temperature" in run.analyzed
    assert run.version


def test_results_of_another_name_make_a_new_version(tmp_path):
    """The axes on offer, which are kept for a version, take noise time from results of any name."""
    folder = write_all_results(write_run(tmp_path / "good"))
    before = catalog.read_run(folder).version
    write_all_results(folder, name="other")
    assert catalog.read_run(folder).version != before


def test_metadata_are_read_again_only_where_they_changed(tmp_path, monkeypatch):
    folders = [write_run(tmp_path / name, steps=50) for name in ("one", "two", "three")]
    for folder in folders:
        write_all_results(folder)
    catalog.scan(tmp_path)
    read = []
    before = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path), before(path))[1])
    assert set(catalog.scan(tmp_path)) == {"one", "two", "three"}
    assert read == []

    metadata = folders[0] / "run.zarr" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"finished"', '"failed"'))
    shutil.rmtree(folders[1] / "results.zarr" / "default" / "diffusion")
    results = folders[2] / "results.zarr" / "default" / "noise" / "zarr.json"
    results.write_text(results.read_text().replace('"Gradient noise"', '"Changed"'))
    read.clear()
    one, three, two = catalog.scan(tmp_path).values()
    assert one.state == "failed"
    assert "diffusion" not in two.analyzed
    assert three.analyzed["noise"]["title"] == "Changed"
    assert {path.relative_to(tmp_path).parts[0] for path in read} == {"one", "two", "three"}
    assert read.count(metadata) == 1

    metadata.write_text("{")
    assert catalog.scan(tmp_path)["one"].broken


def test_what_could_not_be_read_once_is_read_again(tmp_path, monkeypatch):
    write_all_results(write_run(tmp_path / "run", steps=50))
    before = Path.read_bytes
    with monkeypatch.context() as patch:
        refused = PermissionError(13, "in use by another program")
        patch.setattr(
            Path, "read_bytes", lambda path: before(path) if path.parent.name == "run.zarr" else throw(refused)
        )
        assert catalog.scan(tmp_path)["run"].analyzed == {}
    assert "diffusion" in catalog.scan(tmp_path)["run"].analyzed


def throw(error):
    raise error


def test_of_each_run_only_the_last_metadata_are_kept(tmp_path):
    """However often it commits; nothing of a run that is gone."""
    folders = [write_run(tmp_path / name, steps=50) for name in ("one", "two")]
    metadata = folders[0] / "run.zarr" / "zarr.json"
    for _ in range(5):
        metadata.write_text(metadata.read_text() + "\n")
        assert len(catalog.scan(tmp_path)) == 2
        assert sum(path == folders[0] for path, _ in catalog._kept) == 2
    shutil.rmtree(folders[1])
    catalog.scan(tmp_path)
    assert {path for path, _ in catalog._kept} == {folders[0]}


def test_a_run_falls_silent_though_no_file_changes(tmp_path, monkeypatch):
    write_run(tmp_path / "run", steps=50, state="running")
    assert catalog.scan(tmp_path)["run"].state == "running"
    later = time.time() + 10 * SILENT_AFTER_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    assert catalog.scan(tmp_path)["run"].state == "silent"
