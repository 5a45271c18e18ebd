"""Data sets as tensors in memory: the embedded one, torchvision's, class folders, a file, or one's own function."""

import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from thermodl.data import FASHION_MNIST_TRAIN, fashion_mnist_10k

from .archive import unpack
from .errors import first_line
from .folders import ENDINGS, inner_folder, load_folder
from .settings import SettingsError

TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
NAMES = ("fashion-mnist-10k", *TORCHVISION)
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class Dataset:
    """Images as bytes, so that even CIFAR fits in memory; `images` normalizes a batch when it is drawn."""

    train_images: Tensor
    """uint8 (N, channels, height, width)"""
    train_labels: Tensor
    """int64 (N,)"""
    test_images: Tensor
    test_labels: Tensor
    classes: int
    mean: Tensor
    """per channel, of the training images scaled to 0…1, shape (channels, 1, 1)"""
    std: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def normalize(self, images: Tensor) -> Tensor:
        """Bytes (B, channels, height, width) as float32 with mean 0 and standard deviation 1 per channel."""
        return (images.float() / 255 - self.mean) / self.std

    def resize(self, size: int) -> "Dataset":
        """The same images with this width and height (bilinear, antialiased); mean and deviation stay."""
        return replace(self, train_images=_resize(self.train_images, size), test_images=_resize(self.test_images, size))

    def to(self, device: torch.device) -> "Dataset":
        """The same data on a device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.to(device) for name, value in tensors.items()})


def load_dataset(
    name: str,
    root: str | None = None,
    *,
    image_size: int | None = None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Dataset:
    """Load a data set by name.

    Args:
        name: one of `NAMES`; a folder of class folders, or a zip of them (see `folders` and `archive`); a path ending
            in `.npz` with arrays `train_images`, `train_labels`, `test_images`, `test_labels` (images uint8,
            (N, height, width) or (N, height, width, channels)); or `package.module:function`, a function without
            arguments that returns those four arrays as a dict.
        root: folder for torchvision's files and unpacked zips. Default `~/.cache/thermodl`.
        image_size: width and height to resize to; None leaves images as they are.
        test_fraction: part of each class kept for testing, for class folders without `train/` and `test/`.
        split_seed: which images that part holds.

    Raises:
        SettingsError: if the name is unknown, the files are neither there nor to be had, or what they hold is no
            data set.
    """
    cache = Path(root) if root else Path.home() / ".cache" / "thermodl"
    path = Path(name)
    if name == "fashion-mnist-10k":
        images, labels = fashion_mnist_10k()
        cut = FASHION_MNIST_TRAIN
        data = make_dataset(images[:cut], labels[:cut], images[cut:], labels[cut:])
    elif name in TORCHVISION:
        data = _load_torchvision(name, cache)
    elif path.is_dir() or path.suffix.lower() == ".zip":
        folder = path if path.is_dir() else inner_folder(unpack(path, cache / "unpacked", ENDINGS))
        train, test = load_folder(folder, image_size, test_fraction, split_seed)
        return make_dataset(*train, *test)
    elif path.suffix.lower() == ".npz":
        data = _load_npz(path)
    elif ":" in name:
        data = _make_named(name, call_function(name, "data"))
    else:
        raise SettingsError(
            f"--data {name!r} is unknown; expected {', '.join(NAMES)}, a folder or .zip of class folders, a .npz file, "
            "or package.module:function"
        )
    return data.resize(image_size) if image_size else data


def make_dataset(
    train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
) -> Dataset:
    """Put arrays of bytes into a `Dataset`.

    Raises:
        SettingsError: if images are not bytes of one size, labels are no whole numbers from 0, or they differ in
            number.
    """
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise SettingsError(f"images must be uint8 of 3 or 4 dimensions; got {images.dtype} {images.shape}")
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise SettingsError(f"labels must be whole numbers in one row; got {labels.dtype} {labels.shape}")
        if len(images) != len(labels) or images.size == 0:
            raise SettingsError(f"there are {len(images)} images {images.shape[1:]} but {len(labels)} labels")
        if labels.min() < 0:
            raise SettingsError(f"labels must count from 0; the least is {labels.min()}")
        if images.shape[1:] != train_images.shape[1:]:
            raise SettingsError(f"images to train are {train_images.shape[1:]}, those to test {images.shape[1:]}")
    train = _channels_first(train_images)
    mean, std = _moments(train)
    return Dataset(
        torch.from_numpy(train),
        torch.from_numpy(np.asarray(train_labels, dtype=np.int64)),
        torch.from_numpy(_channels_first(test_images)),
        torch.from_numpy(np.asarray(test_labels, dtype=np.int64)),
        classes=int(max(train_labels.max(), test_labels.max())) + 1,
        mean=torch.from_numpy(mean).view(-1, 1, 1),
        std=torch.from_numpy(std).clamp_min(1e-6).view(-1, 1, 1),
    )


class Batches(Iterator[Tensor]):
    """Endless index tensors of shape (batch_size,).

    `shuffle` goes through a fresh permutation per epoch and drops an incomplete last batch; `replacement` draws
    independently. The difference is physics: within an epoch the noise of shuffled batches is anti-correlated
    (Kühn & Rosenow 2023).

    Raises:
        SettingsError: if the batch is larger than the data set.
    """

    def __init__(self, size: int, batch_size: int, sampling: str, generator: torch.Generator):
        if batch_size > size:
            raise SettingsError(f"batch_size {batch_size} is larger than the data set of {size} examples")
        self._size, self._batch_size, self._sampling, self._generator = size, batch_size, sampling, generator
        self._rest = torch.zeros(0, dtype=torch.int64)

    def __next__(self) -> Tensor:
        if self._sampling == "replacement":
            return torch.randint(self._size, (self._batch_size,), generator=self._generator)
        if len(self._rest) < self._batch_size:
            self._rest = torch.randperm(self._size, generator=self._generator)
        batch, self._rest = self._rest[: self._batch_size], self._rest[self._batch_size :]
        return batch

    def state_dict(self) -> dict[str, Tensor]:
        """Where the sampling is: the generator, and what the epoch has left."""
        return {"generator": self._generator.get_state(), "rest": self._rest.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self._generator.set_state(state["generator"])
        self._rest = state["rest"]


def call_function(name: str, what: str, *arguments: Any) -> Any:
    """What the function returns that `package.module:function` names.

    Raises:
        SettingsError: if it cannot be imported, or raises; then with the place.
    """
    module, _, attribute = name.partition(":")
    # The command `thermodl`, unlike `python -m`, does not look where it was started.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing runs the module
        raise SettingsError(f"--{what} {name!r}: {error}; expected package.module:function") from error
    try:
        return function(*arguments)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise SettingsError(
            f"--{what} {name!r} raised {type(error).__name__}: {first_line(error)} "
            f"({place.filename}, line {place.lineno})"
        ) from error


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel of images scaled to 0…1, exact from counts, in little memory."""
    counts = np.zeros((images.shape[1], 256))
    for start in range(0, len(images), 1000):
        for channel, count in enumerate(counts):
            count += np.bincount(images[start : start + 1000, channel].ravel(), minlength=256)
    levels, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(1))
    return mean.astype(np.float32), std.astype(np.float32)


