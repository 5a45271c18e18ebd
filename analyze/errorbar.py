"""The kernels of `series` on labelled arrays: the only place where names of dimensions meet numpy."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from . import series

Estimate = tuple[xr.DataArray, xr.DataArray, xr.DataArray]
"""value, standard error, effective samples"""


def mean_with_error(
    data: xr.DataArray, dim: str, memory: int = 0, per_step: float = 1.0, shape: xr.DataArray | None = None
) -> Estimate:
    """Mean over a time dimension with its error; `memory`, `per_step` and `shape` are as of the kernel; lazy."""
    kernel = partial(series.mean_and_error, memory=memory, per_step=per_step)
    return _apply(kernel, [data] if shape is None else [data, shape], dim)


def ratio_with_error(numerator: xr.DataArray, denominator: xr.DataArray, dim: str, memory: int = 0) -> Estimate:
    """Ratio of means over a time dimension with its error; lazy."""
    numerator, denominator = xr.broadcast(numerator, denominator)
    return _apply(partial(series.ratio_and_error, memory=memory), [numerator, denominator], dim)


def telescoping_ratio_with_error(left: xr.DataArray, right: xr.DataArray, dim: str) -> Estimate:
    """Ratio of means over a time dimension of series whose difference telescopes, with its error; lazy."""
    return _apply(series.telescoping_ratio_and_error, [*xr.broadcast(left, right)], dim)


def window_means(
    data: xr.DataArray,
    dim: str,
    bounds: Sequence[tuple[int, int]],
    memory: int = 0,
    per_step: float = 1.0,
    shape: xr.DataArray | None = None,
) -> Estimate:
    """Means over windows [start, stop) of a time dimension, along a new last dimension `window`; lazy."""
    kernel = partial(series.mean_and_error, memory=memory, per_step=per_step)
    return _apply_windows(kernel, [data] if shape is None else [data, shape], dim, bounds)


def window_ratios(
    numerator: xr.DataArray, denominator: xr.DataArray, dim: str, bounds: Sequence[tuple[int, int]], memory: int = 0
) -> Estimate:
    """Ratios of means over windows, along a new last dimension `window`; lazy."""
    kernel = partial(series.ratio_and_error, memory=memory)
    return _apply_windows(kernel, [*xr.broadcast(numerator, denominator)], dim, bounds)


def window_telescoping_ratios(
    left: xr.DataArray, right: xr.DataArray, dim: str, bounds: Sequence[tuple[int, int]]
) -> Estimate:
    """The same over windows, along a new last dimension `window`; lazy."""
    return _apply_windows(series.telescoping_ratio_and_error, [*xr.broadcast(left, right)], dim, bounds)


def scale(estimate: Estimate, factor: Any) -> Estimate:
    """The estimate times a constant or a labelled array of constants."""
    value, error, n_eff = estimate
    return value * factor, error * abs(factor), n_eff


def quotient(left: Estimate, right: Estimate) -> Estimate:
    """left/right of independent estimates, errors to first order; NaN where right is 0."""
    bottom = right[0].where(right[0] != 0)
    value = left[0] / bottom
    error = ((left[1] / bottom) ** 2 + (value * right[1] / bottom) ** 2) ** 0.5
    return value, error, left[2].where(left[2] < right[2], right[2])


def named(
    name: str, estimate: Estimate, units: str, long_name: str, long_name_zh: str, *, samples: bool = True
) -> dict[str, xr.DataArray]:
    """The variables `name`, `name_stderr` and, unless `samples` is false, `name_n_eff`, with their attributes."""
    value, error, n_eff = estimate
    text = {"units": units, "long_name": long_name, "long_name_zh": long_name_zh}
    ancillary = {"ancillary_variables": f"{name}_stderr {name}_n_eff" if samples else f"{name}_stderr"}
    of_error = {
        "units": units,
        "long_name": f"standard error of {long_name}",
        "long_name_zh": f"{long_name_zh}的标准误差",
    }
    of_samples = {
        "units": "1",
        "long_name": f"effective samples of {long_name}",
        "long_name_zh": f"{long_name_zh}的有效样本数",
    }
    variables = {name: value.assign_attrs(text | ancillary), f"{name}_stderr": error.assign_attrs(of_error)}
    return variables | ({f"{name}_n_eff": n_eff.assign_attrs(of_samples)} if samples else {})


def _apply(kernel: Callable[..., Any], arrays: list[xr.DataArray], dim: str) -> Estimate:
    return xr.apply_ufunc(
        kernel,
        *_whole(arrays, dim),
        input_core_dims=[[dim]] * len(arrays),
        output_core_dims=[[], [], []],
        dask="parallelized",
        output_dtypes=[float] * 3,
    )


def _apply_windows(
    kernel: Callable[..., Any], arrays: list[xr.DataArray], dim: str, bounds: Sequence[tuple[int, int]]
) -> Estimate:
    def over_windows(*values: np.ndarray) -> tuple[np.ndarray, ...]:
        parts = [kernel(*(value[..., start:stop] for value in values)) for start, stop in bounds]
        return tuple(np.stack(column, axis=-1) for column in zip(*parts, strict=True))

    return xr.apply_ufunc(
        over_windows,
        *_whole(arrays, dim),
        input_core_dims=[[dim]] * len(arrays),
        output_core_dims=[["window"]] * 3,
        dask="parallelized",
        output_dtypes=[float] * 3,
        dask_gufunc_kwargs={"output_sizes": {"window": len(bounds)}},
    )


def _whole(arrays: list[xr.DataArray], dim: str) -> list[xr.DataArray]:
    """A time series must lie in one chunk; indexing by probes or layers may have cut it. Dask makes none of size 0."""
    return [array.chunk({dim: -1}) if array.sizes[dim] else array.compute() for array in arrays]
