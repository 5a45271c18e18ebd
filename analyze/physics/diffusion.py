"""Diffusion: mean squared displacement, diffusion coefficient, local exponent, and the prediction from the noise.

All displacements are per parameter and seen through the sketch of each group, which keeps ‖Δθ‖² without bias:

    MSD(τ) = ⟨‖θ(t+τ) − θ(t)‖²⟩/P        time-averaged over the segment (FFT; errors from every origin's displacement)
    Δ(t_w, t_w+τ)                         two-time, for several waiting times over the whole run

`detrended_…` has the straight line from start to end of the segment subtracted and is divided by (1 − τ/T), which is
unbiased for Brownian motion (physics.md V8). The diffusion coefficient is the slope between lags ℓ and 2ℓ,

    D = [MSD(2ℓ) − MSD(ℓ)]/(2ℓ),   ℓ = 5/(1−μ) unless set,

the covariance-based estimator of Vestergaard, Blainey & Flyvbjerg (2014) on motion coarse-grained to ℓ: any constant
part of the MSD, such as the momentum transient, cancels. Its error comes from time, so that parameters which share
noise do not make it too small. The prediction is that of free motion under white noise,

    D = η²(1−ν)² tr C/(2(1−μ)² P),   MSD(τ) = η²(1−ν)²C/(1−μ)² [τ − 2μ(1−μ^τ)/(1−μ²)].

Errors hold the sketch's own relative error √(2/(k d_eff)), with d_eff = (tr C)²/tr C² of the displacements; it is 0
where a group has no more than k parameters. Two-time errors are those of one Gaussian displacement with as many degrees
of freedom as its sketch has dimensions, times the independent ones that the average over its few origins holds.
Error bars have been held against Brownian motion (D) and heavy ball with μ = 0.9 over 600 to 1,000 steps (the others).
Those of D and of two-time displacements cover 95 %, that of the MSD 93–98 % in free motion, but 86–92 % in confined
motion beyond its relaxation, where origins a lag apart share an end point. `detrended_…` and `local_exponent` are
biased where motion is not Brownian: below the memory of the velocity `detrended_…` reads low by half an error bar, and
for confined motion high at the longest lags, by up to a third, since its ends do not drift apart; there their error
bars do not hold.
Where layers have different hyper-parameters D per SGD time is taken group by group; NaN where those of a group differ.
"""

import numpy as np
import xarray as xr

from .. import errorbar, series
from ..quantities import (
    at_probes,
    choose_segment,
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
    verdict,
    with_all,
    within,
)
from ..settings import AnalysisError, AnalysisSettings

