"""Ids are the only way to a run, and a broken run gives its reason."""

import pytest

from thermodl.analyze.pipeline import find_changes
from thermodl.data import unpack_sample
from thermodl.record.store import RunError
from thermodl.viewer import catalog, figures


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


def test_what_recording_took_is_no_setting():
    """Two equal runs differ in it; it stands beside versions and command."""
    attributes = {"settings": {"seed": 1}, "provenance": {"torch": "2.6"}, "recorder_seconds": {"steps": 2.5}}
    assert catalog.settings_of(attributes) == {"seed": 1}
    assert catalog.provenance_of(attributes) == {"torch": "2.6", "recorder_seconds.steps": 2.5}


def test_the_sample_was_made_by_these_analyses(tmp_path):
    """Whoever looks at it first finds nothing missing and nothing marked as stale."""
    unpack_sample(tmp_path)
    (run,) = catalog.scan(tmp_path).values()
    assert set(run.analyzed) == set(figures.ANALYSES)
    assert not [name for name, stored in run.analyzed.items() if find_changes(run.attributes, stored)]
