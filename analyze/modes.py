"""Principal directions of the motion seen through the sketch, of each group and of all groups together.

Those of all groups are principal directions of what each group shows in its own: of more groups than there are
directions worth to follow, the sketches side by side would be large, and tell no more.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
) -> list[Motion]:
    """All groups together, then each, along at most `count` directions of largest variance.

    Args:
        positions: (group, sketch, step). others: (group, sketch, …), by what they are called then not looked at.
        chosen: the steps from which directions are chosen; all if None.
    """
    own, span = [], chosen or slice(None)
    for group in range(positions.sizes["group"]):
        moved, *rest = (_of_group(data, group) for data in (positions, *others))
        directions, _ = principal_directions(moved[:, span], count)
        along = [directions.T @ values for values in (moved, *rest)]
        own.append(Motion(along[0], along[1:], float(moved[:, span].var(-1).sum())))
    stacked = [np.concatenate(parts) for parts in zip(*([one.positions, *one.others] for one in own), strict=True)]
    directions, _ = principal_directions(stacked[0][:, span], count)
    along = [directions.T @ values for values in stacked]
    return [Motion(along[0], along[1:], sum(one.variance for one in own)), *own]


def principal_directions(positions: Floats, count: int) -> tuple[Floats, Floats]:
    """Up to `count` directions of largest variance and their variances; fewer where fewer are moved along.

    Args:
        positions: (coordinate, N); where they are not finite there are no directions.

    Returns:
        (coordinate, d) and (d,).
    """
    if not positions.size or not np.isfinite(positions).all():
        return np.zeros((len(positions), 0)), np.zeros(0)
    centred = positions - positions.mean(-1, keepdims=True)
    variances, directions = np.linalg.eigh(centred @ centred.T / positions.shape[1])
    variances, directions = variances[::-1][:count], directions[:, ::-1][:, :count]
    moved = variances > 1e-10 * max(variances[0], 1e-300)
    return directions[:, moved].astype(np.float64), variances[moved].astype(np.float64)


def _of_group(data: xr.DataArray, group: int) -> Floats:
    return data.isel(group=group).transpose("sketch", ...).values.astype(float)
