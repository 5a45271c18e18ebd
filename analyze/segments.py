"""Which steps of a run an estimate takes: the stationary segment, and the windows of curves over time."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import xarray as xr

from thermodl.record.format import MIN_STEPS, measured_stretches
from thermodl.record.words import counted

from . import series
from .quantities import correlated_steps, require, sgd_clock
from .settings import AnalysisError

_WINDOW_STEPS = 16
"""least steps of a window"""
_ELSEWHERE, _FEWEST = 5, 10
"""standard errors by which the first steps lie elsewhere, of means over so many effective samples: those of squares are
skew, and there are several"""
_UNLIKE = 10
"""factor between the errors of two halves beyond which they are not of one motion"""
_STARTS = (0, 1, 4, 8, 12, 16, 20, 24)
"""candidate starts of the stationary segment, in 32nds of the last stretch of constant hyper-parameters"""


@dataclass(frozen=True)
class Segment:
    """The steps [start, stop) that an estimate uses."""

    start: int
    stop: int
    judgement: Literal["stationary", "moved", "short", "scheduled"]
    """whether both halves agree in loss and displacement, differ, are too short to tell, or mix hyper-parameters"""
    reason: str
    reason_zh: str
    loss_z: float
    """difference of the halves' mean losses in standard errors"""
    displacement_z: float

    @property
    def stationary(self) -> bool:
        """Whether both halves agree."""
        return self.judgement == "stationary"


def stretches(run: xr.Dataset) -> list[tuple[int, int]]:
    """Stretches [start, stop) of consecutive steps of a whole run that have inner products and sketches."""
    return measured_stretches(run.attrs, run.sizes["step"])


def constant_stretches(run: xr.Dataset) -> list[tuple[int, int]]:
    """Stretches [start, stop) of steps without a change of any hyper-parameter, or of which layers are left alone."""
    rows = [np.atleast_2d(run[name].values) for name in ("learning_rate", "momentum", "dampening", "weight_decay")]
    if "layer_skipped" in run:
        rows.append(run["layer_skipped"].values == 1)
    steps = np.diff(np.concatenate(rows), axis=-1)
    changed = np.any((steps != 0) & ~np.isnan(steps), axis=0)
    edges = [0, *(np.flatnonzero(changed) + 1).tolist(), run.sizes["step"]]
    return list(pairwise(edges))


