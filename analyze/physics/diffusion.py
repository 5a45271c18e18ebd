"""Diffusion: mean squared displacement, diffusion coefficient, local exponent, and the prediction from the noise.

All displacements are per parameter and seen through the sketch of each group, which keeps ‖Δθ‖² without bias:

    MSD(τ) = ⟨‖θ(t+τ) − θ(t)‖²⟩/P        time-averaged over the segment, over every origin
    Δ(t_w, t_w+τ)                         two-time, for several waiting times over the whole run

`detrended_…` has the straight line from start to end of the segment subtracted, and what that takes off the
fluctuations added again, for any motion whose MSD M is straight beyond an eighth of the segment
(`series.drift_free_terms`; for Brownian motion the factor 1/(1 − τ/T) of physics.md, V8). Confined motion that relaxes
more slowly than that is told from drift only in part, and reads high at the longest lags. From M come the others,

    D = [M(2ℓ) − M(ℓ)]/(2ℓ),   ℓ = 5/(1−μ) unless set,
    α = d ln M/d ln τ,
    V² = ‖θ(T) − θ(0)‖²/(P T²) − M(T)/T²       the squared drift velocity.

D is the covariance-based estimator of Vestergaard, Blainey & Flyvbjerg (2014) on motion coarse-grained to ℓ: any
constant part of the MSD, such as the momentum transient, cancels. The prediction is that of free motion under white
noise,

    D = η²(1−ν)² tr C/(2(1−μ)² P),   MSD(τ) = η²(1−ν)²C/(1−μ)² [τ − 2μ(1−μ^τ)/(1−μ²)].

Errors come from time, so that parameters which share noise do not make them too small: from what every origin
contributes, by the Γ-method over at least the memory of the velocity, 3/(1−μ), and with the echo of confined motion,
where origins a lag apart share an end point. They hold the sketch's own relative error √(2/(k d_eff)), with
d_eff = (tr C)²/tr C² of the displacements; it is 0 where a group has no more than k parameters. Two-time errors are
those of one Gaussian displacement with as many degrees of freedom as its sketch has dimensions, times the independent
ones that the average over its few origins holds. All have been held against heavy ball with μ = 0.9, free and confined,
over 600 and 1,000 steps, and against Brownian motion that shares noise (D). Those of α and V² are safe rather than
tight, up to 2.4 times too large where neighbouring lags fluctuate alike.
Where layers have different hyper-parameters D per SGD time is taken group by group; NaN where those of a group differ.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from .. import errorbar, series
from ..quantities import (
    at_probes,
    choose_segment,
    correlated_steps,
    displacement_dimensions,
    group_mobility,
    group_sizes,
    group_sum,
    hyperparameters,
    is_nesterov,
    is_sgd,
    probe_verdicts,
    require,
    segment_verdict,
    sgd_time_per_step,
    velocity_memory,
    verdict,
    with_all,
    within,
)
from ..settings import AnalysisError, AnalysisSettings

VERSION = 4
USES = ("segment", "lags_per_decade", "diffusion_lag", "waiting_times")
TITLE = "Diffusion"
TITLE_ZH = "扩散"
FORMULA = (
    r"\mathrm{MSD}(\tau)=\frac1P\langle\|\theta_{t+\tau}-\theta_t\|^2\rangle"
    r"\qquad D=\frac{\mathrm{MSD}(2\ell)-\mathrm{MSD}(\ell)}{2\ell}"
)
EXPLANATION = (
    "How far the parameters travel in a time lag, averaged over the segment, and the diffusion coefficient from its "
    "slope beside the one that the gradient noise predicts for free motion. "
    "Do not fit an exponent to it when the segment is not stationary or the lag passes an epoch of shuffled batches, "
    "whose noise cancels: the verdicts say so."
)
EXPLANATION_ZH = (
    "参数在给定时间间隔内移动多远（区间平均），以及由其斜率得到的扩散系数，并与梯度噪声对自由运动的预测并列。"
    "区间不平稳，或间隔超过打乱采样的一个轮次（其噪声相互抵消）时，不要拟合指数：判定会指出。"
)
METHOD = (
    "Average over all origins, seen through the sketch; errors by the Γ-method from the squared displacement of each "
    "origin, in squares with the sketch's error. D and the local exponent from the displacements without drift."
)
METHOD_ZH = (
    "通过草图对所有起点取平均；误差由每个起点的集体平方位移用 Γ 方法得到，并与草图误差平方相加。"
    "D 与局部指数由扣除漂移后的位移得到。"
)
_UNKNOWN_MEMORY = 50
"""lag where the optimizer does not say its momentum; that of μ = 0.9"""
REFERENCE = (
    "Baity-Jesi et al. 2018, PMLR 80:314; Vestergaard, Blainey & Flyvbjerg 2014, Phys. Rev. E 89, 022726; "
    "Qian, Sheetz & Elson 1991; Kühn & Rosenow 2023, arXiv 2306.05300; Calandrini et al. 2011; Wolff 2004."
)


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Displacements and diffusion coefficients per group.

    Returns:
        `mean_squared_displacement`, `detrended_mean_squared_displacement`, `local_exponent` (group, lag),
        `two_time_mean_squared_displacement` (group, waiting_time, lag), `diffusion_coefficient` (group,) per step and
        per SGD time, `drift_velocity_squared` (group,), which may be negative, being unbiased; all with errors. Where
        there are probes the predictions.

    Raises:
        AnalysisError: if the run has no sketches or is too short.
    """
    require(run, "parameter_sketch")
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    sizes = group_sizes(run)
    lags = series.log_lags(part.sizes["step"] // 4, settings.lags_per_decade)
    lag = _diffusion_lag(part, settings.diffusion_lag)
    positions = part["parameter_sketch"]
    seen = displacement_dimensions(run, positions, lag)
    dimensions, relative, relative_free = seen["of_sketch"], seen["error"], seen["error_without_drift"]

    memory = correlated_steps(part)
    collective = _collective(run, positions, lags)
    free = _drift_free(run, positions, np.concatenate([lags, [lag, 2 * lag]]))
    results = _time_averages(collective, free, lags, sizes, relative, relative_free, memory)
    results |= _drift(run, positions, free, sizes, dimensions, memory)
    results |= errorbar.named(
        "diffusion_coefficient",
        _coefficient(free, lag, sizes, relative_free, memory),
        "parameter2 step-1",
        "diffusion coefficient D",
        "扩散系数 D",
    )
    if is_sgd(run):
        # D ∝ ‖Δθ‖²: positions in units of the root of each group's mobility give D per SGD time.
        rate = group_mobility(part)
        scaled = xr.where(rate == 0, 0.0, positions / rate.where(rate != 0) ** 0.5)
        results |= errorbar.named(
            "diffusion_coefficient_sgd_time",
            _coefficient(_drift_free(run, scaled, np.array([lag, 2 * lag])), lag, sizes, relative_free, memory),
            "loss",
            "diffusion coefficient per SGD time",
            "按 SGD 时间的扩散系数",
        )
    if is_sgd(run) and part.sizes.get("probe"):
        results |= _predictions(part, lags, sizes)
    results |= _two_time(run, settings.waiting_times, collective, lags, sizes, dimensions, relative)
    results["sketch_relative_error"] = relative.assign_attrs(
        units="1", long_name="relative error of the sketch", long_name_zh="草图的相对误差"
    )
    epoch = run.attrs.get("steps_per_epoch") if run.attrs.get("sampling") == "shuffle" else None
    results["steps_per_epoch"] = xr.DataArray(
        float(epoch or np.nan),
        attrs={"units": "step", "long_name": "steps per epoch", "long_name_zh": "每轮步数"},
    )
    clock = {"lag": lags, "lag_sgd_time": ("lag", lags * sgd_time_per_step(part))}
    dataset = xr.Dataset(results, coords=clock).compute()
    verdicts = [segment_verdict(segment), *_verdicts(run, part, dataset, lag, epoch)]
    return dataset.assign_attrs(
        segment=[segment.start, segment.stop],
        segment_stationary=segment.stationary,
        diffusion_lag=lag,
        verdicts=verdicts,
    )


def _memory_lag(part: xr.Dataset) -> int | None:
    """5/(1−μ), by when the velocity has forgotten itself; None if the momentum is not known."""
    memory = velocity_memory(part)
    return None if np.isnan(memory) else int(np.ceil(round(5 * memory, 6)))


def _diffusion_lag(part: xr.Dataset, wanted: int | None) -> int:
    longest = part.sizes["step"] // 10
    if wanted is None:
        return max(1, min(_memory_lag(part) or _UNKNOWN_MEMORY, longest // 2))
    if 2 * wanted > longest:
        raise AnalysisError(
            f"diffusion_lag {wanted}: the segment has {part.sizes['step']} steps, at most {longest // 2} is possible"
        )
    return wanted


def _drift_free(run: xr.Dataset, positions: xr.DataArray, lags: np.ndarray) -> xr.Dataset:
    """Motion without its drift at some lags and at the two of `series.straight_anchors`, summed over parameters; lazy.

    Returns:
        `displacement` M and `echo` (group, row) with `all` first, and `straight` (group, row, step), the squared
        displacement of every origin less the line; coordinate `row` the lags in their order.
    """
    steps = positions.sizes["step"]
    rows = np.unique(np.concatenate([lags, series.straight_anchors(steps)]))
    found = _per_group(
        lambda x: series.drift_free_displacements(x, np.stack([rows, 2 * rows])),
        [(positions, ["sketch", "step"])],
        [["times", "row"]],
        {"times": 2, "row": len(rows)},
    )
    once, twice = (with_all(found.isel(times=i), run) for i in range(2))
    straight = xr.apply_ufunc(
        series.without_line,
        positions,
        input_core_dims=[["step"]],
        output_core_dims=[["step"]],
        dask="parallelized",
        output_dtypes=[float],
    )
    return xr.Dataset(
        {
            "displacement": once,
            "echo": xr.apply_ufunc(series.echo_of_ends, once, twice, dask="parallelized"),
            "straight": _collective(run, straight, rows).rename(lag="row"),
        },
        coords={"row": rows},
    )


def _combine(
    free: xr.Dataset, factors: xr.DataArray, lag: xr.DataArray | int, memory: int
) -> tuple[xr.DataArray, xr.DataArray]:
    """Error and effective samples of Σ factors·M over `row`, which has the origins and the echo of a lag; lazy."""
    rows = free["row"].values
    return _per_group(
        lambda x, a, row, echo: series.drift_free_error(x, a, rows, row, echo, memory),
        [
            (free["straight"].chunk({"row": -1, "step": -1}), ["row", "step"]),
            (factors.drop_vars("row", errors="ignore"), ["row"]),
            (xr.DataArray(np.searchsorted(rows, lag), dims=getattr(lag, "dims", ())), []),
            (free["echo"].sel(row=lag).drop_vars("row"), []),
        ],
        [[], []],
    )


def _unit(free: xr.Dataset, lag: xr.DataArray | int) -> xr.DataArray:
    """The factors over `row` of M at a lag."""
    return (free["row"] == lag).astype(float).drop_vars("row")


def _time_averages(
    collective: xr.DataArray,
    free: xr.Dataset,
    lags: np.ndarray,
    sizes: xr.DataArray,
    relative: xr.DataArray,
    relative_free: xr.DataArray,
    memory: int,
) -> dict[str, xr.DataArray]:
    """Time-averaged displacements as they are and without drift, and the local exponents."""
    lag = xr.DataArray(lags, dims="lag")
    value, error, n_eff = _per_group(
        lambda x, of, echo: series.displacement_and_error(x, of, echo, memory),
        [(collective.chunk({"step": -1}), ["step"]), (lag, []), (free["echo"].sel(row=lag).drop_vars("row"), [])],
        [[], [], []],
    )
    results = errorbar.named(
        "mean_squared_displacement",
        (value / sizes, _with_sketch(value, error, relative) / sizes, n_eff),
        "parameter2",
        "mean squared displacement",
        "均方位移",
    )
    value = free["displacement"].sel(row=lag).drop_vars("row")
    error, n_eff = _combine(free, _unit(free, lag), lag, memory)
    error = xr.apply_ufunc(series.widen_for_skewness, value, error, dask="parallelized")
    results |= errorbar.named(
        "detrended_mean_squared_displacement",
        (value / sizes, _with_sketch(value, error, relative_free) / sizes, n_eff),
        "parameter2",
        "mean squared displacement without drift",
        "扣除漂移的均方位移",
    )
    exponent, derivatives = _per_group(
        lambda means, errors: series.local_exponents(means, errors, lags),
        [(value.chunk({"lag": -1}), ["lag"]), ((error / value.where(value > 0)).chunk({"lag": -1}), ["lag"])],
        [["lag"], ["lag", "neighbour"]],
        {"neighbour": len(lags)},
    )
    factors = xr.dot(derivatives, _unit(free, lag).rename(lag="neighbour"), dim="neighbour")
    longest = xr.DataArray(np.append(lags[1:], lags[-1]), dims="lag")
    error, n_eff = _combine(free, factors, longest, memory)
    return results | errorbar.named(
        "local_exponent",
        (exponent, error.where(exponent.notnull()), n_eff),
        "1",
        "local exponent α",
        "局部指数 α",
        samples=False,
    )


def _coefficient(
    free: xr.Dataset, lag: int, sizes: xr.DataArray, relative: xr.DataArray, memory: int
) -> errorbar.Estimate:
    """D from lags ℓ and 2ℓ, with the error of the difference origin by origin."""
    short, long = (free["displacement"].sel(row=x, drop=True) for x in (lag, 2 * lag))
    error, n_eff = _combine(free, _unit(free, 2 * lag) - _unit(free, lag), 2 * lag, memory)
    # In confined motion the difference is small, and no more skew than what it is of.
    scale = xr.where(long - short > long / 2, long - short, long / 2)
    error = xr.apply_ufunc(series.widen_for_skewness, scale, error, dask="parallelized")
    value, over = long - short, 2 * lag * sizes
    return value / over, _with_sketch(value, error, relative) / over, n_eff


def _drift(
    run: xr.Dataset,
    positions: xr.DataArray,
    free: xr.Dataset,
    sizes: xr.DataArray,
    dimensions: xr.DataArray,
    memory: int,
) -> dict[str, xr.DataArray]:
    """V² = ‖Δθ‖²/T² − M(T)/T² from end to end, M(T) on the straight line through the two anchors.

    Of Δθ = V T + δ the square fluctuates by 2V·δ/T and by (‖δ‖² − M(T))/T², and M(T) has its own error. A sketch that
    is not exact knows the one direction of V as one square of k degrees of freedom.
    """
    total = positions.sizes["step"] - 1
    early, late = (int(x) for x in series.straight_anchors(total + 1))
    reach = (total - late) / (late - early)
    factors = (1 + reach) * _unit(free, late) - reach * _unit(free, early)
    error, n_eff = _combine(free, factors, late, memory)
    whole = xr.dot(free["displacement"].drop_vars("row"), factors, dim="row") / total**2
    moved = positions.isel(step=-1) - positions.isel(step=0)
    value = with_all((moved.astype(float) ** 2).sum("sketch"), run) / total**2 - whole
    drift = value.clip(min=0)
    variance = (2 * whole**2 + 4 * drift * whole.clip(min=0)) / dimensions + (error / total**2) ** 2
    width = positions.sizes["sketch"]
    seen = xr.where(sizes > width, float(series.single_square_error(np.array(width))), 0.0) * drift
    variance = variance + with_all((seen**2).isel(group=slice(1, None)), run)
    return errorbar.named(
        "drift_velocity_squared",
        (value / sizes, variance**0.5 / sizes, n_eff),
        "parameter2 step-2",
        "squared drift velocity",
        "漂移速度平方",
        samples=False,
    )


def _predictions(part: xr.Dataset, lags: np.ndarray, sizes: xr.DataArray) -> dict[str, xr.DataArray]:
    """D and MSD of free motion under white noise of the measured strength; under Nesterov only D."""
    eta, mu, nu = hyperparameters(part)
    factor = at_probes((eta * (1 - nu) / (1 - mu)) ** 2 / 2, part)
    found = errorbar.mean_with_error(group_sum(factor * part["noise_trace"], part) / sizes, "probe")
    results = errorbar.named(
        "diffusion_coefficient_predicted", found, "parameter2 step-1", "predicted D of free motion", "自由运动的预测 D"
    )
    if is_nesterov(part):
        return results
    momentum, lag = mu.mean("step"), xr.DataArray(lags, dims="lag")
    shape = 2 * (lag - 2 * momentum * (1 - momentum**lag) / (1 - momentum**2))
    by_layer = (factor * part["noise_trace"]).mean("probe")
    results["predicted_mean_squared_displacement"] = (group_sum(by_layer * shape, part) / sizes).assign_attrs(
        units="parameter2", long_name="predicted MSD of free motion", long_name_zh="自由运动的预测均方位移"
    )
    return results


def _two_time(
    run: xr.Dataset,
    count: int,
    collective: xr.DataArray,
    lags: np.ndarray,
    sizes: xr.DataArray,
    dimensions: xr.DataArray,
    relative: xr.DataArray,
) -> dict[str, xr.DataArray]:
    """Δ(t_w, t_w+τ), averaged over origins within 1/64 of the run, from waiting times 0 to half the run."""
    steps = run.sizes["step"]
    waiting = np.unique(
        np.concatenate([[0], np.geomspace(max(1, steps // 32), steps // 2, max(1, count - 1))]).astype(int)
    )
    width = max(1, steps // 64)
    found = _per_group(
        lambda x: series.two_time_displacements(x, waiting, lags, width),
        [(run["parameter_sketch"], ["sketch", "step"])],
        [["waiting_time", "lag"]],
        {"waiting_time": len(waiting), "lag": len(lags)},
    )
    value = (with_all(found, run) / sizes).assign_coords(waiting_time=waiting)
    averaged = _per_group(
        lambda x: series.averaged_variance(x, lags, width),
        [(collective.chunk({"lag": -1, "step": -1}), ["lag", "step"])],
        [["lag"]],
    )
    single = xr.apply_ufunc(
        series.single_square_error, dimensions / averaged, dask="parallelized", output_dtypes=[float]
    )
    text = {"units": "parameter2", "long_name": "two-time mean squared displacement", "long_name_zh": "双时均方位移"}
    name = "two_time_mean_squared_displacement"
    return {
        name: value.assign_attrs(text | {"ancillary_variables": f"{name}_stderr"}),
        f"{name}_stderr": _with_sketch(value, value * single, relative).assign_attrs(
            units="parameter2",
            long_name="standard error of the two-time mean squared displacement",
            long_name_zh="双时均方位移的标准误差",
        ),
    }


def _collective(run: xr.Dataset, positions: xr.DataArray, lags: np.ndarray) -> xr.DataArray:
    """‖x(t+τ) − x(t)‖² of every origin, (group with all, lag, step), NaN past the end; lazy."""
    found = _per_group(
        lambda x: series.squared_displacements(x, lags),
        [(positions, ["sketch", "step"])],
        [["lag", "step"]],
        {"lag": len(lags)},
    )
    return with_all(found, run)


def _per_group(
    kernel: Callable[..., Any],
    arrays: list[tuple[xr.DataArray, list[str]]],
    outputs: list[list[str]],
    sizes: dict[str, int] | None = None,
) -> Any:
    """A kernel on plain arrays for every group, and every other dimension that it does not take; lazy.

    Args:
        arrays: each with the dimensions that the kernel takes of it.
        outputs: dimensions of what it returns. sizes: of those that are new.
    """
    return xr.apply_ufunc(
        kernel,
        *(array for array, _ in arrays),
        input_core_dims=[dims for _, dims in arrays],
        output_core_dims=outputs,
        vectorize=True,
        dask="parallelized",
        output_dtypes=[float] * len(outputs),
        dask_gufunc_kwargs={"output_sizes": sizes or {}},
    )


def _with_sketch(value: xr.DataArray, error: xr.DataArray, relative: xr.DataArray) -> xr.DataArray:
    skew = xr.apply_ufunc(lambda r: series.widen_for_skewness(np.ones_like(r), r), relative)
    return (error**2 + (value * skew) ** 2) ** 0.5


def _verdicts(
    run: xr.Dataset, part: xr.Dataset, results: xr.Dataset, lag: int, epoch: int | None
) -> list[dict[str, str]]:
    found = probe_verdicts(run, part, "diffusion_coefficient_predicted") if is_sgd(run) else []
    if not float(results["diffusion_coefficient_n_eff"].sel(group="all")) >= 10:
        found.append(
            verdict(
                "diffusion_coefficient",
                "untrusted",
                "unresolved",
                f"Unresolved: fewer than ten independent displacements at lag {lag}.",
                f"未分辨：间隔 {lag} 步的独立位移少于十个。",
            )
        )
    needed, held = _memory_lag(part), part.sizes["step"] // 20
    if needed is None:
        found.append(
            verdict(
                "diffusion_coefficient",
                "caution",
                "memory-unknown",
                f"How long a step of {run.attrs['optimizer']['class']} remembers is not recorded; D is taken at lags "
                f"{lag}–{2 * lag}: compare it at a longer diffusion_lag.",
                f"未记录 {run.attrs['optimizer']['class']} 每步的记忆长度；D 取自间隔 {lag}–{2 * lag} 步："
                "请用更长的 diffusion_lag 比较。",
            )
        )
    elif lag < needed:
        mend = f"choose a diffusion_lag from {needed} to {held}" if held >= needed else f"it takes {20 * needed} steps"
        mend_zh = (
            f"请在 {needed} 至 {held} 之间选择 diffusion_lag" if held >= needed else f"需要 {20 * needed} 步的区间"
        )
        found.append(
            verdict(
                "diffusion_coefficient",
                "untrusted",
                "lag-too-short",
                f"D is taken at lags {lag}–{2 * lag}, within the memory of the velocity, 5/(1−μ) = {needed} steps; "
                f"{mend}.",
                f"D 取自间隔 {lag}–{2 * lag} 步，仍在速度的记忆 5/(1−μ) = {needed} 步之内；{mend_zh}。",
            )
        )
    if epoch:
        found.append(
            verdict(
                "diffusion_coefficient",
                "caution",
                "sampler-limited",
                f"Sampler-limited: shuffled epochs of {epoch} steps cancel their noise, and free diffusion "
                f"would stop after one; D is taken at lags {lag}–{2 * lag}.",
                f"受采样限制：每轮 {epoch} 步的打乱采样使噪声相互抵消，自由扩散会在一轮后停止；"
                f"D 取自间隔 {lag}–{2 * lag} 步。",
            )
        )
    elif run.attrs.get("sampling") != "replacement":
        found.append(
            verdict(
                "diffusion_coefficient",
                "caution",
                "sampler-unknown",
                "The sampling scheme was not recorded; shuffled epochs would limit D.",
                "未记录采样方式；按轮次打乱采样会限制 D。",
            )
        )
    if "predicted_mean_squared_displacement" in results:
        found.append(
            verdict(
                "diffusion_coefficient_predicted",
                "caution",
                "free-motion",
                "The prediction is that of free motion; in directions with curvature the motion is confined.",
                "预测针对自由运动；在有曲率的方向上运动受限。",
            )
        )
    return found
