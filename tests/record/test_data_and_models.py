"""Data sets and models: the real loading code on files in the real format."""

import gzip
import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from thermodl.data import read_idx  # noqa: E402
from thermodl.record.datasets import Batches, load_dataset  # noqa: E402
from thermodl.record.models import make_model  # noqa: E402
from thermodl.record.settings import RunSettings, SettingsError, make_settings  # noqa: E402
from thermodl.record.train import train  # noqa: E402


def count(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def test_the_embedded_data() -> None:
    """8,000 images to train on, 2,000 to test, every class in both, normalized batches."""
    data = load_dataset("fashion-mnist-10k")
    assert tuple(data.train_images.shape) == (8000, 1, 28, 28)
    assert len(data.test_labels) == 2000
    assert data.classes == 10
    assert set(data.test_labels.tolist()) == set(range(10))
    batch = data.normalize(data.train_images)
    assert abs(float(batch.mean())) < 1e-4
    assert float(batch.std()) == pytest.approx(1, abs=1e-3)


def write_cifar10(root: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Five training batches and a test batch as pickled dicts, as the CIFAR-10 archive holds them."""
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    images = {name: rng.integers(0, 256, (20, 3072), dtype=np.uint8) for name in names}
    sums = {}
    for name, rows in images.items():
        content = pickle.dumps({"data": rows, "labels": rng.integers(0, 10, 20).tolist()})
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": [str(i) for i in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    # torchvision knows the sums of the original files; these are files of the test's own.
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()})
    return images["data_batch_1"]


def test_cifar10_from_files(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's files under --data-root, channels first, and ResNet with the CIFAR stem on them."""
    first = write_cifar10(tmp_path, rng, monkeypatch)
    data = load_dataset("cifar10", str(tmp_path))
    assert tuple(data.train_images.shape) == (100, 3, 32, 32)
    np.testing.assert_array_equal(data.train_images[0].numpy(), first[0].reshape(3, 32, 32))
    model = make_model("resnet18", data.shape, 10)
    assert tuple(model(data.normalize(data.train_images[:2])).shape) == (2, 10)
    assert model.conv1.kernel_size == (3, 3)
    assert isinstance(model.maxpool, torch.nn.Identity)


def test_cifar10_without_files_or_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names both ways out."""
    from urllib.error import URLError

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    with pytest.raises(SettingsError, match=r"not in .*connect to a network, or .*--data-root"):
        load_dataset("cifar10", str(tmp_path))


def test_npz_and_functions(tmp_path: Path, rng: np.random.Generator) -> None:
    """One's own arrays, in a file; mistakes name what is wrong."""
    images = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(12) % 3
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    data = load_dataset(str(tmp_path / "a.npz"))
    assert (data.shape, data.classes) == ((3, 8, 8), 3)
    np.savez(tmp_path / "b.npz", train_images=images / 255, train_labels=labels, test_images=images, test_labels=labels)
    with pytest.raises(SettingsError, match="uint8"):
        load_dataset(str(tmp_path / "b.npz"))
    for name, message in (
        (str(tmp_path / "none.npz"), "no such file"),
        ("imagnet", "expected fashion-mnist-10k"),
        ("no.such.module:f", "expected package.module:function"),
    ):
        with pytest.raises(SettingsError, match=message):
            load_dataset(name)


def test_data_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Cut-off and empty files, labels and images that make no sense, functions that return or raise anything."""
    arrays = {"train_images": rng.integers(0, 256, (6, 8, 8), dtype=np.uint8), "train_labels": np.arange(6)}
    arrays |= {"test_images": arrays["train_images"], "test_labels": arrays["train_labels"]}
    np.savez(tmp_path / "a.npz", **arrays)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "mine.py").write_text(
        "def rubbish():\n    return 3\ndef half():\n    return {'train_images': 1}\n"
        "def lists():\n    return dict.fromkeys(('train_images', 'train_labels', 'test_images', 'test_labels'), [1])\n"
        "def broken(*_):\n    return {}['x']\ndef none(*_):\n    return None\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    damaged = {"half": whole[: len(whole) // 2], "short": whole[:-30], "empty": b"", "text": b"hello"}
    for name, content in damaged.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(SettingsError, match=rf"{name}\.npz is no \.npz file, or damaged"):
            load_dataset(str(tmp_path / f"{name}.npz"))
    for change, message in (
        ({"train_labels": np.arange(6) - 1}, "labels must count from 0; the least is -1"),
        ({"test_labels": np.arange(6) / 2}, "labels must be whole numbers in one row; got float64"),
        ({"test_images": arrays["train_images"][:, :4]}, r"to train are \(8, 8\), those to test \(4, 8\)"),
        ({"train_images": arrays["train_images"][:0], "train_labels": np.arange(0)}, "there are 0 images"),
    ):
        np.savez(tmp_path / "b.npz", **(arrays | change))
        with pytest.raises(SettingsError, match=rf"b\.npz: .*{message}"):
            load_dataset(str(tmp_path / "b.npz"))
    for function, message in (
        ("rubbish", "expected the arrays train_images, .*; got 3"),
        ("half", "got dict of train_images$"),
        ("lists", "images must be uint8"),
        ("broken", r"raised KeyError: 'x' \(.*mine\.py, line 8\)"),
    ):
        with pytest.raises(SettingsError, match=message):
            load_dataset(f"mine:{function}")
    with pytest.raises(SettingsError, match="raised KeyError"):
        make_model("mine:broken", (1, 8, 8), 6)
    with pytest.raises(SettingsError, match=r"must return a torch\.nn\.Module; got None"):
        make_model("mine:none", (1, 8, 8), 6)


OWN = """
import numpy as np
import torch

def data():
    images = np.full((6, 8, 8, 2), 9, np.uint8)
    labels = np.arange(6) % 3
    return dict(train_images=images, train_labels=labels, test_images=images, test_labels=labels)

def linear(shape, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(shape)), classes))

