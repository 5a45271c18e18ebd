"""What several analyses need of a run: hyper-parameters per layer, sums per group, segments and windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import xarray as xr

from thermodl.record.format import ALL_GROUPS, measured_stretches, steps_as_sgd

from . import series
from .dimensions import effective_dimension
from .settings import AnalysisError

MIN_STEPS = 64
_MANY = 2**20
"""numbers beyond which arrays are made when they are needed"""
_DISPLACEMENTS = 256
"""that tell how many directions they fill"""
_WINDOW_STEPS = 16
"""least steps of a window"""
_STARTS = (0, 1, 2, 3, 4, 5, 6)
"""candidate starts of the stationary segment, in eighths of the last stretch of constant hyper-parameters"""


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


def is_sgd(run: xr.Dataset) -> bool:
    """Whether the formulas of SGD with momentum apply."""
    return steps_as_sgd(run.attrs)


def is_nesterov(run: xr.Dataset) -> bool:
    """Whether the update looks ahead, which makes the effective temperature depend on frequency."""
    return bool(run.attrs["optimizer"]["nesterov"])


def hyperparameters(run: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Learning rate η, momentum μ and dampening ν, each (layer, step); ν is 0 where torch ignores it (μ = 0)."""
    of_layer = run["layer_optimizer_group"].drop_vars(["layer_group", "layer_size", "layer_optimizer_group"])
    few = run[["learning_rate", "momentum", "dampening"]]
    # Repeated for every layer they may be large, and are not to be held by all that is made of them.
    few = few.chunk() if of_layer.size * run.sizes["step"] > _MANY else few
    eta, mu, nu = (few[name].isel(optimizer_group=of_layer) for name in few)
    return eta, mu, xr.where(mu == 0, 0.0, nu)


