"""Class folders and zips of them: real image files, and archives made by hand to do harm."""

import hashlib
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from thermodl import cli  # noqa: E402
from thermodl.record import archive, folders  # noqa: E402
from thermodl.record.datasets import load_dataset  # noqa: E402
from thermodl.record.settings import SettingsError  # noqa: E402


def write(path: Path, pixels: np.ndarray) -> None:
    """An image file of the format that its ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_classes(root: Path, number: int, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> dict[bytes, int]:
    """PNG files in the class folders `ant`, `bee` and `cat`; the label of each image by its pixels."""
    rng = np.random.default_rng(seed)
    labels = {}
    for label, name in enumerate(("ant", "bee", "cat")):
        for index in range(number):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            write(root / name / f"{index}.png", pixels)
            labels[pixels.tobytes()] = label
    return labels


def pixels_and_labels(images: torch.Tensor, labels: torch.Tensor) -> dict[bytes, int]:
    """As `write_classes` gives them."""
    last = images.permute(0, 2, 3, 1).contiguous().numpy()
    return {image.tobytes(): int(label) for image, label in zip(last, labels, strict=True)}


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)], ids=["grey", "RGB"])
def test_train_and_test_folders(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Every image once, with the label of its folder, in an order that mixes the classes."""
    train = write_classes(tmp_path / "train", 20, shape, seed=1)
    test = write_classes(tmp_path / "test", 4, shape, seed=2)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image", "utf-8")
    (tmp_path / "train" / ".hidden").mkdir()
    data = load_dataset(str(tmp_path))
    assert (data.classes, data.shape) == (3, (3 if len(shape) == 3 else 1, 6, 5))
    assert pixels_and_labels(data.train_images, data.train_labels) == train
    assert pixels_and_labels(data.test_images, data.test_labels) == test
    assert set(data.train_labels[:15].tolist()) == {0, 1, 2}
    batch = data.normalize(data.train_images)
    assert abs(float(batch.mean())) < 1e-5
    assert float(batch.std()) == pytest.approx(1, abs=1e-2)


def test_a_split_that_anyone_can_repeat(tmp_path: Path) -> None:
    """A fraction of each class, by its own seed; the same elsewhere, and nearly the same with one more file."""
    labels = write_classes(tmp_path / "a", 20)
    write_classes(tmp_path / "b", 20)
    one = load_dataset(str(tmp_path / "a"), test_fraction=0.25)
    test = pixels_and_labels(one.test_images, one.test_labels)
    assert np.bincount(list(test.values())).tolist() == [5, 5, 5]
    assert {**pixels_and_labels(one.train_images, one.train_labels), **test} == labels
    two = load_dataset(str(tmp_path / "b"), test_fraction=0.25)
    assert torch.equal(one.test_images, two.test_images)
    assert torch.equal(one.train_images, two.train_images)
    other = load_dataset(str(tmp_path / "a"), test_fraction=0.25, split_seed=1)
    assert set(pixels_and_labels(other.test_images, other.test_labels)) != set(test)
    write(tmp_path / "b" / "ant" / "one-more.png", np.full((6, 5), 7, np.uint8))
    more = load_dataset(str(tmp_path / "b"), test_fraction=0.25)
    assert len(set(pixels_and_labels(more.test_images, more.test_labels)) & set(test)) >= 14


