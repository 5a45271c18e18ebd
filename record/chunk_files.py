"""An array of a recording straight from its chunk files.

A long series lies in many of them, and zarr hands each one to its event loop and to a thread for each codec, which
takes five times as long as the reading. The layout is that of the Zarr v3 specification; other codecs than the
format's own are left to zarr.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc
from numcodecs.checksum32 import CRC32C
from zarr.storage import LocalStore, StorePath

UNREADABLE = (RuntimeError, ValueError, OSError, SystemError)
"""what zarr 3.1 and the codecs raise for a chunk that is cut off or does not decode"""
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


def open_stored(folder: Path, name: str) -> zarr.Array:
    """An array of a recording, to read: its metadata past the event loop, with which `zarr.open_array` takes thrice as
    long.

    Args:
        folder: the `run.zarr`.
        name: of the array.

    Raises:
        OSError, ValueError, KeyError, TypeError: if there is no such array, or its metadata are damaged.
    """
    metadata = json.loads((folder / name / "zarr.json").read_bytes())
    return zarr.Array.from_dict(StorePath(LocalStore(folder, read_only=True), name), metadata)


def read_block(array: zarr.Array, folder: Path, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The entries [start, stop) of each dimension as they are stored, the fill value where there is no chunk.

    Args:
        array: the array, opened with zarr.
        folder: where it lies.
        spans: start and stop of each dimension, within the array.

    Raises:
        Whatever is in UNREADABLE, for a damaged chunk.
    """
    read = _chunk_reader(array, folder)
    values = np.empty([stop - start for start, stop in spans], array.dtype)
    for place, inside, target in _pieces(array.chunks, spans):
        try:
            values[target] = read(place)[inside]
        except FileNotFoundError:
            values[target] = array.fill_value
    return values


def read_entries(array: zarr.Array, folder: Path, length: int, row: int | None = None) -> tuple[np.ndarray, int]:
    """The first `length` entries of an array as float64, and how many of them are lost to damaged chunks.

    Args:
        array: the array, opened with zarr.
        folder: where it lies.
        length: entries of the growing dimension, the last one.
        row: take only this index of the first dimension.

    Returns:
        (..., length) values, NaN where a chunk is damaged and the fill value where there is none, and the entries of
        the growing dimension that a damaged chunk concerns.
    """
    read = _chunk_reader(array, folder)
    spans = [*((0, size) for size in array.shape[:-1]), (0, length)]
    if row is not None:
        spans[0] = row, row + 1
    values = np.full([stop - start for start, stop in spans], array.fill_value, float)
    lost = np.zeros(length, bool)
    for place, inside, target in _pieces(array.chunks, spans):
        try:
            values[target] = read(place)[inside]
        except FileNotFoundError:
            continue
        except UNREADABLE:
            values[target] = np.nan
            lost[target[-1]] = True
    return values if row is None else values[0], int(lost.sum())


def _pieces(
    widths: Sequence[int], spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """The chunks that hold a block: their places in the grid, what is taken of them, and where it belongs."""
    for place in product(*(range(a // width, -(-b // width)) for (a, b), width in zip(spans, widths, strict=True))):
        inside, target = [], []
        for index, (start, stop), width in zip(place, spans, widths, strict=True):
            begin, end = max(start, index * width), min(stop, (index + 1) * width)
            inside.append(slice(begin - index * width, end - index * width))
            target.append(slice(begin - start, end - start))
        yield place, tuple(inside), tuple(target)


def _chunk_reader(array: zarr.Array, folder: Path) -> Callable[[tuple[int, ...]], np.ndarray]:
    """What gives one chunk as a whole by its place in the grid."""
    metadata: Any = array.metadata
    first, *others = (codec.to_dict() for codec in metadata.codecs)
    names = [codec["name"] for codec in others]
    # Recordings of before there were checksums have none.
    if first != _BYTES or names not in (["blosc"], ["blosc", "crc32c"]):
        return lambda place: np.asarray(
            array[tuple(slice(i * width, (i + 1) * width) for i, width in zip(place, array.chunks, strict=True))]
        )
    dtype, shape = array.dtype.newbyteorder("<"), array.chunks
    blosc, checksum = Blosc(), CRC32C(location="end")

    def read(place: tuple[int, ...]) -> np.ndarray:
        content: Any = (folder / metadata.encode_chunk_key(place)).read_bytes()
        if len(names) > 1:
            content = checksum.decode(content)
        return np.frombuffer(blosc.decode(content), dtype).reshape(shape)

    return read
