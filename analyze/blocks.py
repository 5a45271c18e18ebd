"""Sums over the coordinates of sketches, block by block, of each group and of all together.

What a sketch tells of a group is a sum over its coordinates, Σ_c f(x_c) of whole time series x_c, that of all groups
the sum of theirs. A block of coordinates is read, added up and forgotten, and of a group nothing is kept but the
estimates that are made of its sums: it takes the memory of a few blocks and sums, however many groups there are. Blocks
and the order of the sums follow from the shape of the recording alone, so that the digits are the same on any number of
threads, on a cluster, and for arrays in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from thermodl.record.store import features_per_block

from . import errorbar
from .quantities import group_names

Sums = tuple[np.ndarray, ...]
Found = Mapping[str, Any]
"""arrays, or estimates of a value with its error and effective samples, by name"""


def over_groups(
    add: Callable[..., Sums], finish: Callable[..., Found], sketches: Sequence[xr.DataArray]
) -> dict[str, np.ndarray]:
    """Estimates of all groups together and of each, from sums over coordinates; computed where analyses are.

    Args:
        add: called with the index of a group and a block of each sketch, (coordinate, …); arrays that are to be summed.
        finish: called with the index of a row, 0 for all groups and 1 + g for group g, and the sums; arrays, or
            tuples of such, by name.
        sketches: (group, sketch, …) each, the first over time; or (group, …), of which every block gets all.

    Returns:
        The arrays with the rows as their first dimension, and the parts of a tuple as their second.
    """
    if not any(values.chunks for values in sketches):
        return _over_groups(lambda function: function, add, finish, sketches)
    return compute(_over_groups(delayed, add, finish, sketches))[0]


def each(*names: str) -> Callable[..., Found]:
    """A `finish` that gives the sums as they are, under these names."""
    return lambda _, *sums: dict(zip(names, sums, strict=True))


def labelled(values: np.ndarray, run: xr.Dataset, *dims: str) -> xr.DataArray:
    """What `over_groups` gives under a name, with its dimensions: `group` and as many of the others as it has."""
    return xr.DataArray(values, dims=("group", *dims)[: values.ndim], coords={"group": group_names(run)})


def as_estimate(values: np.ndarray, run: xr.Dataset, *dims: str) -> errorbar.Estimate:
    """The same of value, standard error and effective samples, which are in the second dimension."""
    value, error, samples = (labelled(values[:, part], run, *dims) for part in range(3))
    return value, error, samples


def _over_groups(
    call: Callable[..., Any],
    add: Callable[..., Sums],
    finish: Callable[..., Found],
    sketches: Sequence[xr.DataArray],
) -> Any:
    plus, close, collect, stack = (call(function) for function in (_plus, _close, _collect, _stack))
    width = features_per_block(sketches[0].sizes["step"])
    state = None
    for group in range(sketches[0].sizes["group"]):
        sums = None
        for start in range(0, sketches[0].sizes["sketch"], width):
            where = {"group": group, "sketch": slice(start, start + width)}
            blocks = (values.isel(where, missing_dims="ignore") for values in sketches)
            part = call(add)(group, *(block.transpose("sketch", ..., missing_dims="ignore").data for block in blocks))
            sums = part if sums is None else plus(sums, part)
        # One after the other, so that no sums wait for those of all groups to be made.
        state = collect(state, close(finish, 1 + group, sums))
    return stack(finish, state)


def _plus(left: Sums, right: Sums) -> Sums:
    return tuple(one + other for one, other in zip(left, right, strict=True))


def _close(finish: Callable[..., Found], row: int, sums: Sums) -> tuple[Sums, list[Found]]:
    return sums, [finish(row, *sums)]


def _collect(state: tuple[Sums, list[Found]] | None, closed: tuple[Sums, list[Found]]) -> tuple[Sums, list[Found]]:
    return closed if state is None else (_plus(state[0], closed[0]), state[1] + closed[1])


def _stack(finish: Callable[..., Found], state: tuple[Sums, list[Found]]) -> dict[str, np.ndarray]:
    sums, groups = state
    rows = [finish(0, *sums), *groups]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
