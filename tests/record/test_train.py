"""The built-in training: it measures the noise of its batches, and what goes wrong is said and leaves nothing."""

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from thermodl import cli  # noqa: E402
from thermodl.record import Recorder, open_run  # noqa: E402
from thermodl.record.datasets import load_dataset  # noqa: E402
from thermodl.record.errors import RunError  # noqa: E402
from thermodl.record.settings import make_settings  # noqa: E402
from thermodl.record.store import read_attributes  # noqa: E402
from thermodl.record.train import save_model, train  # noqa: E402
from thermodl.record.writer import RunWriter  # noqa: E402


def write_images(path: Path, size: int = 4) -> str:
    """A data set of 64 square images of noise in three classes."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (64, size, size), dtype=np.uint8), np.arange(64) % 3
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return str(path)


@pytest.mark.parametrize(("sampling", "factor"), [("shuffle", 1 - 32 / 64), ("replacement", 1 - 1 / 64)])
def test_the_probe_measures_the_noise_of_the_batches_in_use(sampling: str, factor: float, tmp_path: Path) -> None:
    """At fixed parameters the mean of ½‖g−g′‖² is (S²/B)(1−B/N) of shuffled batches of 32 of 64, S²(1−1/N)/B of
    independent draws, S² being the trace of the covariance of the examples' gradients with N−1 below."""
    settings = {"data": write_images(tmp_path / "a.npz"), "steps": 400, "batch_size": 32, "sampling": sampling}
    settings |= {"learning_rate": 1e-12, "evaluate_every": 0, "device": "cpu", "recorder": {"probe_every": 1}}
    model = train(make_settings(settings), tmp_path / "run")
    data = load_dataset(settings["data"])
    gradients = []
    for image, label in zip(data.normalize(data.train_images), data.train_labels, strict=True):
        loss = F.cross_entropy(model(image[None]), label[None])
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    exact = float(torch.stack(gradients).double().var(0, correction=1).sum()) / 32 * factor
    measured = open_run(tmp_path / "run")["noise_trace"].sum("layer").values
    assert len(measured) == 400
    # The mean over 400 has a standard error of 5 % at most.
    assert measured.std() / np.sqrt(len(measured)) < 0.05 * exact
    assert measured.mean() == pytest.approx(exact, rel=0.15)


def record(*arguments: str) -> int:
    """`thermodl record` within this process; its exit code."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["record", "--batch-size", "8", "--set", "recorder.sketch_size=8", *arguments])
    return int(str(stopped.value.code))


@pytest.mark.parametrize("model", ["cnn", "mlp", "alexnet", "wide:net"])
def test_a_model_that_does_not_fit_leaves_no_run(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence before anything is written; the recording that was to be replaced is still there."""
    wide = "from torch import nn\ndef net(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(99, 3))\n"
    (tmp_path / "wide.py").write_text(wide, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    data = write_images(tmp_path / "a.npz", size=3)
    run = ("--runs-dir", str(tmp_path / "runs"), "--name", "one", "--data", data, "--steps", "2")
    if model == "mlp":
        assert record(*run, "--model", model) == 0
        assert record(*run, "--model", "cnn", "--overwrite") == 2
        assert open_run(tmp_path / "runs" / "one").attrs["settings"]["model"] == "mlp"
        return
    assert record(*run, "--model", model) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert f"--model {model}" in error
    assert not (tmp_path / "runs").exists()


def test_overwrite_deletes_no_running_recording_and_nothing_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A live run is left whole; a model that thermodl did not write stays; what it wrote is replaced."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"mine")
    model = torch.nn.Linear(3, 2)
    live = Recorder(model, torch.optim.SGD(model.parameters(), lr=0.1), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    run = ("--runs-dir", str(tmp_path / "runs"), "--name", "one", "--data", write_images(tmp_path / "a.npz"))
    assert record(*run, "--overwrite", "--steps", "2") == 2
    assert "is being recorded, and was not replaced; choose another name, or stop" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    live.close()
    with pytest.raises(RunError, match=r"--overwrite \(in Python overwrite=True\)"):
        Recorder(model, torch.optim.SGD(model.parameters(), lr=0.1), folder)
    Recorder(model, torch.optim.SGD(model.parameters(), lr=0.1), folder, overwrite=True).close()
    assert (folder / "model.safetensors").read_bytes() == b"mine"
    assert record(*run, "--overwrite", "--steps", "2") == 0
    assert (folder / "model.safetensors").read_bytes() != b"mine"
    Recorder(model, torch.optim.SGD(model.parameters(), lr=0.1), folder, overwrite=True).close()
    assert not (folder / "model.safetensors").exists()


def test_a_lost_recording_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 and how many steps are safe; the training went on, and its model is there."""
    append = RunWriter.append

    def fill_up(writer: RunWriter, dim: str, block: dict) -> None:
        if writer.committed["step"]:
            raise OSError(28, "No space left on device")
        append(writer, dim, block)

    monkeypatch.setattr(RunWriter, "append", fill_up)
    run = ("--runs-dir", str(tmp_path), "--name", "one", "--data", write_images(tmp_path / "a.npz"))
    # Only a full buffer is written, however slow the machine.
    cadence = ("recorder.probe_every=0", "recorder.snapshot_every=0", "recorder.flush_seconds=1000")
    with pytest.warns(RuntimeWarning, match="the training goes on"):
        code = record(*run, "--steps", "300", *(f"--set={setting}" for setting in cadence))
    said = capsys.readouterr()
    assert code == 1
    assert "No space left on device). Steps safe on disk: 64 of " in said.err
    assert "recorded 300 steps" not in said.out
    assert read_attributes(tmp_path / "one")["state"] == "failed"
    assert open_run(tmp_path / "one").sizes["step"] == 64
    assert (tmp_path / "one" / "model.safetensors").is_file()


def test_the_progress_is_that_of_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line shows the loss of the step; the function is given it as a tensor, which nobody has waited for."""
    data = write_images(tmp_path / "a.npz")
    assert record("--runs-dir", str(tmp_path), "--name", "one", "--data", data, "--steps", "20") == 0
    loss = open_run(tmp_path / "one")["loss"].values
    for line, step in zip(capsys.readouterr().out.splitlines()[1:], range(2, 21, 2), strict=False):
        assert line == f"one: step {step} of 20, mini-batch loss {loss[step - 1]:.3f}"
    seen = []
    settings = make_settings({"data": data, "steps": 3, "batch_size": 8, "recorder": {"sketch_size": 8}})
    train(settings, tmp_path / "two", progress=lambda *pair: seen.append(pair))
    assert [done for done, _ in seen] == [1, 2, 3]
    assert all(isinstance(loss, torch.Tensor) and not loss.requires_grad for _, loss in seen)


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_the_model_has_the_usual_mode(tmp_path: Path) -> None:
    """That of any other file that is made here, also where it replaces one."""
    (tmp_path / "usual").touch()
    for _ in range(2):
        save_model(torch.nn.Linear(3, 2), tmp_path)
        assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode
    with pytest.raises(RunError, match="cannot be written"):
        save_model(torch.nn.Linear(3, 2), tmp_path / "none")