VERSION = 3
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
    "Time average by FFT over the sketch; errors by the Γ-method from the squared displacement of each origin, "
    "in squares with the sketch's error. D from lags ℓ and 2ℓ after the drift is removed."
)
METHOD_ZH = (
    "对草图用 FFT 作时间平均；误差由每个起点的集体平方位移用 Γ 方法得到，并与草图误差平方相加。"
    "D 在扣除漂移后取自间隔 ℓ 与 2ℓ。"
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
        per SGD time, all with errors; where there are probes the predictions.

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
    _, dimensions, relative = displacement_dimensions(run, positions, lag)

    collective = _collective(run, positions, lags)
    results = _time_averages(run, positions, collective, lags, sizes, relative)
    coefficient = _coefficient(run, positions, lag, sizes, relative)
    results |= errorbar.named(
        "diffusion_coefficient", coefficient, "parameter2 step-1", "diffusion coefficient D", "扩散系数 D"
    )
    if is_sgd(run):
        # D ∝ ‖Δθ‖²: positions in units of the root of each group's mobility give D per SGD time.
        rate = group_mobility(part)
        scaled = xr.where(rate == 0, 0.0, positions / rate.where(rate != 0) ** 0.5)
        results |= errorbar.named(
            "diffusion_coefficient_sgd_time",
            _coefficient(run, scaled, lag, sizes, relative),
            "loss",
            "diffusion coefficient per SGD time",
            "按 SGD 时间的扩散系数",
        )
    if is_sgd(run) and part.sizes.get("probe"):
        results |= _predictions(part, lags, sizes)
    results |= _two_time(run, settings.waiting_times, collective, lags, sizes, dimensions, relative)
    drift = (positions.isel(step=-1) - positions.isel(step=0)) / (part.sizes["step"] - 1)
    results["drift_velocity_squared"] = (with_all((drift**2).sum("sketch"), run) / sizes).assign_attrs(
        units="parameter2 step-2", long_name="squared drift velocity", long_name_zh="漂移速度平方"
    )
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
    """5/(1−μ), by when the velocity has forgotten itself; of the largest momentum there is, None if it is not known."""
    momentum = part["momentum"].values
    if not np.isfinite(momentum).any():
        return None
    # Rounded first, so that 5/(1 − 0.9) is 50 and not 51.
    return int(np.ceil(round(5 / (1 - float(np.nanmax(momentum))), 6)))


def _diffusion_lag(part: xr.Dataset, wanted: int | None) -> int:
    longest = part.sizes["step"] // 10
    if wanted is None:
        return max(1, min(_memory_lag(part) or _UNKNOWN_MEMORY, longest // 2))
    if 2 * wanted > longest:
        raise AnalysisError(
            f"diffusion_lag {wanted}: the segment has {part.sizes['step']} steps, at most {longest // 2} is possible"
        )
    return wanted


def _time_averages(
    run: xr.Dataset,
    positions: xr.DataArray,
    collective: xr.DataArray,
    lags: np.ndarray,
    sizes: xr.DataArray,
    relative: xr.DataArray,
) -> dict[str, xr.DataArray]:
    """Time-averaged displacements with their errors, and the local exponents."""
    total = positions.sizes["step"] - 1
    detrended = _collective(run, _without_drift(positions), lags)
    exact = xr.apply_ufunc(
        lambda x: np.stack([series.mean_squared_displacement(group)[lags] for group in x]),
        positions,
        input_core_dims=[["sketch", "step"]],
        output_core_dims=[["lag"]],
        dask="parallelized",
        output_dtypes=[float],
        dask_gufunc_kwargs={"output_sizes": {"lag": len(lags)}},
    )
    value, error, n_eff = _lag_means(collective, lags)
    straight = _lag_means(detrended, lags)
    correction = xr.DataArray(1 / (1 - lags / total), dims="lag") / sizes
    exponent, exponent_error = _apply_lags(series.local_exponents, detrended, lags, 2)
    results = errorbar.named(
        "mean_squared_displacement",
        (with_all(exact, run) / sizes, _with_sketch(value, error, relative) / sizes, n_eff),
        "parameter2",
        "mean squared displacement",
        "均方位移",
    )
    results |= errorbar.named(
        "detrended_mean_squared_displacement",
        (straight[0] * correction, _with_sketch(straight[0], straight[1], relative) * correction, straight[2]),
        "parameter2",
        "mean squared displacement without drift",
        "扣除漂移的均方位移",
    )
    # Without drift the factor 1/(1−τ/T) adds its own slope.
    slope = xr.DataArray((lags / total) / (1 - lags / total), dims="lag")
    return results | errorbar.named(
        "local_exponent",
        (exponent + slope, exponent_error, n_eff),
        "1",
        "local exponent α",
        "局部指数 α",
        samples=False,
    )


def _coefficient(
    run: xr.Dataset, positions: xr.DataArray, lag: int, sizes: xr.DataArray, relative: xr.DataArray
) -> errorbar.Estimate:
    """D from lags ℓ and 2ℓ, with the error of the difference origin by origin."""
    increments = xr.apply_ufunc(
        lambda x: np.stack([series.diffusion_increments(group, lag) for group in x]),
        positions,
        input_core_dims=[["sketch", "step"]],
        output_core_dims=[["step"]],
        exclude_dims={"step"},
        dask="parallelized",
        output_dtypes=[float],
        dask_gufunc_kwargs={"output_sizes": {"step": positions.sizes["step"] - 2 * lag}},
    )
    value, error, n_eff = errorbar.mean_of_squares_with_error(with_all(increments, run), "step")
    return value / (2 * lag * sizes), _with_sketch(value, error, relative) / (2 * lag * sizes), n_eff


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
    found = xr.apply_ufunc(
        lambda x: np.stack([series.two_time_displacements(group, waiting, lags, width) for group in x]),
        run["parameter_sketch"],
        input_core_dims=[["sketch", "step"]],
        output_core_dims=[["waiting_time", "lag"]],
        dask="parallelized",
        output_dtypes=[float],
        dask_gufunc_kwargs={"output_sizes": {"waiting_time": len(waiting), "lag": len(lags)}},
    )
    value = (with_all(found, run) / sizes).assign_coords(waiting_time=waiting)
    averaged = xr.apply_ufunc(
        lambda x: np.stack([series.averaged_variance(group, lags, width) for group in x]),
        collective.chunk({"lag": -1, "step": -1}),
        input_core_dims=[["lag", "step"]],
        output_core_dims=[["lag"]],
        dask="parallelized",
        output_dtypes=[float],
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


def _without_drift(positions: xr.DataArray) -> xr.DataArray:
    total = positions.sizes["step"] - 1
    line = xr.DataArray(np.linspace(0, 1, total + 1), dims="step")
    return positions - (positions.isel(step=-1, drop=True) - positions.isel(step=0, drop=True)) * line


def _collective(run: xr.Dataset, positions: xr.DataArray, lags: np.ndarray) -> xr.DataArray:
    """‖x(t+τ) − x(t)‖² of every origin, (group with all, lag, step), NaN past the end; lazy."""
    found = xr.apply_ufunc(
        lambda x: np.stack([series.squared_displacements(group, lags) for group in x]),
        positions,
        input_core_dims=[["sketch", "step"]],
        output_core_dims=[["lag", "step"]],
        exclude_dims={"step"},
        dask="parallelized",
        output_dtypes=[float],
        dask_gufunc_kwargs={"output_sizes": {"lag": len(lags), "step": positions.sizes["step"]}},
    )
    return with_all(found, run)


def _lag_means(collective: xr.DataArray, lags: np.ndarray) -> errorbar.Estimate:
    return _apply_lags(series.lag_means, collective, lags, 3)  # type: ignore[return-value]


def _apply_lags(kernel, collective: xr.DataArray, lags: np.ndarray, outputs: int) -> tuple[xr.DataArray, ...]:
    def over_groups(values: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.stack(column) for column in zip(*(kernel(group, lags) for group in values), strict=True))

    return xr.apply_ufunc(
        over_groups,
        collective.chunk({"lag": -1, "step": -1}),
        input_core_dims=[["lag", "step"]],
        output_core_dims=[["lag"]] * outputs,
        dask="parallelized",
        output_dtypes=[float] * outputs,
    )


def _with_sketch(value: xr.DataArray, error: xr.DataArray, relative: xr.DataArray) -> xr.DataArray:
    return (error**2 + (value * relative) ** 2) ** 0.5


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
