"""Where the entries of a recording lie on each time axis, and which of them an interval of steps holds.

A run has several clocks: its steps, the SGD time that the recorder summed, epochs, seconds. Each is an array of the
recording, looked up at the steps in question; nothing is computed that was not recorded. Noise time is what the
analysis of ageing made of the probes, on straight lines between the steps that it gives. The interval on display is one
of steps whatever the axis, so that it stays the same stretch of training when the axis changes.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from thermodl.analyze.results import ResultsError, list_settings_names, open_result, read_result_attributes
from thermodl.analyze.versions import find_changes
from thermodl.record.format import growing_dimension
from thermodl.record.store import read_attributes

from .series import Series, read_series
from .state import AXES, ViewState
from .text import Text

NAMES = {
    "step": Text("optimizer step", "优化步"),
    "sgd_time": Text("SGD time", "SGD 时间"),
    "epoch": Text("epoch", "轮次"),
    "wall_time": Text("wall time", "实际时间"),
    "noise_time": Text("noise time", "噪声时间"),
}
NOT_RECORDED = Text("not recorded in this run", "这个实验没有记录")
NO_NOISE_TIME = Text(
    "it comes out of the analysis of ageing, and needs SGD with at least eight probes",
    "它由老化分析得到，须用 SGD 训练，且至少有八次探针测量",
)


class Clock(NamedTuple):
    """The entries of one growing dimension: their steps, and their places on the axis."""

    steps: np.ndarray
    x: np.ndarray
    attributes: Mapping[str, Any]
    """units, long_name, long_name_zh of the axis"""
    unreadable: int

    def inside(self, state: ViewState) -> np.ndarray:
        """Which entries the interval on display holds."""
        return inside(self.steps, state)


def inside(steps: np.ndarray, state: ViewState) -> np.ndarray:
    """Which of these steps the interval on display holds."""
    if state.interval is None:
        return np.ones(len(steps), bool)
    first, last = state.interval
    return (steps >= first) & (steps <= last)


def on_offer(run: Path) -> tuple[str, ...]:
    """The axes that a run has recorded; `step` always.

    Raises:
        RunError: if the recording cannot be read.
    """
    clocks = {axis: read_axis(run, axis) for axis in AXES[1:]}
    found = [axis for axis, clock in clocks.items() if clock is not None and np.isfinite(clock.values).any()]
    return ("step", *found)


def read_axis(run: Path, axis: str) -> Series | None:
    """The place of every step on an axis; None if it was not recorded.

    Raises:
        RunError: if the recording cannot be read.
    """
    if axis == "noise_time":
        return _noise_time(run)
    clock = read_series(run, axis)
    if clock is None or axis != "epoch":
        return clock
    # Steps that say nothing of their epoch have -1; how far within it a step lies is recorded apart.
    values = np.where(clock.values >= 0, clock.values, np.nan)
    within = read_series(run, "epoch_position")
    if within is not None and len(within.values) == len(values):
        values = values + np.nan_to_num(within.values)
    return Series(values, clock.attributes, clock.unreadable)


def _noise_time(run: Path) -> Series | None:
    """From the first results of this recording that hold it; NaN at steps that they do not cover.

    It depends on nothing but the recording, so that it does not matter under which name it was made.
    """
    for name in list_settings_names(run):
        stored = read_result_attributes(run, name).get("ageing", {})
        if not stored or "other-recording" in find_changes(read_attributes(run), stored):
            continue
        try:
            known, recorded = _open_noise_time(run, name, str(stored.get("digest"))), read_series(run, "step")
        except ResultsError:  # which the page on ageing says
            continue
        if known is not None and recorded is not None:
            values = np.interp(recorded.values, known["clock_step"].values, known.values, left=np.nan, right=np.nan)
            return Series(values, known.attrs)
    return None


@lru_cache(maxsize=64)
def _open_noise_time(run: Path, name: str, digest: str) -> xr.DataArray | None:  # noqa: ARG001 - the cache key
    """Opened once for all charts of a page: it takes ten times as long as an array of the recording.

    Raises:
        ResultsError: which is not kept, for the next look may find what was being written at this one.
    """
    return open_result(run, name, "ageing").get("noise_time")


def places(run: Path, axis: str, steps: np.ndarray) -> np.ndarray | None:
    """Where steps lie on an axis; None if it was not recorded. One after the last recorded step gets the last place.

    Raises:
        RunError: if the recording cannot be read.
    """
    if axis == "step":
        return np.asarray(steps, float)
    recorded, clock = read_series(run, "step"), read_axis(run, axis)
    if recorded is None or clock is None or not len(clock.values):
        return None
    at = np.searchsorted(recorded.values, steps)
    return clock.values[np.clip(at, 0, len(clock.values) - 1)]


def clock_of(run: Path, name: str, axis: str) -> Clock | None:
    """The clock of a recorded array: each step, or the steps of its probes or evaluations; None if there is none.

    Raises:
        RunError: if the recording cannot be read.
    """
    dim = growing_dimension(name) or "step"
    steps, clock = read_series(run, "step" if dim == "step" else f"{dim}_step"), read_axis(run, axis)
    if steps is None or clock is None or not len(clock.values):
        return None
    x = clock.values if dim == "step" else places(run, axis, steps.values)
    if x is None:
        return None
    n = min(len(steps.values), len(x))
    return Clock(steps.values[:n], x[:n], clock.attributes, clock.unreadable)


def steps_between(clock: Clock, low: float, high: float) -> tuple[int, int] | None:
    """First and last step between two places on the axis; None if there are not two."""
    found = clock.steps[(clock.x >= low) & (clock.x <= high)]
    return (int(found.min()), int(found.max())) if len(found) > 1 else None