def test_kinds_of_images(tmp_path: Path) -> None:
    """Grey among colour becomes colour; palettes and transparency become RGB; 16 bits are refused."""
    grey = np.full((4, 4), 100, np.uint8)
    colour = np.zeros((4, 4, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    write(tmp_path / "a" / "grey.png", grey)
    write(tmp_path / "a" / "colour.bmp", colour)
    write(tmp_path / "b" / "alpha.png", np.dstack([colour, np.full((4, 4), 9, np.uint8)]))
    Image.fromarray(colour).quantize(4).save(tmp_path / "b" / "palette.png", transparency=bytes([0, 255]))
    data = load_dataset(str(tmp_path))
    everything = torch.cat([data.train_images, data.test_images])
    assert sorted(tuple(image[:, 0, 0].tolist()) for image in everything) == [(10, 20, 30)] * 3 + [(100, 100, 100)]
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "b" / "deep.png")
    with pytest.raises(SettingsError, match=r"deep.png has more than 8 bits per pixel"):
        load_dataset(str(tmp_path))


def test_images_of_different_sizes(tmp_path: Path) -> None:
    """The first odd one is named; --image-size makes all the same, also for other data."""
    write_classes(tmp_path / "c", 4)
    half = np.repeat(np.array([[0, 200]], np.uint8), 8, 1).repeat(16, 0)
    for name in ("1.png", "3.png"):
        write(tmp_path / "c" / "bee" / name, half)
    with pytest.raises(SettingsError, match=r"bee.1\.png has 16×16 pixels, but 10 of 12 images have 5×6.*image-size 5"):
        load_dataset(str(tmp_path / "c"))
    data = load_dataset(str(tmp_path / "c"), image_size=8)
    assert data.shape == (1, 8, 8)
    everything = torch.cat([data.train_images, data.test_images]).float()
    assert int(((everything[:, 0, :, 0] == 0).all(1) & (everything[:, 0, :, 7] == 200).all(1)).sum()) == 2
    images = np.full((6, 10, 10, 4), 77, np.uint8)
    labels = np.arange(6) % 3
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    resized = load_dataset(str(tmp_path / "a.npz"), image_size=6)
    assert resized.shape == (4, 6, 6)
    assert (resized.train_images == 77).all()


def lone_class(root: Path) -> None:
    """One class."""
    write(root / "ant" / "a.png", np.zeros((4, 4), np.uint8))


def no_image(root: Path) -> None:
    """A text by the name of an image."""
    write_classes(root, 2)
    (root / "bee" / "0.png").write_text("hello", "utf-8")


def cut_image(root: Path) -> None:
    """An image of which the end is missing."""
    write_classes(root, 2, (40, 40))
    whole = (root / "bee" / "0.png").read_bytes()
    (root / "bee" / "0.png").write_bytes(whole[: len(whole) // 2])


def no_test(root: Path) -> None:
    """Only train/."""
    write_classes(root / "train", 2)


def strange_class(root: Path) -> None:
    """A class that is not trained."""
    write_classes(root / "train", 2)
    write_classes(root / "test", 2)
    write(root / "test" / "dog" / "a.png", np.zeros((6, 5), np.uint8))


def empty_class(root: Path) -> None:
    """A class without images."""
    write_classes(root, 2)
    (root / "dog").mkdir()


def single_image(root: Path) -> None:
    """Nothing to split."""
    write_classes(root, 2)
    write(root / "dog" / "a.png", np.zeros((6, 5), np.uint8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lone_class, "found 1 class folders, expected at least two"),
        (no_image, "0.png is no image, whatever its name says"),
        (cut_image, "0.png cannot be read as an image"),
        (no_test, "there is train/ with class folders; expected train/ and test/"),
        (strange_class, "test/dog is a class that train/ does not have"),
        (empty_class, "the class folder dog has no images"),
        (single_image, "the class dog has one image"),
    ],
)
def test_folders_that_are_no_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], message: str
) -> None:
    """One sentence, exit code 2, no traceback and no run."""
    make(tmp_path / "data")
    assert message in fails(capsys, tmp_path, "--data", str(tmp_path / "data"))