def group_hyperparameters(run: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """η, μ and ν of the model's groups, each (group, step); NaN where the layers of a group differ in any of them."""
    of_layer, layer_group = run["layer_optimizer_group"].values, run["layer_group"].values
    rows = [np.unique(of_layer[layer_group == name]) for name in run["group"].values]
    # Filled up with the first of each, which changes neither the least nor the greatest.
    most = max(len(row) for row in rows)
    filled = np.array([np.concatenate([row, np.repeat(row[:1], most - len(row))]) for row in rows])
    members = xr.DataArray(filled, dims=("group", "member"))
    eta, mu, nu = (run[name].isel(optimizer_group=members) for name in ("learning_rate", "momentum", "dampening"))

    def shared(data: xr.DataArray) -> xr.DataArray:
        least = data.min("member", skipna=False)
        return least.where(least == data.max("member", skipna=False)).drop_vars("step", errors="ignore")

    eta, mu, nu = shared(eta), shared(mu), shared(xr.where(mu == 0, 0.0, nu))
    defined = eta.notnull() & mu.notnull() & nu.notnull()
    return eta.where(defined), mu.where(defined), nu.where(defined)


def group_mobility(run: xr.Dataset) -> xr.DataArray:
    """SGD time per step η(1−ν)/(1−μ) of the model's groups, its mean over the steps, (group,)."""
    eta, mu, nu = group_hyperparameters(run)
    return (eta * (1 - nu) / (1 - mu)).mean("step", skipna=False)


def velocity_memory(run: xr.Dataset) -> float:
    """1/(1−μ), steps by which the autocorrelation of the velocity falls to 1/e; of the largest momentum there is.

    NaN where the optimizer does not say its momentum.
    """
    momentum = run["momentum"].values
    # Rounded, so that 5/(1 − 0.9) is 50 and not 51 steps.
    return round(float(1 / (1 - np.nanmax(momentum))), 9) if np.isfinite(momentum).any() else float("nan")


def correlated_steps(run: xr.Dataset) -> int:
    """Steps over which the velocity forgets itself to 5 %, which an error bar is not to leave out; 0 if not known."""
    memory = velocity_memory(run)
    return 0 if np.isnan(memory) else int(np.ceil(3 * memory))


def correlated_probes(run: xr.Dataset) -> int:
    """The same in probes, whose gradients share where the parameters are; 0 where probes are farther apart."""
    at = run["probe_step"].values
    return int(correlated_steps(run) / max(1.0, float(np.median(np.diff(at))))) if len(at) > 1 else 0


def velocity_samples(run: xr.Dataset) -> float:
    """Effective samples of a squared velocity that a step holds, 1−μ to a fifth; 1 where no momentum is known.

    In free motion v² is correlated by μ^(2|t|), and a step holds 1/(2τ_int) = (1−μ²)/(1+μ²), a little more. In confined
    motion the correlation swings, and the Γ-method, which sums it to where it seems to end, sees more than there are.
    """
    memory = velocity_memory(run)
    return 1.0 if np.isnan(memory) else 1 / memory


def sgd_time_per_step(run: xr.Dataset) -> float:
    """Mean advance of the run's clock of SGD time, which is that of the first optimizer group; NaN if it has none."""
    clock = _sgd_time(run)
    return float((clock[-1] - clock[0]) / (len(clock) - 1))


def _sgd_time(run: xr.Dataset) -> np.ndarray:
    """The clock at each step; NaN for any optimizer but SGD, of which early recordings summed the learning rates."""
    return run["sgd_time"].values if is_sgd(run) and "sgd_time" in run else np.full(run.sizes["step"], np.nan)


def next_velocity_squared(run: xr.Dataset) -> xr.DataArray:
    """‖v_{t+1}‖² from the moments before the step, (layer, step)."""
    _, mu, nu = hyperparameters(run)
    kept = mu**2 * run["velocity_squared"] + 2 * mu * (1 - nu) * run["velocity_dot_gradient"]
    # Without momentum v_t has no part in it, and need not be known.
    return xr.where(mu == 0, 0.0, kept) + (1 - nu) ** 2 * run["gradient_squared"]


def mid_velocity_squared(run: xr.Dataset) -> xr.DataArray:
    """‖v_mid‖², v_mid = (v_t + v_{t+1})/2, from the moments before the step, (layer, step)."""
    _, mu, nu = hyperparameters(run)
    with_next = xr.where(mu == 0, 0.0, mu * run["velocity_squared"]) + (1 - nu) * run["velocity_dot_gradient"]
    return (run["velocity_squared"] + 2 * with_next + next_velocity_squared(run)) / 4


def group_names(run: xr.Dataset) -> list[str]:
    """`all`, then the model's groups."""
    return [ALL_GROUPS, *run["group"].values.tolist()]


def group_sum(data: xr.DataArray, run: xr.Dataset) -> xr.DataArray:
    """Sum over the layers of each group, and over all: `layer` becomes `group`.

    A value that is not finite spoils the groups that hold its layer, and no others.
    """
    names = group_names(run)
    weights = (run["layer_group"].values[:, None] == np.array(names)[None, :]).astype(float)
    weights[:, 0] = 1.0

    def add(values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", over="ignore"):
            sums = values @ weights
            # In a product of matrices 0·NaN is NaN, and spoils every group.
            spoilt = ~np.isfinite(sums[..., 0])
            if spoilt.any():
                lost = ~np.isfinite(values[spoilt])
                sums[spoilt] = np.where(lost @ weights > 0, np.nan, np.where(lost, 0.0, values[spoilt]) @ weights)
        return sums

    data = data.drop_vars([name for name in data.coords if name == "layer" or name not in data.dims])
    sums = xr.apply_ufunc(
        add,
        data if data.chunks is None else data.chunk({"layer": -1}),
        input_core_dims=[["layer"]],
        output_core_dims=[["group"]],
        dask="parallelized",
        output_dtypes=[float],
        dask_gufunc_kwargs={"output_sizes": {"group": len(names)}},
    )
    return sums.assign_coords(group=names).transpose("group", ...)


def with_all(data: xr.DataArray, run: xr.Dataset) -> xr.DataArray:
    """Add the sum over the groups as the first, `all`: (group, ...) of the model's groups → (1 + group, ...)."""
    data = data.drop_vars([name for name in data.coords if name != "step"])
    everything = xr.concat([data.sum("group", skipna=False).expand_dims("group"), data], "group")
    return everything.assign_coords(group=group_names(run)).transpose("group", ...)


def group_sizes(run: xr.Dataset) -> xr.DataArray:
    """Number of parameters of each group and of all, (group,)."""
    return group_sum(run["layer_size"].astype(float), run)


def displacement_dimensions(run: xr.Dataset, positions: xr.DataArray, lags: Sequence[int]) -> list[xr.Dataset]:
    """How many directions displacements at some lags fill, and how well the sketch knows their squared length.

    Of at most 256 displacements that do not overlap; groups are taken as independent of each other. The positions are
    read once for all lags.

    Returns:
        For each lag `true`, d_eff = (tr C)²/tr C² of displacements about their mean; `of_sketch`, that of their
        sketches, which is less, about 1/(1/d_eff + 1/k); `error`, the relative error √(2/(k d_eff)) that the sketch
        gives the mean squared length of displacements as they are, and `error_without_drift`, that about their mean,
        both 0 where the sketch is exact. All (group,), `all` first.
    """
    ends = [np.arange(0, positions.sizes["step"], lag)[-_DISPLACEMENTS - 1 :] for lag in lags]
    needed, width = np.unique(np.concatenate(ends)), positions.sizes["sketch"]
    exact = group_sizes(run).values[1:] <= width

    def trace_and_square(samples: np.ndarray, whole: bool, centred: bool) -> tuple[float, float]:
        trace = np.sum(samples**2, axis=1).mean()
        return trace, trace**2 / effective_dimension(samples, [width], [whole], centred=centred)

    about_mean, about_zero = np.empty((2, len(lags), 2, len(exact)))
    for group, whole in enumerate(exact):
        x = positions.isel(group=group, step=needed).transpose("step", "sketch").values
        for index, at in enumerate(ends):
            increments = np.diff(x[np.searchsorted(needed, at)], axis=0)
            about_mean[index, :, group] = trace_and_square(increments - increments.mean(0), whole, True)
            about_zero[index, :, group] = trace_and_square(increments, whole, False)

    def with_sum(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[np.sum(values)], values])

    results = []
    for (traces, squares), (lengths, of_lengths) in zip(about_mean, about_zero, strict=True):
        sketched = np.where(exact, squares, squares * (1 + 1 / width) + traces**2 / width)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "true": np.nan_to_num(with_sum(traces) ** 2 / with_sum(squares), nan=1.0),
                "of_sketch": np.nan_to_num(with_sum(traces) ** 2 / with_sum(sketched), nan=1.0),
            } | {
                name: np.nan_to_num(np.sqrt(with_sum(np.where(exact, 0.0, 2 * of / width))) / with_sum(length))
                for name, length, of in (("error", lengths, of_lengths), ("error_without_drift", traces, squares))
            }
        results.append(xr.Dataset({name: ("group", row) for name, row in found.items()}, {"group": group_names(run)}))
    return results


