"""Zip files: a run packed into one, and those from elsewhere, unpacked so that nothing can land outside the target or
fill the disk.

An archive is refused as a whole, before anything is written, if an entry has an absolute path, `..`, a drive or stream
name (`:`), a control character, the name of a Windows device, is a symbolic link or anything else but a file or a
folder, is encrypted, or meets another entry's path; and if the entries are too many or too large. What is written is
counted too, since the sizes in an archive can lie. Only wanted files are unpacked, always as new plain files, into a
folder that appears when it is complete: data into one named by the archive's SHA-256, a run into one of its own name.
A packed run has what reads again on any computer: recording, results and model, not the checkpoint to resume from. It
may be large, if the zip is hardly smaller, as chunks do not compress; what would be refused is not packed either.
"""

import hashlib
import lzma
import math
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from .errors import RunError
from .format import RUN_NAMES, is_file_name, is_run_name
from .settings import SettingsError
from .store import list_runs, read_attributes

MAX_FILES = 500_000
MAX_BYTES = 8 * 10**9
MAX_RATIO, MAX_RATIO_OF_RUN = 200, 4
"""how often larger than the archive its content may be; images hardly compress, bombs reach thousands and more"""
_SMALL = 10**8
"""bytes below which the ratio does not matter"""


def unpack(archive: Path, cache: Path, endings: Sequence[str]) -> Path:
    """Unpack an archive once; the same content is found again by its hash.

    Args:
        cache: folder that receives a folder per archive; made if missing.
        endings: lower-case endings, such as `.png`, of the files to unpack.

    Returns:
        The folder with the content.

    Raises:
        SettingsError: if the archive cannot be read, or must not be unpacked.
    """
    try:
        with archive.open("rb") as file:
            target = cache / hashlib.file_digest(file, "sha256").hexdigest()[:32]
            if not target.is_dir():
                cache.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix="unpacking-", dir=cache) as folder:
                    content = Path(folder) / "content"
                    _unpack(file, archive, content, lambda parts: _ends(parts, endings), MAX_RATIO, MAX_BYTES)
                    _rename(content, target)
            return target
    except FileNotFoundError:
        raise SettingsError(f"--data {archive}: there is no such file") from None
    except _Refused as error:
        raise SettingsError(f"--data {archive} is not unpacked: {error}") from error
    except _UNREADABLE as error:
        raise SettingsError(f"--data {archive} cannot be unpacked: {error or type(error).__name__}") from error


def pack_run(run: Path, path: Path) -> None:
    """Write a run folder as a zip that holds it under its name; links in it are left out.

    The recording may go on meanwhile: its commit record is read first, so that what it promises is in the zip.

    Raises:
        RunError: if the folder holds no readable recording, or one that `unpack_run` would refuse.
        OSError: if a file cannot be read or written.
    """
    read_attributes(run)
    name = run.resolve().name
    if not is_run_name(name):
        raise RunError(f"{run} is not packed: {name!r} is no name of a run ({RUN_NAMES}); rename the folder")
    record = run / "run.zarr" / "zarr.json"
    promised = record.read_bytes()
    files = list(_run_files(run))
    try:
        _check([zipfile.ZipInfo(f"{name}/{file.relative_to(run).as_posix()}") for file in (record, *files)])
    except _Refused as error:
        raise RunError(f"{run} is not packed: {error}") from None
    with zipfile.ZipFile(path, "w", strict_timestamps=False) as archive:
        archive.writestr(f"{name}/{record.relative_to(run).as_posix()}", promised, zipfile.ZIP_DEFLATED)
        for file in files:
            # Chunks are compressed already.
            how = zipfile.ZIP_DEFLATED if file.suffix == ".json" else zipfile.ZIP_STORED
            try:
                archive.write(file, f"{name}/{file.relative_to(run).as_posix()}", how)
            except FileNotFoundError:  # the recorder's own temporary files come and go
                continue


def count_bytes(run: Path) -> int:
    """How large the zip of a run will be, about."""
    return sum(file.stat().st_size for file in (run / "run.zarr" / "zarr.json", *_run_files(run)))


