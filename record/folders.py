"""Images in class folders, as torchvision's ImageFolder takes them: one folder per class, classes in order of name.

Either `train/` and `test/`, each with the class folders, or the class folders alone. Then each class is split by a
hash of the split's seed and the file's name: the same on every machine, and a new file moves few others.
"""

import hashlib
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .settings import SettingsError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
MAX_BYTES = 8 * 10**9
"""of all images in memory, as bytes"""

_GREY = ("1", "L", "LA", "La")
_WIDE = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")

Arrays = tuple[np.ndarray, np.ndarray]
Files = list[tuple[Path, int]]
"""each with its label"""


def load_folder(
    root: Path, image_size: int | None = None, test_fraction: float = 0.2, split_seed: int = 0
) -> tuple[Arrays, Arrays]:
    """Images uint8 (N, height, width[, 3]) and labels, for training and for testing, in an order without classes.

    Images are grey if all of them are, else RGB; transparency is dropped.

    Args:
        image_size: resize to this width and height (bilinear, antialiased). None: all must have the same size.
        test_fraction: part of each class that is kept for testing, where there are no `train/` and `test/`; at least
            one image, and at most all but one.
        split_seed: which.

    Raises:
        SettingsError: if the layout is another, a file is no image, or the sizes differ.
    """
    train, test = _find(root, test_fraction, split_seed)
    files = [path for path, _ in train] + [path for path, _ in test]
    images = _read(files, image_size)
    labels = np.array([label for _, label in train + test], dtype=np.int64)
    cut = len(train)
    return (images[:cut], labels[:cut]), (images[cut:], labels[cut:])


def inner_folder(root: Path) -> Path:
    """The folder itself, or the one that it holds alone, as many archives do."""
    while len(inside := _subfolders(root)) == 1 and _subfolders(inside[0]):
        root = inside[0]
    return root


def _find(root: Path, test_fraction: float, seed: int) -> tuple[Files, Files]:
    parts = [part for part in _subfolders(root) if part.name in ("train", "test") and _subfolders(part)]
    if len(parts) == 1:
        raise SettingsError(f"--data {root}: there is {parts[0].name}/ with class folders; expected train/ and test/")
    if parts:
        train, test = _classes(root / "train"), _classes(root / "test")
        if extra := sorted(set(test) - set(train)):
            raise SettingsError(f"--data {root}: test/{extra[0]} is a class that train/ does not have")
        labels = {name: label for label, name in enumerate(train)}
        both = [[(path, labels[name]) for name, files in part.items() for path in files] for part in (train, test)]
        return _shuffled(root, both[0], seed), _shuffled(root, both[1], seed)
    to_train, to_test = [], []
    for label, (name, files) in enumerate(_classes(root).items()):
        if len(files) < 2:
            raise SettingsError(f"--data {root}: the class {name} has one image; a split into train and test needs two")
        ordered = _shuffled(root, [(path, label) for path in files], seed)
        cut = min(max(1, round(test_fraction * len(files))), len(files) - 1)
        to_test += ordered[:cut]
        to_train += ordered[cut:]
    return _shuffled(root, to_train, seed), _shuffled(root, to_test, seed)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX"))),
        key=lambda path: path.name,
    )


def _classes(root: Path) -> dict[str, list[Path]]:
    classes = {folder.name: _images(folder) for folder in _subfolders(root)}
    if len(classes) < 2:
        raise SettingsError(
            f"--data {root}: found {len(classes)} class folders, expected at least two, each with images "
            f"({', '.join(ENDINGS)}), or train/ and test/ with such folders"
        )
    for name, files in classes.items():
        if not files:
            raise SettingsError(f"--data {root}: the class folder {name} has no images ({', '.join(ENDINGS)})")
    return classes


def _images(folder: Path) -> list[Path]:
    found = []
    for place, _, names in os.walk(folder):
        found += [Path(place, name) for name in names if name.lower().endswith(ENDINGS) and not name.startswith(".")]
    return sorted(found)


def _shuffled(root: Path, files: Files, seed: int) -> Files:
    def key(file: tuple[Path, int]) -> bytes:
        name = file[0].relative_to(root).as_posix()
        return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()

    return sorted(files, key=key)


def _read(files: list[Path], image_size: int | None) -> np.ndarray:
    sizes, grey = [], True
    for path in files:
        with _open(path) as image:
            if image.mode in _WIDE:
                raise SettingsError(f"--data: {path} has more than 8 bits per pixel ({image.mode}); convert it to 8")
            sizes.append(image.size)
            grey = grey and image.mode in _GREY
    if image_size is None:
        _check_sizes(files, sizes)
    width, height = (image_size, image_size) if image_size else sizes[0]
    shape = (len(files), height, width) if grey else (len(files), height, width, 3)
    if (total := int(np.prod(shape, dtype=float))) > MAX_BYTES:
        raise SettingsError(
            f"--data: {len(files):,} images of {width}×{height} take {total / 1e9:,.1f} GB in memory, more than "
            f"{MAX_BYTES / 1e9:,.1f} GB; set image_size to a smaller number"
        )
    images = np.empty(shape, dtype=np.uint8)
    for path, place in zip(files, images, strict=True):
        with _open(path) as image:
            try:
                # A palette with several transparent colours is only taken by way of RGBA.
                plain = (image.convert("RGBA") if image.mode == "P" else image).convert("L" if grey else "RGB")
                if plain.size != (width, height):
                    plain = plain.resize((width, height), Image.Resampling.BILINEAR)
                place[...] = np.asarray(plain)
            except (OSError, SyntaxError, ValueError) as error:
                raise SettingsError(f"--data: {path} cannot be read as an image: {error}") from error
    return images


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SettingsError(f"--data: {path} is refused, it would be too large in memory: {error}") from error
    except UnidentifiedImageError as error:
        raise SettingsError(f"--data: {path} is no image, whatever its name says") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise SettingsError(f"--data: {path} cannot be read as an image: {error}") from error


def _check_sizes(files: list[Path], sizes: list[tuple[int, int]]) -> None:
    (usual, count), *others = Counter(sizes).most_common()
    if others:
        path, (width, height) = min((path, size) for path, size in zip(files, sizes, strict=True) if size != usual)
        raise SettingsError(
            f"--data: {path} has {width}×{height} pixels, but {count} of {len(files)} images have "
            f"{usual[0]}×{usual[1]}; resize all with --image-size, such as --image-size {min(usual)}"
        )