def choose_segment(run: xr.Dataset, request: str) -> Segment:
    """The segment that a setting asks for.

    `auto` takes the last stretch of constant hyper-parameters that is at least half of what was recorded from its
    start on, and the earliest start in it from which both halves agree in loss and squared displacement within three
    standard errors (Geweke 1992), and loss and ‖θ‖² do not begin elsewhere; if there is none, the last half, marked as
    not stationary. Under a schedule that leaves no such stretch it is the last half of the run, marked as mixed.
    `start:stop` is taken as it is, and tested likewise. Where inner products were not taken at every step, the last
    stretch of consecutive ones, at least half as long as the longest, stands for the run.

    Raises:
        AnalysisError: if the run or the segment is too short, the segment lies outside or has steps without inner
            products, or the training diverged in it.
    """
    require(run, "displacement_squared")
    steps, parts = run.sizes["step"], stretches(run)
    if steps < MIN_STEPS:
        raise AnalysisError(f"the run has {counted(steps, 'committed step')}; at least {MIN_STEPS} are needed")
    longest = max((stop - start for start, stop in parts), default=0)
    if longest < MIN_STEPS:
        raise AnalysisError(
            f"inner products were taken at {longest} consecutive steps at most (products_every is "
            f"{_cadence(run)!r}), at least {MIN_STEPS} are needed; record with a "
            "products_every of 1, or such as burst:500/5000"
        )
    names = ("loss", "displacement_squared", "parameter_squared", "learning_rate", "momentum", "dampening")
    names += ("weight_decay", "layer_skipped")
    run = run[[name for name in names if name in run]].compute()
    if request != "auto":
        start, stop = (int(number) for number in request.split(":"))
        if stop > steps:
            raise AnalysisError(
                f"segment {request} ends after the last of {steps} steps; expected one within 0:{steps}"
            )
        if stop - start < MIN_STEPS:
            raise AnalysisError(f"segment {request} holds {stop - start} steps; expected at least {MIN_STEPS}")
        if not any(first <= start and stop <= last for first, last in parts):
            overlap, first, last = max((min(stop, last) - max(start, first), first, last) for first, last in parts)
            first, last = (max(start, first), min(stop, last)) if overlap >= MIN_STEPS else (max(1, first), last)
            if last - first < MIN_STEPS:
                first, last = max(parts, key=lambda part: part[1] - part[0])
            raise AnalysisError(
                f"segment {request} holds steps without inner products (products_every is "
                f"{_cadence(run)!r}); expected consecutive ones that have them, such as "
                f"{first}:{last}"
            )
        _refuse_divergence(run, start, stop)
        return judge_segment(run, start, stop)
    _refuse_divergence(run, 0, steps)
    first, last = [part for part in parts if part[1] - part[0] >= max(MIN_STEPS, longest / 2)][-1]
    constant = [
        (first + start, first + stop)
        for start, stop in constant_stretches(run.isel(step=slice(first, last)))
        if stop - start >= MIN_STEPS and 2 * (stop - start) >= last - first - start
    ]
    start, stop = constant[-1] if constant else (first, last)
    # torch leaves out the dampening at the first step; it also carries the unmoved starting point.
    start = max(start, 1)
    candidates = [start + (stop - start) * part // 32 for part in _STARTS]
    for candidate in candidates:
        if stop - candidate >= MIN_STEPS:
            segment = judge_segment(run, candidate, stop)
            if segment.stationary:
                return segment
    return judge_segment(run, max(start, stop - max((stop - start) // 2, MIN_STEPS)), stop)


def _cadence(run: xr.Dataset) -> Any:
    """When inner products were taken, in the words of the recorder's settings."""
    return run.attrs.get("recorder", {}).get("products_every", 1)


def _refuse_divergence(run: xr.Dataset, start: int, stop: int) -> None:
    moved, parts = run["displacement_squared"].sum("layer", skipna=False).values, stretches(run)
    due = np.concatenate([np.arange(max(start, first), min(stop, last)) for first, last in parts])
    lost = due[~np.isfinite(moved[due])]
    if lost.size:
        first = int(lost[0])
        # The last step before has no finite end point.
        pieces = [(max(1, begin), min(end, first - 1)) for begin, end in parts]
        before = [f"{begin}:{end}" for begin, end in pieces if end - begin >= MIN_STEPS]
        rest = f"; --segment {before[-1]} takes what was before" if before else ""
        raise AnalysisError(f"the training diverged: parameters are not finite from step {first} on{rest}")


def judge_segment(run: xr.Dataset, start: int, stop: int) -> Segment:
    """Whether steps [start, stop) look stationary: hyper-parameters that stay, and halves that agree."""
    part = run.isel(step=slice(start, stop))
    memory = correlated_steps(part)
    scores = {"loss": float("nan"), "displacement": _split_half(part["displacement_squared"].sum("layer"), memory)}
    if "loss" in part and bool(np.isfinite(part["loss"]).any()):
        scores["loss"] = _split_half(part["loss"], memory)
    tested = scores if "loss" in part else {"displacement": scores["displacement"]}
    moved = [name for name, z in tested.items() if abs(z) >= 3]
    begun = _what_begins_elsewhere(part, memory)
    open_ = [name for name, z in tested.items() if np.isnan(z)]
    if len(constant_stretches(part)) > 1:
        found = ("scheduled", "a hyper-parameter changes within the segment", "区间内有超参数变化")
        if "layer_skipped" in part and bool((part["layer_skipped"] == 1).any()):
            found = (
                "scheduled",
                "within the segment a hyper-parameter changes, or layers without a gradient are left alone at times",
                "区间内有超参数变化，或有的层在部分步中没有梯度、未被更新",
            )
    elif moved:
        found = ("moved", f"the two halves differ in {_list(moved)}", f"前后两半的{_list_zh(moved)}不一致")
    elif begun:
        found = (
            "moved",
            f"it begins with other values of {_list(begun)} than its second half has",
            f"开头的{_list_zh(begun)}与后一半不一致",
        )
    elif open_:
        found = (
            "short",
            f"too short to tell, a half holds fewer than ten correlation times of {_list(open_)}",
            f"太短而无法判断，每半不足十个{_list_zh(open_)}的相关时间",
        )
    else:
        found = ("stationary", "both halves agree", "前后两半一致")
    return Segment(start, stop, *found, scores["loss"], scores["displacement"])


def _list(names: list[str]) -> str:
    return " and ".join(f"the {name}" for name in names)


def _list_zh(names: list[str]) -> str:
    return "与".join({"loss": "损失", "displacement": "位移", "parameter norm": "参数范数"}[name] for name in names)


def _what_begins_elsewhere(part: xr.Dataset, memory: int) -> list[str]:
    """Of loss and ‖θ‖² those that begin with other values than the second half has; a displacement begins at 0."""
    series_of = {}
    if "loss" in part:
        series_of["loss"] = part["loss"].values
    if "parameter_squared" in part:
        series_of["parameter norm"] = part["parameter_squared"].sum("layer", skipna=False).values
    return [name for name, values in series_of.items() if abs(_begins_elsewhere(values, memory)) >= _ELSEWHERE]


@np.errstate(over="ignore", invalid="ignore")
def _begins_elsewhere(values: np.ndarray, memory: int) -> float:
    """How far means over the first steps lie from that of the second half, at most, in their standard errors there.

    Over half of a segment a short transient is a small part of the mean, and widens its error. Over 2^n steps of ten
    effective samples or more it is not, with errors from the second half, which it has not touched.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    early, late = np.split(values, [len(values) // 2])
    mean, error, samples = series.mean_and_error(late, memory=memory)
    if not (samples >= _FEWEST and error > 0):
        return 0.0
    counts = 2 ** np.arange(4, int(np.log2(max(len(early), 16))) + 1)
    counts = counts[(counts >= _FEWEST * len(late) / samples) & (counts <= len(early))]
    starts = np.cumsum(early)[counts - 1] / counts
    scores = (starts - mean) / (error * np.sqrt(1 + len(late) / counts))
    return float(scores[np.argmax(np.abs(scores))]) if len(scores) else 0.0


def _split_half(data: xr.DataArray, memory: int) -> float:
    """Difference of the halves' means in standard errors; NaN where a half has under ten effective samples.

    Errors that differ by a factor of ten are those of no common motion, and the smaller one counts: what explodes, or
    holds a value far from all others, has an error as large as its mean, and would agree with anything.
    """
    values = np.asarray(data.values, dtype=float)
    values = values[np.isfinite(values)]
    half = len(values) // 2
    (early, early_error, early_n), (late, late_error, late_n) = (
        series.mean_and_error(part, memory=memory) for part in (values[:half], values[half:])
    )
    if min(early_n, late_n) < 10:
        return float("nan")
    if not np.isfinite([early_error, late_error]).all():
        # Squares of the largest numbers overflow.
        return np.inf
    least, most = sorted((float(early_error), float(late_error)))
    spread = np.sqrt(2) * least if most > _UNLIKE * least else np.hypot(least, most)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.divide(late - early, spread)
    # Of two halves that are one and the same constant.
    return 0.0 if np.isnan(z) else float(z)


def within(run: xr.Dataset, segment: Segment) -> xr.Dataset:
    """The run's steps, probes, curvatures and single samples inside a segment, but for probes without a finite loss."""
    part = run.isel(step=slice(segment.start, segment.stop))
    for dim in ("probe", "curvature", "per_sample"):
        if f"{dim}_step" in run:
            steps = run[f"{dim}_step"].values
            inside = (steps >= segment.start) & (steps < segment.stop)
            if dim == "probe" and "probe_loss" in run:
                inside &= np.isfinite(run["probe_loss"].values)
            part = part.isel({dim: np.flatnonzero(inside)})
    return part


def split_windows(parts: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """At most `count` windows of at least 16 steps within parts [start, stop) of a run, about equal in each.

    Of more parts than that, some are chosen evenly; those that are too short are left out.
    """
    parts = _spread([part for part in parts if part[1] - part[0] >= _WINDOW_STEPS] or parts, count)
    windows = []
    for start, stop in parts:
        pieces = int(np.clip((stop - start) // _WINDOW_STEPS, 1, count // len(parts)))
        windows += pairwise(np.linspace(start, stop, pieces + 1).round().astype(int).tolist())
    return windows


def matching_windows(run: xr.Dataset, count: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The same windows in steps and in probes, so that curves of both can be compared point by point.

    At least eight probes fall into each where there are so many; without probes the second list is empty. The first
    step, with the parameters unmoved and no velocity yet, is left out. No window reaches over steps without inner
    products; of more stretches of consecutive steps than windows some are chosen evenly.
    """
    parts = [(max(1, start), stop) for start, stop in stretches(run) if stop - start >= _WINDOW_STEPS]
    if not run.sizes.get("probe"):
        return split_windows(parts, count), []
    parts, probe_step = _spread(parts, count), run["probe_step"].values
    in_steps, in_probes = [], []
    for start, stop in parts:
        # A probe before the first step that counts has that step's window.
        first, last = np.searchsorted(probe_step, (0 if start == 1 else start, stop)).tolist()
        pieces = int(np.clip((last - first) // 8, 1, count // len(parts)))
        edges = np.linspace(first, last, pieces + 1).round().astype(int).tolist()
        begins = [max(start, int(probe_step[edge])) for edge in edges[:-1]] if first < last else [start]
        in_steps += pairwise([*begins, stop])
        in_probes += pairwise(edges)
    return in_steps, in_probes


def _spread(parts: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """All of them, or `count` that are chosen evenly."""
    if len(parts) <= count:
        return parts
    return [parts[index] for index in np.linspace(0, len(parts) - 1, count).round().astype(int)]


def window_coordinates(run: xr.Dataset, bounds: list[tuple[int, int]]) -> dict[str, Any]:
    """Coordinates `window_step` and `window_sgd_time` of windows given in steps."""
    centres = np.array([(start + stop - 1) // 2 for start, stop in bounds])
    return {"window_step": ("window", centres), "window_sgd_time": ("window", sgd_clock(run)[centres])}