def _resize(images: Tensor, size: int) -> Tensor:
    parts = images.split(1000)
    shape = (size, size)
    return torch.cat(
        [
            F.interpolate(part.float(), shape, mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
            for part in parts
        ]
    )


def _channels_first(images: np.ndarray) -> np.ndarray:
    return np.array(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2), order="C")


def _make_named(name: str, arrays: Any) -> Dataset:
    """The data set of a mapping of arrays, which may be anything."""
    if not isinstance(arrays, Mapping) or not set(_ARRAYS) <= set(arrays):
        got = (
            f"{type(arrays).__name__} of {', '.join(map(str, arrays))}" if isinstance(arrays, Mapping) else repr(arrays)
        )
        raise SettingsError(f"--data {name}: expected the arrays {', '.join(_ARRAYS)}; got {got:.200}")
    try:
        return make_dataset(*(np.asarray(arrays[key]) for key in _ARRAYS))
    except (SettingsError, TypeError, ValueError) as error:
        raise SettingsError(f"--data {name}: {error}") from error


def _load_npz(path: Path) -> Dataset:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError:
        raise SettingsError(f"--data {path}: there is no such file") from None
    except Exception as error:  # numpy and zip raise what they like on a file that is cut off, or is none
        raise SettingsError(f"--data {path} is no .npz file, or damaged ({first_line(error)})") from error
    return _make_named(str(path), arrays)


def _load_torchvision(name: str, root: Path) -> Dataset:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name])
    parts = []
    for train in (True, False):
        try:
            part = kind(root, train=train, download=False)
        except RuntimeError:
            part = _download(kind, name, root, train)
        parts += [np.asarray(part.data), np.asarray(part.targets)]
    return make_dataset(*parts)


def _download(kind: Any, name: str, root: Path, train: bool) -> Any:
    try:
        return kind(root, train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise SettingsError(
            f"the files of {name} are not in {root}, and the download failed ({error}); "
            "connect to a network, or name the folder that holds them with --data-root"
        ) from error
