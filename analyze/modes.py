"""Principal directions of the motion seen through the sketch, of each group and of all groups together.

Those of all groups are principal directions of what each group shows in its own, at some thousand steps: of more groups
than there are directions worth to follow, the sketches side by side would be large, and tell no more.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from thermodl.record.store import features_per_block

Floats = NDArray[np.float64]
_STEPS = 4096
"""that are worked on at a time, so that no long series is held twice"""
_CHOSEN = 2**14
"""steps, evenly spaced, from which the directions of all groups are chosen at most"""


class Motion(NamedTuple):
    """What a group does along its principal directions."""

    positions: Floats
    """(d, N) of every step"""
    others: list[Floats]
    """the other arrays along the same directions, (d, …) each"""
    variance: float
    """of all coordinates in the steps that the directions were chosen from"""


def principal_motions(
    positions: xr.DataArray, count: int, others: Sequence[xr.DataArray] = (), chosen: slice | None = None
) -> Iterator[Motion]:
    """Each group, then all together, along at most `count` directions of largest variance, one at a time.

    Args:
        positions: (group, sketch, step). others: (group, sketch, …), by what they are called then not looked at.
        chosen: the steps from which directions are chosen; all if None.
    """
    groups, span = range(positions.sizes["group"]), chosen or slice(None)
    every = slice(span.start, span.stop, -(-len(range(positions.sizes["step"])[span]) // _CHOSEN))
    own: list[Floats] = []
    stacked, variances = [], []
    for group in groups:
        moved = _of_group(positions, group)
        directions, _ = principal_directions(moved[:, span], count)
        along, variance = _project(directions, moved), float(sum(row[span].var() for row in moved))
        del moved  # before the others are read
        yield Motion(along, [_project(directions, _of_group(data, group)) for data in others], variance)
        own.append(directions)
        stacked.append(along[:, every].copy())
        variances.append(variance)
    directions, _ = principal_directions(np.concatenate(stacked), count)
    parts = np.split(directions, np.cumsum([one.shape[1] for one in own])[:-1])
    # Read once more, rather than kept of all groups.
    shares = [one @ part for one, part in zip(own, parts, strict=True)]
    rest = [
        reduce(np.add, (_project(share, _of_group(data, group)) for group, share in enumerate(shares)))
        for data in (positions, *others)
    ]
    yield Motion(rest[0], rest[1:], sum(variances))


def principal_directions(positions: Floats, count: int) -> tuple[Floats, Floats]:
    """Up to `count` directions of largest variance and their variances; fewer where fewer are moved along.

    Args:
        positions: (coordinate, N); where they are not finite there are no directions.

    Returns:
        (coordinate, d) and (d,).
    """
    if not positions.size or not np.isfinite(positions).all():
        return np.zeros((len(positions), 0)), np.zeros(0)
    mean, products = positions.mean(-1, keepdims=True), np.zeros((len(positions), len(positions)))
    for start in range(0, positions.shape[1], _STEPS):
        centred = positions[:, start : start + _STEPS] - mean
        products += centred @ centred.T
    variances, directions = np.linalg.eigh(products / positions.shape[1])
    variances, directions = variances[::-1][:count], directions[:, ::-1][:, :count]
    moved = variances > 1e-10 * max(variances[0], 1e-300)
    return directions[:, moved].astype(np.float64), variances[moved].astype(np.float64)


def _project(directions: Floats, values: np.ndarray) -> Floats:
    """Values (coordinate, N) of any floating type along directions (coordinate, d), (d, N)."""
    parts = [directions.T @ values[:, start : start + _STEPS] for start in range(0, values.shape[1], _STEPS)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((directions.shape[1], 0))


def _of_group(data: xr.DataArray, group: int) -> np.ndarray:
    """(coordinate, …), read in blocks of coordinates so that it is not held twice."""
    data = data.isel(group=group).transpose("sketch", ...)
    values = np.empty(data.shape, data.dtype)
    width = features_per_block(data.shape[1])
    for start in range(0, len(values), width):
        values[start : start + width] = data.isel(sketch=slice(start, start + width)).values
    return values