def fails(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    """What `thermodl record` prints when it exits with 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(["record", "--runs-dir", str(folder / "runs"), "--data-root", str(folder / "cache"), *arguments])
    printed = capsys.readouterr().err
    assert stop.value.code == 2, printed
    assert "Traceback" not in printed
    assert printed.count("\n") == 1
    assert not (folder / "runs").exists()
    return printed


def test_images_that_would_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes in memory are counted before a pixel is read, and an image of billions of pixels is refused."""
    write_classes(tmp_path / "a", 4)
    monkeypatch.setattr(folders, "MAX_BYTES", 300)
    with pytest.raises(SettingsError, match=r"12 images of 5×6 take .* set image_size to a smaller number"):
        load_dataset(str(tmp_path / "a"))
    monkeypatch.undo()
    # A PNG whose header says 60,000 × 60,000.
    content = bytearray((tmp_path / "a" / "ant" / "0.png").read_bytes())
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a" / "ant" / "0.png").write_bytes(content)
    with pytest.raises(SettingsError, match="is refused, it would be too large in memory"):
        load_dataset(str(tmp_path / "a"))


# ------------------------------------------------------------------------------------------------- zips


def zip_classes(target: Path, source: Path, prefix: str = "") -> None:
    """The folder as an archive."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(source.rglob("*.png")):
            file.write(path, prefix + path.relative_to(source).as_posix())


@pytest.mark.parametrize("prefix", ["", "mine/", "./"])
def test_a_zip_holds_what_its_folder_holds(tmp_path: Path, prefix: str) -> None:
    """The same images; unpacked once, under the hash of the file, images only, and nothing else left."""
    labels = write_classes(tmp_path / "a", 5)
    zip_classes(tmp_path / "A.ZIP", tmp_path / "a", prefix)
    with zipfile.ZipFile(tmp_path / "A.ZIP", "a") as file:
        file.writestr("__MACOSX/ant/._0.png", b"resource fork")
        file.writestr(f"{prefix}ant/run.sh", b"#!/bin/sh")
    data = load_dataset(str(tmp_path / "A.ZIP"), str(tmp_path / "cache"))
    train = pixels_and_labels(data.train_images, data.train_labels)
    assert {**train, **pixels_and_labels(data.test_images, data.test_labels)} == labels
    (unpacked,) = (tmp_path / "cache" / "unpacked").iterdir()
    assert hashlib.sha256((tmp_path / "A.ZIP").read_bytes()).hexdigest().startswith(unpacked.name)
    assert not list(unpacked.rglob("*.sh"))
    times = {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")}
    again = load_dataset(str(tmp_path / "A.ZIP"), str(tmp_path / "cache"))
    assert torch.equal(again.train_images, data.train_images)
    assert times == {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")}


Entry = tuple[str, int, bytes]


def hostile(path: Path, *entries: Entry) -> None:
    """An archive of harmless images, and entries given by name, Unix mode and content."""
    write_classes(path.parent / "harmless", 2)
    zip_classes(path, path.parent / "harmless")
    with zipfile.ZipFile(path, "a") as file:
        for name, mode, content in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            info.create_system = 3
            info.external_attr = mode << 16
            file.writestr(info, content)


PNG = io.BytesIO()
Image.fromarray(np.zeros((6, 5), np.uint8)).save(PNG, "png")


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("/ant/evil.png", 0o100644, "absolute path"),
        ("\\\\server\\share\\evil.png", 0o100644, "absolute path"),
        ("C:\\ant\\evil.png", 0o100644, "drive, a stream"),
        ("ant/0.png:stream.png", 0o100644, "drive, a stream"),
        ("../evil.png", 0o100644, "leads out of the folder"),
        ("ant/../../../evil.png", 0o100644, "leads out of the folder"),
        ("ant\\..\\..\\evil.png", 0o100644, "leads out of the folder"),
        ("ant/link.png", stat.S_IFLNK | 0o777, "symbolic link"),
        ("ant", stat.S_IFLNK | 0o777, "symbolic link"),
        ("ant/device.png", stat.S_IFCHR | 0o666, "neither a file nor a folder"),
        ("ant/pipe.png", stat.S_IFIFO | 0o666, "neither a file nor a folder"),
        ("ant/CON.png", 0o100644, "no file name on every system"),
        ("Lpt1/evil.png", 0o100644, "no file name on every system"),
        ("ant/nul", 0o100644, "no file name on every system"),
        ("ant./evil.png", 0o100644, "no file name on every system"),
        ("ant//evil.png", 0o100644, "no file name on every system"),
        ("ant/ev\x1bil.png", 0o100644, "control character"),
        ("ANT/0.PNG", 0o100644, "twice"),
        ("ant/0.png/evil.png", 0o100644, "cannot be unpacked"),
    ],
)
def test_hostile_entries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, mode: int, message: str
) -> None:
    """Refused before anything is written, whatever the other entries are."""
    # As deep as the entries climb.
    folder = tmp_path / "one" / "two"
    folder.mkdir(parents=True)
    hostile(folder / "evil.zip", (name, mode, PNG.getvalue()), ("ant/late.png", 0o100644, PNG.getvalue()))
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    assert message in fails(capsys, folder, "--data", str(folder / "evil.zip"))
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before
    assert not list((folder / "cache").rglob("*.png"))


def test_archives_that_are_too_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many files, too many bytes, a bomb, and sizes that lie."""
    file = str(tmp_path / "evil.zip")
    hostile(tmp_path / "evil.zip", ("ant/zeros.bmp", 0o100644, bytes(5_000_000)))
    # Compressed as the harmless ones are: 5 MB of zeros are 5 kB.
    with zipfile.ZipFile(tmp_path / "evil.zip", "a", zipfile.ZIP_DEFLATED) as out:
        out.writestr("ant/more-zeros.bmp", bytes(50_000_000))
    monkeypatch.setattr(archive, "MAX_FILES", 7)
    assert "holds 8 files, more than 7; take the folder instead" in fails(capsys, tmp_path, "--data", file)
    monkeypatch.undo()
    monkeypatch.setattr(archive, "MAX_BYTES", 50_000_000)
    assert "holds 0.1 GB, more than 0.1 GB; unpack" in fails(capsys, tmp_path, "--data", file)
    monkeypatch.undo()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("ant/zeros.bmp", bytes(101_000_000))
    assert "times larger than the file, more than 200 times" in fails(
        capsys, tmp_path, "--data", str(tmp_path / "bomb.zip")
    )
    # The directory says one byte, the stream holds a million.
    content = bytearray((tmp_path / "bomb.zip").read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 1)
    (tmp_path / "liar.zip").write_bytes(content)
    assert "liar.zip" in fails(capsys, tmp_path, "--data", str(tmp_path / "liar.zip"))
    assert not list((tmp_path / "cache").rglob("*.bmp"))


def test_archives_that_are_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, no zip, cut off, damaged, encrypted, with a zero byte in a name."""
    assert "there is no such file" in fails(capsys, tmp_path, "--data", str(tmp_path / "none.zip"))
    hostile(tmp_path / "good.zip")
    good = (tmp_path / "good.zip").read_bytes()
    directory = good.index(b"PK\x01\x02")
    damaged = bytearray(good)
    damaged[40:60] = bytes(20)
    encrypted, zero = bytearray(good), bytearray(good)
    encrypted[directory + 8] |= 1
    zero[zero.index(b"ant/0.png", directory) + 3] = 0
    for name, content, message in (
        ("text.zip", b"hello", "cannot be unpacked"),
        ("empty.zip", b"", "cannot be unpacked"),
        ("cut.zip", good[: len(good) // 2], "cannot be unpacked"),
        ("damaged.zip", bytes(damaged), "cannot be unpacked"),
        ("encrypted.zip", bytes(encrypted), "is encrypted"),
        ("zero.zip", bytes(zero), "control character"),
    ):
        (tmp_path / name).write_bytes(content)
        assert message in fails(capsys, tmp_path, "--data", str(tmp_path / name)), name
    assert not list((tmp_path / "cache" / "unpacked").iterdir())


def test_training_on_a_zip(tmp_path: Path) -> None:
    """From the command to a run that knows its settings."""
    from thermodl.record.store import open_run

    write_classes(tmp_path / "a", 10, (8, 8, 3))
    zip_classes(tmp_path / "a.zip", tmp_path / "a")
    with pytest.raises(SystemExit) as stop:
        cli.main(
            ["record", "--runs-dir", str(tmp_path), "--name", "one", "--data", str(tmp_path / "a.zip"),
             "--data-root", str(tmp_path / "cache"), "--augmentation", "crop-flip", "--steps", "4", "--batch-size", "8",
             "--set", "test_fraction=0.3", "--set", "accumulate=2", "--set", "schedule=warmup-cosine"]
        )  # fmt: skip
    assert stop.value.code == 0
    run = open_run(tmp_path / "one")
    assert run.sizes["step"] == 4
    assert (run.attrs["train_size"], run.attrs["augmentation"]) == (21, "crop-flip")
    assert run.attrs["settings"]["test_fraction"] == 0.3
