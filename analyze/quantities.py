"""What several analyses need of a run: its hyper-parameters and velocities per layer, sums per group, epochs."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from thermodl.record.format import ALL_GROUPS, steps_as_sgd

from .dimensions import effective_dimension
from .settings import AnalysisError, NotDefinedError

_MANY = 2**20
"""numbers beyond which arrays are made when they are needed"""
_DISPLACEMENTS = 256
"""that tell how many directions they fill"""


def is_sgd(run: xr.Dataset) -> bool:
    """Whether the formulas of SGD with momentum apply."""
    return steps_as_sgd(run.attrs)


def is_nesterov(run: xr.Dataset) -> bool:
    """Whether the update looks ahead, which makes the effective temperature depend on frequency."""
    return bool(run.attrs["optimizer"]["nesterov"])


def hyperparameters(run: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Learning rate η, momentum μ and dampening ν, each (layer, step).

    ν is 0 where torch ignores it (μ = 0), and η where the step left a layer alone.
    """
    of_layer = run["layer_optimizer_group"].drop_vars(["layer_group", "layer_size", "layer_optimizer_group"])
    few = run[["learning_rate", "momentum", "dampening"]]
    # Repeated for every layer they may be large, and are not to be held by all that is made of them.
    few = few.chunk() if of_layer.size * run.sizes["step"] > _MANY else few
    eta, mu, nu = (few[name].isel(optimizer_group=of_layer) for name in few)
    if "layer_skipped" in run:
        eta = eta.where(run["layer_skipped"].reset_coords(drop=True) != 1, 0.0)
    return eta, mu, xr.where(mu == 0, 0.0, nu)


def group_hyperparameters(run: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """η, μ and ν of the model's groups, each (group, step); NaN where the layers of a group differ in any of them."""
    if "layer_skipped" in run:
        # Then layers of one optimizer group may differ too.
        every, dim, owner = hyperparameters(run), "layer", np.arange(run.sizes["layer"])
    else:
        every = [run[name] for name in ("learning_rate", "momentum", "dampening")]
        dim, owner = "optimizer_group", run["layer_optimizer_group"].values
    rows = [np.unique(owner[run["layer_group"].values == name]) for name in run["group"].values]
    # Filled up with the first of each, which changes neither the least nor the greatest.
    most = max(len(row) for row in rows)
    filled = np.array([np.concatenate([row, np.repeat(row[:1], most - len(row))]) for row in rows])
    members = xr.DataArray(filled, dims=("group", "member"))
    eta, mu, nu = (values.isel({dim: members}) for values in every)

    def shared(data: xr.DataArray) -> xr.DataArray:
        least = data.min("member", skipna=False)
        return (
            least.where(least == data.max("member", skipna=False))
            .reset_coords(drop=True)
            .drop_vars("step", errors="ignore")
        )

    eta, mu, nu = shared(eta), shared(mu), shared(xr.where(mu == 0, 0.0, nu))
    defined = eta.notnull() & mu.notnull() & nu.notnull()
    return eta.where(defined), mu.where(defined), nu.where(defined)


def schedule_of_groups(run: xr.Dataset, factor: xr.DataArray) -> xr.DataArray | None:
    """A factor of powers (layer, step) summed over the layers of each group, (group, step), `all` first.

    Means follow it under a schedule, which is not to be taken for noise; None where hyper-parameters stay as they are.
    """
    names = ("learning_rate", "momentum", "dampening", "layer_skipped")
    kept = (bool((run[name] == run[name].isel(step=0)).all()) for name in names if name in run)
    return None if all(kept) else group_sum(factor, run)


def schedule_at(factor: xr.DataArray | None, data: xr.DataArray, run: xr.Dataset) -> xr.DataArray | None:
    """Such a factor at the times of data of a run: its probes, or its steps, of which they may lack the last."""
    if factor is None:
        return None
    if "probe" in data.dims:
        return at_probes(factor, run)
    return factor.drop_vars("step", errors="ignore").isel(step=slice(data.sizes["step"]))


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
    """Mean advance of the run's clock of SGD time, that of the first optimizer group that moves; NaN without."""
    clock = sgd_clock(run)
    return float((clock[-1] - clock[0]) / (len(clock) - 1))


def sgd_clock(run: xr.Dataset) -> np.ndarray:
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
    sizes = group_sizes(run).values[1:]
    exact = sizes <= width

    def trace_and_square(samples: np.ndarray, size: float, centred: bool) -> tuple[float, float]:
        trace = np.sum(samples**2, axis=1).mean()
        found = effective_dimension(samples, [width], [size <= width], centred=centred)
        # Few displacements may seem to fill more directions than there are, of which a sketch shows no more than k.
        return trace, trace**2 / (min(found, size) if size <= width else found)

    about_mean, about_zero = np.empty((2, len(lags), 2, len(exact)))
    for group, size in enumerate(sizes):
        x = positions.isel(group=group, step=needed).transpose("step", "sketch").values
        for index, at in enumerate(ends):
            increments = np.diff(x[np.searchsorted(needed, at)], axis=0)
            about_mean[index, :, group] = trace_and_square(increments - increments.mean(0), size, True)
            about_zero[index, :, group] = trace_and_square(increments, size, False)

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


def finite_loss(run: xr.Dataset) -> xr.DataArray | None:
    """The loss (step,), on straight lines over steps where it is not finite; None if there are more of these than one
    in ten, or none was logged."""
    if "loss" not in run:
        return None
    loss = np.asarray(run["loss"].values, float)
    known = np.isfinite(loss)
    if known.mean() < 0.9:
        return None
    return run["loss"].copy(data=np.interp(np.arange(len(loss)), np.flatnonzero(known), loss[known]))


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
        NotDefinedError: naming what was not recorded, and why.
        AnalysisError: if the run does not say why it is not there.
    """
    for name in names:
        if name not in run:
            unsaid = "there was no probe" if name in _OF_PROBES else "it was switched off, or the recording was cut off"
            reason = run.attrs.get("not_recorded", {}).get(name)
            if reason:
                raise NotDefinedError(
                    f"it takes {name}, which this run does not hold: {reason}",
                    f"需要 {name}，而这个实验没有记录它（{reason}）",
                )
            raise AnalysisError(f"needs {name}, which this run does not hold: {unsaid}")


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
