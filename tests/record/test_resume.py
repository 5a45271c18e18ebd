"""A run that was interrupted and resumed is bit for bit the run that was not, or one sentence says why it is not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from thermodl import cli  # noqa: E402
from thermodl.record import store  # noqa: E402
from thermodl.record.checkpoint import read_checkpoint  # noqa: E402
from thermodl.record.errors import RunError  # noqa: E402
from thermodl.record.format import CHECKPOINT  # noqa: E402
from thermodl.record.settings import RunSettings, make_settings  # noqa: E402
from thermodl.record.store import open_run, read_attributes  # noqa: E402
from thermodl.record.train import train  # noqa: E402

MODEL = """
from torch import nn

def net(shape, classes):
    size = 4 * (shape[1] - 2) * (shape[2] - 2)
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(size, classes)
    )
"""
KILLED = """
import json, os, signal, sys
from pathlib import Path
from thermodl.record.settings import make_settings
from thermodl.record.train import train

def progress(done, loss):
    if done == 47:
        os.kill(os.getpid(), signal.SIGKILL)

train(make_settings(json.loads(sys.argv[1])), Path(sys.argv[2]), progress=progress)
"""
# 64 images in batches of 12: an epoch ends in the middle. Flushes come by the clock, at other steps each time.
TABLE = {
    "model": "net_of_a_test:net",
    "steps": 90,
    "batch_size": 12,
    "checkpoint_every": 20,
    "evaluate_every": 30,
    "device": "cpu",
    "recorder": {
        "probe_every": 3,
        "sketch_size": 8,
        "snapshot_every": 4,
        "snapshot_tolerance": 0.1,
        "curvature_every": 6,
        "flush_seconds": 0.02,
    },
}
CASES = {
    "shuffle, momentum": {},
    "replacement, Adam": {"sampling": "replacement", "optimizer": "Adam", "schedule": "cosine", "clip_norm": 1.0},
    "replacement, momentum": {
        "sampling": "replacement",
        "model": "cnn",
        "augmentation": "flip",
        "recorder": {**TABLE["recorder"], "per_sample_every": 4},
    },
    "shuffle, Adam": {"optimizer": "Adam", "augmentation": "crop-flip", "accumulate": 2},
    "no momentum": {"momentum": 0.0, "recorder": {**TABLE["recorder"], "moments_window": 7}},
    # Resumed from 40 and 63: within a gap or a burst, after its last step, before its first.
    "bursts, momentum": {"recorder": {**TABLE["recorder"], "products_every": "burst:7/15"}},
    "bursts, Adam": {"optimizer": "Adam", "recorder": {**TABLE["recorder"], "products_every": "burst:9/31"}},
    "bursts, no momentum": {"momentum": 0.0, "recorder": {**TABLE["recorder"], "products_every": "burst:9/40"}},
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """64 images of noise; the model is found where the command was started."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (64, 8, 8), dtype=np.uint8), np.arange(64) % 3
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    (tmp_path / "net_of_a_test.py").write_text(MODEL, "utf-8")
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "a.npz")


