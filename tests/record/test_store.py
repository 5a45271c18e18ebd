"""The run format: what is committed is there, whatever happens; what is broken is named."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from thermodl.record import store
from thermodl.record.errors import RunError
from thermodl.record.format import ARRAYS as FORMAT_ARRAYS
from thermodl.record.store import list_runs, open_run, read_attributes, run_state
from thermodl.record.writer import RunWriter

SIZES = {"layer": 2, "group": 1, "sketch": 3, "parameter": 4, "optimizer_group": 1}
ARRAYS = ["step", "loss", "gradient_squared", "parameter_sketch"]
DESCRIPTION = {
    "layers": [{"name": name, "shape": [2], "size": 2, "group": "block", "optimizer_group": 0} for name in ("a", "b")],
    "groups": ["block"],
}


def rows(start: int, stop: int) -> dict[str, np.ndarray]:
    """Entries whose every value says which step it belongs to."""
    step = np.arange(start, stop, dtype=float)
    return {
        "step": step,
        "loss": step,
        "gradient_squared": np.tile(step, (2, 1)),
        "parameter_sketch": np.tile(step, (1, 3, 1)),
    }


def write(folder: Path, steps: int = 10, state: str | None = "finished") -> RunWriter:
    """A small run; left as it is where `state` is None."""
    writer = RunWriter(folder, SIZES, ARRAYS, DESCRIPTION)
    writer.append("step", rows(0, steps))
    if state:
        writer.close(state)
    return writer


def test_blocks_of_any_length_come_back(tmp_path: Path) -> None:
    """Blocks that cut across chunks and growth, with an array that appears late and one that pauses."""
    writer = write(tmp_path / "run", 3, None)
    edges = [3, 4, 255, 256, 257, 700, 1500, 3001]
    for start, stop in pairwise(edges):
        block = rows(start, stop)
        if start == 257:
            block["mine"] = block["loss"]
        if start == 700:
            del block["loss"]
        writer.append("step", block)
    writer.append("probe", {"probe_step": np.array([7.0]), "noise_trace": np.ones((2, 1))})
    unfinished, finished = open_run(tmp_path / "run").compute(), None
    writer.close("finished")
    finished = open_run(tmp_path / "run").compute()
    for run in (unfinished, finished):
        step = np.arange(3001.0)
        np.testing.assert_array_equal(run["step"], step)
        np.testing.assert_array_equal(run["gradient_squared"], np.tile(step, (2, 1)))
        np.testing.assert_array_equal(run["parameter_sketch"], np.tile(step, (1, 3, 1)))
        np.testing.assert_array_equal(run["loss"], np.where((step >= 700) & (step < 1500), np.nan, step))
        np.testing.assert_array_equal(run["mine"], np.where((step >= 257) & (step < 700), step, np.nan))
        assert run["probe_step"].values.tolist() == [7]


def test_plain_xarray_reads_it(tmp_path: Path) -> None:
    """Without our code: named dimensions, units, the right lengths."""
    write(tmp_path / "run")
    with xr.open_zarr(tmp_path / "run" / "run.zarr", consolidated=False) as run:
        assert run["gradient_squared"].dims == ("layer", "step")
        assert run["gradient_squared"].attrs["units"] == "loss2 parameter-2"
        np.testing.assert_array_equal(run["loss"].values, np.arange(10.0))
        assert run.attrs["committed"]["step"] == 10


WRITER = """
import sys; sys.path.insert(0, sys.argv[2])
from test_store_rows import rows, SIZES, ARRAYS, DESCRIPTION
from thermodl.record.writer import RunWriter
writer = RunWriter(sys.argv[1], SIZES, ARRAYS, DESCRIPTION)
start = 0
while True:
    stop = start + 7 + start % 90
    writer.append("step", rows(start, stop))
    print(stop, flush=True)
    start = stop