def dimensions_at(run: xr.Dataset, positions: xr.DataArray, lags: np.ndarray) -> xr.Dataset:
    """`displacement_dimensions` at any lags, each (group, lag).

    They are measured at powers of two up to N/8, of which there are 7 to 15 displacements, and taken on straight lines
    over ln lag between; beyond they go on as in the last two octaves, where directions may become fewer and the errors
    of the sketch larger: motion in steep directions ends early, and a drift is in one.

    Args:
        positions: sketches (group, sketch, step) of N steps. lags: (lag,) in steps, also not whole ones.
    """
    ladder = 2 ** np.arange(max(1, int(np.log2(max(2, positions.sizes["step"] // 8))) + 1))
    found = displacement_dimensions(run, positions, ladder.tolist())
    at, places = np.log(np.maximum(lags, 1.0)), np.log(ladder)
    beyond, before = np.maximum(at - places[-1], 0.0), max(0, len(ladder) - 3)

    def follow(values: np.ndarray, least: float, most: float) -> np.ndarray:
        """(ladder,) at the lags, with a slope beyond within these bounds."""
        slope = (values[-1] - values[before]) / (places[-1] - places[before])
        return np.interp(at, places, values) + np.clip(slope, least, most) * beyond

    width, by_name = positions.sizes["sketch"], {}
    for name in found[0]:
        rows = np.stack([one[name].values for one in found], axis=-1)
        if str(name).startswith("error"):
            taken = [np.minimum(follow(row, 0.0, np.inf), np.sqrt(2 / width)) for row in rows]
        else:
            taken = [np.maximum(np.exp(follow(np.log(row), -1.0, 0.0)), 1.0) for row in rows]
        by_name[name] = (("group", "lag"), np.array(taken))
    return xr.Dataset(by_name, {"group": group_names(run)})


def at_probes(data: xr.DataArray, run: xr.Dataset, dim: str = "probe") -> xr.DataArray:
    """A per-step array of a run, or of a part of one, at the steps of its probes: `step` becomes `probe`.

    Of another channel that has steps of its own, `dim` is the name, such as `curvature`.
    """
    positions = run[f"{dim}_step"].values - int(run["step"].values[0])
    return data.isel(step=xr.DataArray(positions, dims=dim)).drop_vars("step", errors="ignore")


def block_means(part: xr.Dataset, blocks: int = 32, **channels: xr.DataArray) -> list[xr.DataArray]:
    """Means of channels over common blocks of time, (…, block): of those that rise and fall together, or against.

    Blocks much longer than the memory are independent, whatever the sign of the correlations within them; an estimate
    of each channel by itself would lose how they move together.

    Args:
        part: the run, or a part of it, whose time is cut.
        blocks: at most so many, and no more than the rarest channel has rows; empty ones are left out.
        channels: by their time dimension: `step`, or one with steps of its own such as `probe`.
    """
    steps = {
        dim: part["step" if dim == "step" else f"{dim}_step"].values[: channels[dim].sizes[dim]] for dim in channels
    }
    first, length = int(part["step"].values[0]), part.sizes["step"]
    edges = first + np.linspace(0, length, min(blocks, *map(len, steps.values())) + 1)
    bounds = {dim: np.searchsorted(rows, edges) for dim, rows in steps.items()}
    filled = np.all([np.diff(bound) > 0 for bound in bounds.values()], axis=0)

    def mean(values: np.ndarray, bound: np.ndarray) -> np.ndarray:
        sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
        return (np.diff(sums[..., bound], axis=-1) / np.maximum(np.diff(bound), 1))[..., filled]

    return [
        xr.apply_ufunc(
            mean,
            values.chunk({dim: -1}),
            input_core_dims=[[dim]],
            output_core_dims=[["block"]],
            kwargs={"bound": bounds[dim]},
            dask="parallelized",
            output_dtypes=[float],
            dask_gufunc_kwargs={"output_sizes": {"block": int(filled.sum())}},
        )
        for dim, values in channels.items()
    ]


_OF_PROBES = ("probe_sketch", "noise_trace", "gradient_dot")


def require(run: xr.Dataset, *names: str) -> None:
    """Refuse a run that lacks arrays.

    Raises:
        AnalysisError: naming them and why they were not recorded.
    """
    for name in names:
        if name not in run:
            unsaid = "there was no probe" if name in _OF_PROBES else "it was switched off, or the recording was cut off"
            reason = run.attrs.get("not_recorded", {}).get(name, unsaid)
            raise AnalysisError(f"needs {name}, which this run does not hold: {reason}")


def within(run: xr.Dataset, segment: Segment) -> xr.Dataset:
    """The run's steps, probes and curvatures inside a segment."""
    part = run.isel(step=slice(segment.start, segment.stop))
    for dim in ("probe", "curvature"):
        if f"{dim}_step" in run:
            steps = run[f"{dim}_step"].values
            part = part.isel({dim: np.flatnonzero((steps >= segment.start) & (steps < segment.stop))})
    return part


def stretches(run: xr.Dataset) -> list[tuple[int, int]]:
    """Stretches [start, stop) of consecutive steps of a whole run that have inner products and sketches."""
    return measured_stretches(run.attrs, run.sizes["step"])


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
    return {"window_step": ("window", centres), "window_sgd_time": ("window", _sgd_time(run)[centres])}


def constant_stretches(run: xr.Dataset) -> list[tuple[int, int]]:
    """Stretches [start, stop) of steps without a change of any hyper-parameter."""
    names = ("learning_rate", "momentum", "dampening", "weight_decay")
    steps = np.diff(np.concatenate([np.atleast_2d(run[name].values) for name in names]), axis=-1)
    changed = np.any((steps != 0) & ~np.isnan(steps), axis=0)
    edges = [0, *(np.flatnonzero(changed) + 1).tolist(), run.sizes["step"]]
    return list(pairwise(edges))


def choose_segment(run: xr.Dataset, request: str) -> Segment:
    """The segment that a setting asks for.

    `auto` takes the last stretch of constant hyper-parameters and the earliest start in it from which both halves
    agree in loss and squared displacement within three standard errors (Geweke 1992); if there is none, the last
    half, marked as not stationary. Under a schedule that leaves no such stretch it is the last half of the run, marked
    as mixed. `start:stop` is taken as it is, and tested likewise. Where inner products were not taken at every step,
    the last stretch of consecutive ones, at least half as long as the longest, stands for the run.

    Raises:
        AnalysisError: if the run or the segment is too short, the segment lies outside or has steps without inner
            products, or the training diverged in it.
    """
    require(run, "displacement_squared")
    steps, parts = run.sizes["step"], stretches(run)
    longest, enough = max((stop - start for start, stop in parts), default=0), min(MIN_STEPS, steps)
    if longest < enough:
        raise AnalysisError(
            f"inner products were taken at {longest} consecutive steps at most (products_every is "
            f"{run.attrs['recorder']['products_every']!r}), at least {MIN_STEPS} are needed; record with a "
            "products_every of 1, or such as burst:500/5000"
        )
    names = ("loss", "displacement_squared", "learning_rate", "momentum", "dampening", "weight_decay")
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
                f"{run.attrs['recorder']['products_every']!r}); expected consecutive ones that have them, such as "
                f"{first}:{last}"
            )
        _refuse_divergence(run, start, stop)
        return judge_segment(run, start, stop)
    _refuse_divergence(run, 0, steps)
    first, last = [part for part in parts if part[1] - part[0] >= max(enough, longest / 2)][-1]
    start, stop = (first + edge for edge in constant_stretches(run.isel(step=slice(first, last)))[-1])
    if stop - start < MIN_STEPS:
        start, stop = first, last
    # torch leaves out the dampening at the first step; it also carries the unmoved starting point.
    start = max(start, 1)
    candidates = [start + (stop - start) * eighth // 8 for eighth in _STARTS]
    for candidate in candidates:
        if stop - candidate >= MIN_STEPS:
            segment = judge_segment(run, candidate, stop)
            if segment.stationary:
                return segment
    return judge_segment(run, max(start, stop - max((stop - start) // 2, MIN_STEPS)), stop)


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
    scores = {"loss": float("nan"), "displacement": _split_half(part["displacement_squared"].sum("layer"))}
    if "loss" in part and bool(np.isfinite(part["loss"]).any()):
        scores["loss"] = _split_half(part["loss"])
    tested = scores if "loss" in part else {"displacement": scores["displacement"]}
    moved = [name for name, z in tested.items() if abs(z) >= 3]
    open_ = [name for name, z in tested.items() if np.isnan(z)]
    if len(constant_stretches(part)) > 1:
        found = ("scheduled", "a hyper-parameter changes within the segment", "区间内有超参数变化")
    elif moved:
        found = ("moved", f"the two halves differ in {_list(moved)}", f"前后两半的{_list_zh(moved)}不一致")
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
    return "与".join({"loss": "损失", "displacement": "位移"}[name] for name in names)


def _split_half(data: xr.DataArray) -> float:
    """Difference of the halves' means in standard errors; NaN where a half has under ten effective samples."""
    values = np.asarray(data.values, dtype=float)
    values = values[np.isfinite(values)]
    half = len(values) // 2
    (early, early_error, early_n), (late, late_error, late_n) = (
        series.mean_and_error(part) for part in (values[:half], values[half:])
    )
    if min(early_n, late_n) < 10:
        return float("nan")
    spread = float(np.hypot(early_error, late_error))
    return float((late - early) / spread) if spread > 0 else 0.0


def verdict(quantity: str, status: str, code: str, en: str, zh: str) -> dict[str, str]:
    """One sentence about how far a quantity, or with "" the whole analysis, can be trusted.

    `status` is ok, caution or untrusted.
    """
    return {"quantity": quantity, "status": status, "code": code, "en": en, "zh": zh}


def segment_verdict(segment: Segment, *, schedule_aware: bool = False) -> dict[str, str]:
    """Whether the segment behind an analysis is stationary.

    A segment of mixed hyper-parameters leaves nothing to trust, unless the estimate takes those of each step.
    """
    where = f"steps {segment.start}–{segment.stop - 1}"
    where_zh = f"第 {segment.start}–{segment.stop - 1} 步"
    if segment.stationary:
        return verdict(
            "",
            "ok",
            "stationary",
            f"Stationary in {where}: {segment.reason}.",
            f"{where_zh}内平稳：{segment.reason_zh}。",
        )
    return verdict(
        "",
        "untrusted" if segment.judgement == "scheduled" and not schedule_aware else "caution",
        "not-stationary",
        f"Not shown to be stationary in {where}: {segment.reason}.",
        f"{where_zh}内未显示平稳：{segment.reason_zh}。",
    )


def probe_verdicts(run: xr.Dataset, part: xr.Dataset, quantity: str, *also: str) -> list[dict[str, str]]:
    """Why probes say nothing, or not what they seem to, in a part of a run: none there, or clipped gradients.

    Args:
        run: the whole run. part: what is estimated from.
        quantity: what rests on the probes. also: what else does, and is spoilt with it.
    """
    if "noise_trace" not in run:
        return [
            verdict(
                quantity,
                "untrusted",
                "no-probe",
                "Not measured: the run was recorded without a probe.",
                "未测量：记录时没有使用探针。",
            )
        ]
    if not part.sizes["probe"]:
        return [
            verdict(
                quantity,
                "untrusted",
                "no-probe",
                f"Not measured: none of the run's {run.sizes['probe']} probes lies in the segment; record with a "
                "smaller probe_every, or name a longer segment.",
                f"未测量：全部 {run.sizes['probe']} 个探针都不在区间内；"
                "请减小 probe_every 重新记录，或指定更长的区间。",
            )
        ]
    # The step's gradient was clipped and the probe's was not: their difference is more than noise.
    clipped = float((at_probes(part["clip_factor"], part) < 1).mean()) if "clip_factor" in part else 0.0
    if clipped:
        return [
            verdict(
                name,
                "untrusted",
                "clipped",
                f"At {clipped:.0%} of the probes the step's gradient was clipped, and the probe's was not: their "
                "difference holds more than the noise.",
                f"在 {clipped:.0%} 的探针处，该步梯度经过裁剪而探针梯度没有：两者之差不只是噪声。",
            )
            for name in (quantity, *also)
        ]
    return []


def steps_per_epoch(run: xr.Dataset) -> int | None:
    """Steps that an epoch has, or would have: as recorded, or the whole batches that the training data make.

    None if neither is known, or an epoch is one step.
    """
    batch, size = run.attrs.get("batch_size"), run.attrs.get("train_size")
    found = run.attrs.get("steps_per_epoch") or (size // batch if batch and size else 0)
    return round(found) if found >= 2 else None


def shuffled_epoch(run: xr.Dataset) -> int | None:
    """Steps of an epoch in which every example comes once; None if batches are not known to be shuffled."""
    return steps_per_epoch(run) if run.attrs.get("sampling") == "shuffle" else None


def few_probes_verdicts(results: xr.Dataset, *names: str) -> list[dict[str, str]]:
    """A word on each of these quantities that some group does not know from ten effective probes."""
    return [
        verdict(
            name,
            "untrusted",
            "unresolved",
            "Unresolved: fewer than ten effective probes in the segment; record with a smaller probe_every.",
            "未分辨：区间内有效探针少于十个；请减小 probe_every 重新记录。",
        )
        for name in names
        if f"{name}_n_eff" in results and not float(results[f"{name}_n_eff"].min(skipna=False)) >= 10
    ]


def shuffled_signal_verdicts(run: xr.Dataset, results: xr.Dataset, *names: str) -> list[dict[str, str]]:
    """A word on what is made of g·g′, where batches may come from shuffled epochs."""
    sampling = run.attrs.get("sampling")
    if sampling == "replacement":
        return []
    en, zh = ("", "") if sampling == "shuffle" else ("If batches are shuffled: ", "若按轮次打乱采样：")
    return [
        verdict(
            name,
            "caution",
            "shuffled-signal",
            f"{en}g·g′ holds ∇L·ξ, because the noise of shuffled epochs knows where the parameters are. Where the loss "
            "has settled it may be several times ‖∇L‖².",
            f"{zh}打乱采样的噪声与参数位置相关，g·g′ 含有 ∇L·ξ；损失趋于平稳时，它可达 ‖∇L‖² 的数倍。",
        )
        for name in names
        if name in results
    ]


def unresolved_signal_verdicts(results: xr.Dataset, *also: str) -> list[dict[str, str]]:
    """A word where ‖∇L‖² of all groups is not known to differ from 0, on it and on what else rests on it."""
    value = float(results["gradient_norm_squared"].sel(group="all"))
    error = float(results["gradient_norm_squared_stderr"].sel(group="all"))
    if value > series.NORMAL * error or value == error == 0:
        return []
    en, zh = "too few probes to know the error of ‖∇L‖²", "探针太少，‖∇L‖² 的误差未知"
    if np.isfinite(error):
        en = f"‖∇L‖² = {value:.3g} ± {error:.2g} is not known to differ from 0"
        zh = f"‖∇L‖² = {value:.3g} ± {error:.2g}，与 0 没有可分辨的差别"
    return [
        verdict(name, "untrusted", "unresolved", f"Unresolved: {en}.", f"未分辨：{zh}。")
        for name in ("gradient_norm_squared", *also)
    ]