def kill(settings: RunSettings, folder: Path) -> None:
    """Train in a process that is killed after step 47."""
    command = [sys.executable, "-c", KILLED, settings.model_dump_json(), str(folder)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def record(folder: Path, settings: RunSettings, *arguments: str) -> int:
    """`thermodl record` within this process; its exit code."""
    flat = settings.model_dump()
    recorder = flat.pop("recorder")
    pairs = [*flat.items(), *((f"recorder.{name}", value) for name, value in recorder.items())]
    sets = [word for name, value in pairs if value is not None for word in ("--set", f"{name}={json.dumps(value)}")]
    with pytest.raises(SystemExit) as stop:
        cli.main(["record", "--runs-dir", str(folder.parent), "--name", folder.name, *sets, *arguments])
    return int(str(stop.value.code))


def assert_same(one: Path, other: Path) -> None:
    """Every array but the wall time, every attribute that tells of the physics, and the model."""
    a, b = open_run(one).load(), open_run(other).load()
    assert set(a.variables) == set(b.variables)
    for name in set(a.variables) - {"wall_time"}:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))
    assert (np.diff(b["wall_time"]) > 0).all()
    told = {"started", "last_commit", "recorder_seconds", "resumed_steps", "provenance"}
    assert {k: v for k, v in a.attrs.items() if k not in told} == {k: v for k, v in b.attrs.items() if k not in told}
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_twice(
    case: str, tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL after step 47, resumed from 40, Ctrl-C at 63, resumed from there: arrays, weights and certificate."""
    settings = make_settings({**TABLE, "data": data, **CASES[case]})
    train(settings, tmp_path / "whole")
    folder = tmp_path / "resumed"
    kill(settings, folder)
    assert read_attributes(folder)["state"] == "running"
    monkeypatch.setattr(store, "SILENT_AFTER_SECONDS", 0.0)

    def progress(done: int, _: object) -> None:
        if done == 63:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(settings, folder, resume=read_checkpoint(folder, settings), progress=progress)
    assert signal.getsignal(signal.SIGINT) is before
    attributes = read_attributes(folder)
    assert (attributes["state"], attributes["committed"]["step"], attributes["resumed_steps"]) == ("stopped", 63, [40])
    assert record(folder, settings, "--resume") == 0
    assert "goes on from step 63" in capsys.readouterr().out
    assert read_attributes(folder)["resumed_steps"] == [40, 63]
    assert_same(tmp_path / "whole", folder)
    assert not list(folder.glob("checkpoint*"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(folder)])
    assert stop.value.code in (0, None)
    assert record(folder, settings, "--resume") == 0
    assert "finished, there is nothing to resume" in capsys.readouterr().out


def test_what_cannot_be_resumed(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run, other settings, one that is running, no checkpoint, a damaged one: each a sentence, nothing changed."""
    settings = make_settings({**TABLE, "data": data, "model": "cnn", "steps": 30})
    folder = tmp_path / "run"

    def refused(settings: RunSettings, message: str, *arguments: str) -> None:
        assert record(folder, settings, "--resume", *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

    refused(settings, "there is no run at")

    def fail(done: int, _: object) -> None:
        if done == 25:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        train(settings, folder, progress=fail)
    assert (folder / CHECKPOINT).is_file()
    refused(settings, "--resume goes on with a recording; it does not go with --overwrite", "--overwrite")
    refused(
        settings.model_copy(update={"seed": 1}),
        "those it was begun with: seed is 0 there, and 1 here",
    )
    assert record(folder, settings) == 2
    assert "is failed; go on with it with --resume" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("thermodl.record.checkpoint.run_state", lambda _: "running")
        refused(settings, "is being recorded, and cannot be resumed")
    whole = (folder / CHECKPOINT).read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        (folder / CHECKPOINT).write_bytes(content)
        refused(settings, "checkpoint.pt is no checkpoint, or damaged")
    (folder / CHECKPOINT).unlink()
    refused(settings, "has no checkpoint to resume from (recorded: 25 steps, and checkpoint_every is 20)")
    assert read_attributes(folder)["state"] == "failed"
    (folder / CHECKPOINT).write_bytes(whole)
    assert record(folder, settings, "--resume") == 0


def test_a_recording_that_is_shorter_than_its_checkpoint(tmp_path: Path, data: str) -> None:
    """Files of two runs in one folder are not put together."""
    settings = make_settings({**TABLE, "data": data, "model": "cnn", "steps": 30})
    folder = tmp_path / "run"

    def fail_at(step: int, resume: dict | None = None, *, overwrite: bool = False) -> None:
        def progress(done: int, _: object) -> None:
            if done == step:
                raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            train(settings, folder, resume=resume, overwrite=overwrite, progress=progress)

    fail_at(25)
    checkpoint = read_checkpoint(folder, settings)
    fail_at(10, overwrite=True)
    assert not (folder / CHECKPOINT).exists()
    with pytest.raises(RunError, match="holds 10 steps, fewer than the 20 to go on from"):
        train(settings, folder, resume=checkpoint)


def test_a_checkpoint_that_cannot_be_written(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training goes on, a warning says so, and nothing is left beside it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(RuntimeWarning, match=r"no checkpoint of step 20 .*No space left.*the training goes on"):
        train(make_settings({**TABLE, "data": data, "model": "cnn", "steps": 30}), tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoint*"))
    assert open_run(tmp_path / "run").sizes["step"] == 30