def narrow(shape, classes):
    return linear(shape, classes - 1)
"""


def test_functions_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found where the command was started, as data and as model, with two channels and three classes."""
    (tmp_path / "own_functions_of_a_test.py").write_text(OWN, "utf-8")
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    assert load_dataset("own_functions_of_a_test:data").shape == (2, 8, 8)
    own = {"data": "own_functions_of_a_test:data", "steps": 2, "batch_size": 3, "device": "cpu"}
    train(make_settings({**own, "model": "own_functions_of_a_test:linear"}), tmp_path / "run")
    with pytest.raises(SettingsError, match=r"\(3 classes, images of 2 × 8 × 8\).*Target 2 is out of bounds"):
        train(make_settings({**own, "model": "own_functions_of_a_test:narrow"}), tmp_path / "none")


def test_idx_files_that_are_cut_off(tmp_path: Path) -> None:
    """A truncated or foreign file is refused."""
    header = b"\x00\x00\x08\x01" + (5).to_bytes(4, "big")
    (tmp_path / "short.gz").write_bytes(gzip.compress(header + b"abc"))
    with pytest.raises(ValueError, match="shorter"):
        read_idx(tmp_path / "short.gz")
    (tmp_path / "other.gz").write_bytes(gzip.compress(b"hello world"))
    with pytest.raises(ValueError, match="not an IDX file"):
        read_idx(tmp_path / "other.gz")


def test_sampling() -> None:
    """Shuffled epochs hold every example once; independent draws repeat some; the generator decides."""
    shuffled = Batches(100, 10, "shuffle", torch.Generator().manual_seed(0))
    epoch = torch.cat([next(shuffled) for _ in range(10)])
    assert sorted(epoch.tolist()) == list(range(100))
    assert sorted(torch.cat([next(shuffled) for _ in range(10)]).tolist()) == list(range(100))
    independent = Batches(100, 10, "replacement", torch.Generator().manual_seed(0))
    assert len(set(torch.cat([next(independent) for _ in range(10)]).tolist())) < 90
    with pytest.raises(SettingsError, match="larger than the data set"):
        Batches(5, 10, "shuffle", torch.Generator())


def test_models() -> None:
    """The sizes that the documentation states; unknown names are refused."""
    assert count(make_model("cnn", (1, 28, 28), 10)) == 105_866
    assert count(make_model("mlp", (1, 28, 28), 10)) == 1_333_770
    assert count(make_model("resnet50", (3, 32, 32), 10)) == 23_520_842
    with pytest.raises(SettingsError, match="torchvision model such as resnet18"):
        make_model("resnet5000", (3, 32, 32), 10)
    assert RunSettings().model == "cnn"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("resnet18", "layer1"),
        ("densenet121", "features.pool0"),
        ("shufflenet_v2_x0_5", "maxpool"),
        ("regnet_y_400mf", "stem"),
        ("mobilenet_v2", "features.0"),
        ("mobilenet_v3_small", "features.0"),
        ("efficientnet_b0", "features.0"),
        ("mnasnet0_5", "layers.2"),
    ],
)
def test_small_images_keep_their_size_in_the_stem(name: str, place: str) -> None:
    """Four channels, three classes, and after the stem as many pixels as before; large images are halved."""
    for size in (32, 64):
        model = make_model(name, (4, size, size), 3).eval()
        sides = []
        model.get_submodule(place).register_forward_hook(lambda _, __, out, sides=sides: sides.append(out.shape[-1]))
        with torch.no_grad():
            assert tuple(model(torch.zeros(2, 4, size, size)).shape) == (2, 3)
        assert (sides[0] == size) is (size == 32)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("alexnet", (3, 32, 32), r"AlexNet is made for large images \(224 pixels\) and not adapted to small ones"),
        ("vit_b_16", (1, 28, 28), r"1 × 28 × 28.*Expected 224 but got 28.*try --image-size 224"),
        ("resnet18", (1, 8, 8), r"Expected more than 1 value per channel"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_models_that_cannot_take_the_images(
    tmp_path: Path, name: str, shape: tuple[int, int, int], message: str, rng: np.random.Generator
) -> None:
    """One sentence with the reason and a way out, before a folder is made."""
    images = rng.integers(0, 256, (4, *shape[1:], shape[0]), dtype=np.uint8)
    labels = np.arange(4) % 2
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    settings = {"model": name, "data": str(tmp_path / "a.npz"), "batch_size": 4, "accumulate": 4, "steps": 1}
    with pytest.raises(SettingsError, match=message):
        train(make_settings(settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()