"""


def test_killing_the_writer_loses_nothing_committed(tmp_path: Path, rng: np.random.Generator) -> None:
    """`kill -9` at random instants: the store opens, and every committed step is right."""
    (tmp_path / "test_store_rows.py").write_text(Path(__file__).read_text("utf-8").partition("def write(")[0], "utf-8")
    for attempt in range(6):
        folder = tmp_path / f"run{attempt}"
        command = [sys.executable, "-c", WRITER, str(folder), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.6))
            os.kill(process.pid, signal.SIGKILL)
            said = [int(line) for line in process.stdout.read().split()]
        run = open_run(folder).compute()
        steps = run.sizes["step"]
        assert steps >= (said[-1] if said else 7)
        np.testing.assert_array_equal(run["step"], np.arange(steps))
        np.testing.assert_array_equal(run["parameter_sketch"], np.tile(np.arange(steps), (1, 3, 1)))


def test_events_beyond_the_committed_steps_are_not_shown(tmp_path: Path) -> None:
    """A writer that was killed between them: an evaluation and a window may end where the steps do, nothing later."""
    writer = write(tmp_path / "run", 10, None)
    writer.append("probe", {"probe_step": np.array([0.0, 9.0, 10.0]), "noise_trace": np.ones((2, 3))})
    writer.write_fixed("initial_parameters", np.ones(4))
    writer.append("snapshot", {"snapshot_step": np.array([0.0, 10.0, 20.0]), "parameters": np.ones((4, 3))})
    writer.append("window", {"window_start": np.array([0.0, 5.0, 10.0]), "window_stop": np.array([5.0, 10.0, 15.0])})
    writer.append("evaluation", {"evaluation_step": np.array([0.0, 10.0, 11.0])})
    run = open_run(tmp_path / "run").compute()
    assert run["probe_step"].values.tolist() == [0, 9]
    assert run["noise_trace"].shape == (2, 2)
    assert run["snapshot_step"].values.tolist() == [0]
    assert run["window_stop"].values.tolist() == [5, 10]
    assert run["evaluation_step"].values.tolist() == [0, 10]


def spoil(folder: Path, **changes: object) -> None:
    """Change root attributes behind the writer's back."""
    path = folder / "run.zarr" / "zarr.json"
    metadata = json.loads(path.read_bytes())
    metadata["attributes"].update(changes)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "run.zarr" / "zarr.json").write_text('{"attributes": {"fo'), "metadata .* cannot be read"),
        (lambda f: (f / "run.zarr" / "zarr.json").unlink(), r"holds no recording \(run.zarr has no zarr.json\)"),
        (lambda f: (f / "run.zarr" / "zarr.json").write_text("[]"), "cannot be read"),
        (lambda f: spoil(f, format="other"), "is not a ThermoDL run"),
        (lambda f: spoil(f, format_version=99), "format version 99, this thermodl reads up to 1; upgrade"),
        (lambda f: spoil(f, committed={"step": "x"}), "no valid commit record"),
        (lambda f: (f / "run.zarr" / "step" / "zarr.json").unlink(), "no array 'step'"),
    ],
)
def test_a_broken_run_is_named(tmp_path: Path, damage, message: str) -> None:
    """One sentence with the folder, never a traceback of a library."""
    write(tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(RunError, match=message):
        open_run(tmp_path / "run")


def test_missing_folders_are_named(tmp_path: Path) -> None:
    """No folder, and an empty one."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="no such folder"):
        open_run(tmp_path / "nothing")
    with pytest.raises(RunError, match="holds no recording"):
        open_run(tmp_path / "empty")
    with pytest.raises(RunError, match="there is no folder"):
        list_runs(tmp_path / "nothing")


def test_state_is_what_the_reader_sees(tmp_path: Path) -> None:
    """Running while there are signs of life, silent afterwards; never a guess that it crashed."""
    write(tmp_path / "run", state=None)
    attributes = read_attributes(tmp_path / "run")
    assert run_state(attributes) == "running"
    assert run_state(attributes, time.time() + store.SILENT_AFTER_SECONDS + 1) == "silent"


def test_list_runs_takes_only_runs(tmp_path: Path) -> None:
    """Links, hidden folders and other files are left out."""
    write(tmp_path / "b")
    write(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden" / "run.zarr").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert [path.name for path in list_runs(tmp_path)] == ["a", "b"]


def test_the_specification_lists_every_array() -> None:
    """docs/format.md holds the table of the format: every name, its dimensions and its unit."""
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
    for array in FORMAT_ARRAYS:
        line = f"| `{array.name}` | {', '.join(array.dims)} | {array.dtype} | {array.units} |"
        assert line in text, f"docs/format.md lacks: {line}"


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("layers", 7, "a list of tables with name, group, size and optimizer_group; it is '7'"),
        ("layers", [1, 2], "a list of tables"),
        ("layers", [{**DESCRIPTION["layers"][0], "size": "2"}], "a list of tables"),
        ("layers", DESCRIPTION["layers"][:1], "do not fit each other"),
        ("layers", [{**DESCRIPTION["layers"][0], "group": "b"}] * 2, "groups that cannot be told apart"),
        ("groups", 3, "a list of names; it is '3'"),
        ("groups", ["block", "block"], "groups that cannot be told apart"),
        ("groups", ["block", "all"], "'all' is that of all layers together"),
        ("groups", ["block", "other"], "do not fit each other"),
        ("optimizer", "SGD", "a table; it is 'SGD'"),
        ("recorder", [], "a table"),
        ("not_recorded", 1, "a table"),
    ],
    ids=str,
)
def test_a_description_that_readers_cannot_rely_on_is_refused(
    tmp_path: Path, attribute: str, value: object, words: str
) -> None:
    """Somebody else's program may have written it."""
    write(tmp_path / "run")
    metadata = tmp_path / "run" / "run.zarr" / "zarr.json"
    content = json.loads(metadata.read_bytes())
    content["attributes"][attribute] = value
    metadata.write_text(json.dumps(content))
    with pytest.raises(RunError) as refused:
        open_run(tmp_path / "run")
    assert words in str(refused.value)


def test_a_run_that_describes_nothing_of_its_layers_is_refused_and_its_attributes_can_be_read(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", SIZES, ARRAYS, {}).append("step", rows(0, 3))
    assert "layers" not in read_attributes(tmp_path / "run")
    with pytest.raises(RunError, match="do not fit each other"):
        open_run(tmp_path / "run")
