"""A recording as analyses need it: an array with a hole is refused, because zarr would fill the hole with NaN."""

import contextlib
from itertools import product
from pathlib import Path
from typing import NoReturn

import dask.config
import xarray as xr
import zarr
from zarr.storage import LocalStore

from thermodl.record.errors import RunError
from thermodl.record.store import open_run, run_folder

_SMALL = 2**20
"""bytes up to which an array is read at once: several analyses need it, and handing out a task takes longer"""
_LOGGED = ("loss", "epoch", "epoch_position", "clip_factor")


def open_whole_run(path: str | Path) -> xr.Dataset:
    """`open_run`, where an array that lacks a committed chunk raises RunError when it is read; small ones are read.

    Every committed chunk is written, so one that is not there was lost. Only the existence of the files is looked at;
    the analyses that do not read the array can still be made.

    Raises:
        RunError: as `open_run`, or if the array `step`, which every analysis needs, lacks a chunk.
    """
    run = open_run(path)
    root = run_folder(path) / "run.zarr"
    for name in map(str, run.variables):
        if not (root / name).is_dir():
            continue
        # A writer that is killed while it adds a logged scalar leaves it without the last of its chunks.
        unborn = name in _LOGGED and run.attrs.get("state") == "running"
        hole = _find_hole(root / name, run[name].shape, unborn)
        if hole is None:
            continue
        message = f"{root / name} lacks its chunk {hole}, which was committed; thermodl check names every place"
        if name in run.coords:
            raise RunError(message)
        data = run[name].data
        run[name].data = data.map_blocks(_refuse, message=message, dtype=data.dtype, meta=data._meta)
    # In this process also where a cluster is in use.
    with dask.config.set(scheduler="threads"):
        for name in [name for name, values in run.variables.items() if values.nbytes <= _SMALL]:
            # What cannot be read is refused by the analyses that need it.
            with contextlib.suppress(RunError):
                run[name].load()
    return run


def _find_hole(place: Path, shape: tuple[int, ...], unborn: bool) -> str | None:
    """Key of the first chunk within `shape` that has no file; None if all are there.

    Recordings without checksums are older; they left out chunks of nothing but missing values.
    """
    array = zarr.open_array(LocalStore(place, read_only=True), mode="r")
    if not any("crc32c" in str(codec.to_dict()["name"]) for codec in getattr(array.metadata, "codecs", ())):
        return None
    counts = [range(-(-size // width)) for size, width in zip(shape, array.chunks, strict=True)]
    keys = [array.metadata.encode_chunk_key(chunk) for chunk in product(*counts)]
    missing = [key for key in keys if not (place / key).is_file()]
    return None if not missing or (unborn and missing == keys[-1:]) else missing[0]


def _refuse(_: object, message: str) -> NoReturn:
    raise RunError(message)
