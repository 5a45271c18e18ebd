"""Data that travel with ThermoDL: 10,000 Fashion-MNIST images, demo settings, and a small recorded sample."""

import gzip
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
DEMO = HERE / "demo"
SAMPLE = HERE / "sample.zip"
FASHION_MNIST_TRAIN = 8000


def read_idx(path: Path) -> np.ndarray:
    """An array of unsigned bytes from a gzipped IDX file, in the shape that the file states.

    Raises:
        ValueError: if the file does not hold unsigned bytes, or fewer than its header says.
    """
    raw = gzip.decompress(path.read_bytes())
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path.name} is not an IDX file of unsigned bytes")
    ndim = raw[3]
    shape = np.frombuffer(raw, ">i4", ndim, offset=4)
    if len(raw) != 4 + 4 * ndim + np.prod(shape):
        raise ValueError(f"{path.name} is shorter than its header says")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def fashion_mnist_10k() -> tuple[np.ndarray, np.ndarray]:
    """The embedded images, shape (10000, 28, 28), and labels, shape (10000,), both uint8.

    They are the test part of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017). ThermoDL trains on the first
    `FASHION_MNIST_TRAIN` and tests on the rest.
    """
    folder = HERE / "fashion-mnist"
    return read_idx(folder / "t10k-images-idx3-ubyte.gz"), read_idx(folder / "t10k-labels-idx1-ubyte.gz")


def unpack_sample(folder: Path) -> None:
    """Write the recorded and analyzed sample run into a folder, as `fashion-mnist-shuffle/`."""
    with zipfile.ZipFile(SAMPLE) as archive:
        archive.extractall(folder)
