"""The built-in training: it measures the noise of the batches that it draws."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from thermodl.record import open_run  # noqa: E402
from thermodl.record.datasets import load_dataset  # noqa: E402
from thermodl.record.settings import make_settings  # noqa: E402
from thermodl.record.train import train  # noqa: E402


def write_images(path: Path, count: int = 64) -> str:
    """A data set of 4×4 images of noise in three classes."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8), np.arange(count) % 3
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