def unpack_run(archive: Path, folder: Path) -> list[Path]:
    """Unpack the runs of a zip into a folder of runs, which is made if it is missing.

    Returns:
        The run folders.

    Raises:
        RunError: if the zip cannot be read, must not be unpacked, holds no run, or one of a name that is there.
    """
    try:
        with archive.open("rb") as file:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as beside:
                content = Path(beside) / "content"
                _unpack(file, archive, content, _belongs_to_run, MAX_RATIO_OF_RUN)
                bare = (content / "run.zarr").is_dir()
                found = {archive.stem: content} if bare else {run.name: run for run in list_runs(content)}
                if not found or not all(map(is_run_name, found)):
                    raise RunError(
                        f"{archive} holds no run: there is no folder with a run.zarr in it whose name is one of a run "
                        f"({RUN_NAMES})"
                    )
                for name in found:
                    if (folder / name).exists():
                        raise RunError(f"{folder / name} is there already, and was left alone; nothing was unpacked")
                for name, run in found.items():
                    run.rename(folder / name)
            return [folder / name for name in found]
    except FileNotFoundError:
        raise RunError(f"{archive}: there is no such file") from None
    except _Refused as error:
        raise RunError(f"{archive} is not unpacked: {error}") from error
    except _UNREADABLE as error:
        raise RunError(f"{archive} cannot be unpacked: {error or type(error).__name__}") from error


_STORES = ("run.zarr", "results.zarr")
_MODEL = "model.safetensors"
# A RuntimeError is what zipfile raises for a compression that it does not know.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError)


def _run_files(run: Path) -> Iterator[Path]:
    """Files of a run that go into its zip, without the commit record."""
    first = run / "run.zarr" / "zarr.json"
    files = (file for store in _STORES for file in sorted((run / store).rglob("*")))
    for file in (*files, run / _MODEL):
        # A link, of the file or of a folder above it, could bring along anything of this computer.
        if file != first and file.is_file() and file.resolve() == run.resolve() / file.relative_to(run):
            yield file


def _belongs_to_run(parts: list[str]) -> bool:
    return any(part in _STORES for part in parts[:2]) or (parts[-1] == _MODEL and len(parts) <= 2)


def _ends(parts: list[str], endings: Sequence[str]) -> bool:
    return parts[-1].lower().endswith(tuple(endings))


class _Refused(Exception):
    """What is wrong with an archive."""


def _unpack(
    file: IO[bytes],
    archive: Path,
    target: Path,
    wanted: Callable[[list[str]], bool],
    ratio: int,
    most: float = math.inf,
) -> None:
    """Unpack wanted files into a new folder, if its content is at most `ratio` times the archive, and `most` bytes."""
    size = archive.stat().st_size
    left = min(most, max(_SMALL, ratio * size))
    with zipfile.ZipFile(file) as opened:
        entries = opened.infolist()
        paths = _check(entries)
        total = sum(entry.file_size for entry in entries)
        if total > most:
            raise _Refused(
                f"it holds {total / 1e9:,.1f} GB, more than {most / 1e9:,.1f} GB; unpack it and name the folder"
            )
        if total > left:
            raise _Refused(f"its content is {total / size:,.0f} times larger than the file, more than {ratio} times")
        target.mkdir()
        for entry, parts in zip(entries, paths, strict=True):
            if entry.is_dir() or not wanted(parts):
                continue
            path = target.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(entry) as source, path.open("xb") as out:
                while block := source.read(2**20):
                    left -= len(block)
                    if left < 0:
                        raise _Refused("it holds more bytes than it says")
                    out.write(block)


def _check(entries: list[zipfile.ZipInfo]) -> list[list[str]]:
    """The parts of each entry's path, all of them harmless."""
    if len(entries) > MAX_FILES:
        raise _Refused(f"it holds {len(entries):,} files, more than {MAX_FILES:,}; take the folder instead")
    paths, seen = [], set()
    for entry in entries:
        parts = _parts(entry)
        key = unicodedata.normalize("NFC", "/".join(parts)).casefold()
        if key in seen and not entry.is_dir():
            raise _Refused(f"it holds {entry.orig_filename!r} twice (apart from upper and lower case)")
        seen.add(key)
        paths.append(parts)
    return paths


def _parts(entry: zipfile.ZipInfo) -> list[str]:
    # zipfile cuts the name at a zero byte; the original must be fine as it is.
    name = entry.orig_filename.replace("\\", "/")
    shown = f"the entry {entry.orig_filename!r}"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if stat.S_ISLNK(kind):
        raise _Refused(f"{shown} is a symbolic link")
    if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise _Refused(f"{shown} is neither a file nor a folder")
    if entry.flag_bits & 1:
        raise _Refused(f"{shown} is encrypted")
    if name.startswith("/"):
        raise _Refused(f"{shown} is an absolute path")
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    for part in parts:
        if part == "..":
            raise _Refused(f"{shown} leads out of the folder")
        if ":" in part or any(ord(character) < 32 for character in part):
            raise _Refused(f"{shown} holds a drive, a stream or a control character")
        if not is_file_name(part):
            raise _Refused(f"{shown} is no file name on every system (empty, a device, or a space or dot at the end)")
    return parts


def _rename(content: Path, target: Path) -> None:
    try:
        content.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster, with the same content
            raise
