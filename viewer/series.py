"""A raw series of any length as a thousand buckets: lowest, mean and highest value of each.

Bucket edges are fixed places on the axis (multiples of 1, 2 or 5 times a power of ten; equal fractions of a decade on
a logarithmic axis). They depend on the range, not on how much has arrived, so that the curve of a growing run does
not jump, and no spike is lost. NaN and infinite values are counted, never averaged.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from thermodl.record.chunk_files import UNREADABLE, open_stored, read_entries
from thermodl.record.errors import RunError
from thermodl.record.format import ARRAYS
from thermodl.record.store import read_attributes, run_folder

BUCKETS = 1000
_MANY_ROWS = {array.name for array in ARRAYS if len(array.dims) > 1}
"""arrays that are too large to be kept as a whole"""


@dataclass(frozen=True)
class Series:
    """One recorded array, clipped to what was committed."""

    values: np.ndarray
    """(..., n), the growing dimension last; NaN where a chunk cannot be read"""
    attributes: Mapping[str, Any]
    """units, long_name, long_name_zh"""
    unreadable: int = 0
    """entries of the growing dimension lost to damaged chunks"""


def read_series(folder: str | Path, name: str, row: int | None = None) -> Series | None:
    """Read one array of a run, without xarray, which takes 40 ms to open it.

    Args:
        folder: the run folder.
        name: the array, e.g. `loss`.
        row: take only this index of the first dimension.

    Returns:
        The series, or None if this run does not record it.

    Raises:
        RunError: if the run or the array's metadata cannot be read.
    """
    attributes = read_attributes(folder)
    path = run_folder(folder) / "run.zarr"
    if not (path / name / "zarr.json").exists():
        return None
    recording = attributes.get("started"), attributes.get("last_commit"), path.stat().st_ino
    read = _read if row is None and name in _MANY_ROWS else _read_once
    return read(path, name, row, tuple(attributes["committed"].items()), recording)


def _read(
    path: Path,
    name: str,
    row: int | None,
    entries: tuple[tuple[str, int], ...],
    recording: tuple[Any, ...],  # noqa: ARG001 - what tells it from another one at the same place
) -> Series:
    committed: Mapping[Any, int] = dict(entries)
    try:
        array = open_stored(path, name)
        attributes = dict(array.attrs)
        dims = array.metadata.dimension_names or (None,)  # pyright: ignore[reportAttributeAccessIssue]
    except (*UNREADABLE, KeyError, TypeError) as error:
        raise RunError(f"the array {name} of {path.parent.name} cannot be read ({type(error).__name__})") from error
    length = min(array.shape[-1], committed.get(dims[-1], array.shape[-1]))
    values, unreadable = read_entries(array, path / name, length, row)
    values.flags.writeable = False
    return Series(values, attributes, unreadable)


_read_once = lru_cache(maxsize=24)(_read)
"""for all charts and pages: a million steps take long to read"""


def edges(low: float, high: float, buckets: int = BUCKETS, log: bool = False) -> np.ndarray:
    """Bucket edges that cover [low, high], at most `buckets` + 1 of them.

    Args:
        low, high: range on the axis; positive for `log`.
        buckets: largest number of buckets.
        log: equal fractions of a decade in place of equal widths.
    """
    start, stop = (math.log10(low), math.log10(high)) if log else (low, high)
    width = _round_width((stop - start) / max(1, buckets - 2))
    first, last = math.floor(start / width), math.floor(stop / width) + 1
    places = (float(first) + np.arange(last - first + 1)) * width
    places = 10.0**places if log else places
    # Rounding may leave an end just outside.
    places[0], places[-1] = min(places[0], low), max(places[-1], np.nextafter(high, np.inf))
    return places


def _round_width(width: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `width`."""
    if not width > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width * (1 - 1e-12))


def reduce(x: np.ndarray, y: np.ndarray, places: np.ndarray) -> pd.DataFrame:
    """Lowest, mean and highest value in each bucket.

    Args:
        x: (n,) positions, ascending.
        y: (n,) values; NaN and infinite ones are counted as `missing`.
        places: (m + 1,) edges; an entry at an edge belongs to the bucket on its right.

    Returns:
        One row per bucket that holds an entry: x (middle of its entries), mean, low, high, count, missing. Count and
        missing together add up to the entries between the first and the last edge.
    """
    # A search for the few edges among the ascending x, not for a million of x among the edges.
    cuts = np.searchsorted(x, places, side="left")
    x, y, cuts = x[cuts[0] : cuts[-1]], y[cuts[0] : cuts[-1]], cuts - cuts[0]
    if not len(x):
        return pd.DataFrame({key: np.empty(0) for key in ("x", "mean", "low", "high", "count", "missing")})
    filled = np.diff(cuts) > 0
    starts, entries = cuts[:-1][filled], np.diff(cuts)[filled]
    finite = np.isfinite(y)
    whole = bool(finite.all())
    count = entries if whole else np.add.reduceat(finite.astype(int), starts)
    low = np.minimum.reduceat(y if whole else np.where(finite, y, np.inf), starts)
    high = np.maximum.reduceat(y if whole else np.where(finite, y, -np.inf), starts)
    total = np.add.reduceat(y if whole else np.where(finite, y, 0.0), starts)
    some = count > 0
    # Rounding of the sum must not push the mean out of its own band.
    mean = np.clip(total / np.maximum(count, 1), low, high, where=some, out=np.full(len(starts), np.nan))
    return pd.DataFrame(
        {
            "x": (x[starts] + x[starts + entries - 1]) / 2,
            "mean": mean,
            "low": np.where(some, low, np.nan),
            "high": np.where(some, high, np.nan),
            "count": count,
            "missing": entries - count,
        }
    )


def band(x: np.ndarray, y: np.ndarray, buckets: int = BUCKETS, log: bool = False) -> pd.DataFrame:
    """Buckets of a whole series, as `reduce`; on a logarithmic axis only entries with x > 0."""
    usable = np.isfinite(x) & (x > 0) if log else np.isfinite(x)
    if not usable.all():
        x, y = x[usable], y[usable]
    if not len(x):
        return reduce(x, y, np.array([0.0, 1.0]))
    # A clock of the wall may have been set back.
    if (x[1:] < x[:-1]).any():
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    return reduce(x, y, edges(float(x[0]), float(x[-1]), buckets, log))


def grid(x: np.ndarray, rows: np.ndarray, buckets: int = BUCKETS) -> pd.DataFrame:
    """Cells of a heat map: the mean of each row in each bucket.

    Args:
        x: (n,) positions, ascending; NaN is left out.
        rows: (m, n) values.
        buckets: largest number of buckets; fewer entries than that get a cell each, which reaches to the next one.

    Returns:
        As `reduce`, with the columns row (0 to m - 1), left and right (edges of the bucket).
    """
    usable = np.flatnonzero(np.isfinite(x))
    usable = usable[np.argsort(x[usable], kind="stable")]
    x, rows = x[usable], rows[:, usable]
    if not len(x):
        return reduce(x, x, np.array([0.0, 1.0])).assign(row=0, left=x, right=x)
    places = np.unique(x)
    last = places[-1] - places[-2] if len(places) > 1 else 1.0
    places = np.append(places, places[-1] + last)
    if len(places) > buckets + 1:
        places = edges(float(x[0]), float(x[-1]), buckets)
    parts = [reduce(x, row, places).assign(row=index) for index, row in enumerate(rows)]
    cells = pd.concat(parts, ignore_index=True)
    at = np.searchsorted(places, cells["x"].to_numpy(), side="right") - 1
    return cells.assign(left=places[at], right=places[at + 1])
