"""Diffusion: mean squared displacement, diffusion coefficient, local exponent, and the prediction from the noise.

All displacements are per parameter and seen through the sketch of each group, which keeps ‖Δθ‖² without bias:

    MSD(τ) = ⟨‖θ(t+τ) − θ(t)‖²⟩/P        time-averaged over the segment, over every origin
    Δ(t_w, t_w+τ)                         two-time, for several waiting times over the whole run

`detrended_…` has the straight line from start to end of the segment subtracted, and what that takes off the
fluctuations added again, for any motion whose MSD M is straight beyond an eighth of the segment
(`displacements.drift_free_terms`; for Brownian motion the factor 1/(1 − τ/T) of physics.md, V8). Confined motion that
relaxes more slowly than that is told from drift only in part, and reads high at the longest lags. From M come the
others,

    D = [M(2ℓ) − M(ℓ)]/(2ℓ),   ℓ = 5/(1−μ) unless set,
    α = d ln M/d ln τ,
    V² = ‖θ(T) − θ(0)‖²/(P T²) − M(T)/T²       the squared drift velocity.

D is the covariance-based estimator of Vestergaard, Blainey & Flyvbjerg (2014) on motion coarse-grained to ℓ: any
constant part of the MSD, such as the momentum transient, cancels. The prediction is that of free motion under white
noise,

    D = η²(1−ν)² tr C/(2(1−μ)² P),   MSD(τ) = η²(1−ν)²C/(1−μ)² [τ − 2μ(1−μ^τ)/(1−μ²)].

Errors come from time, so that parameters which share noise do not make them too small: from what every origin
contributes, by the Γ-method over at least the memory of the velocity, 3/(1−μ), and with the echo of confined motion,
where origins a lag apart share an end point. That of D is of the products u·w of which M(2ℓ) − M(ℓ) is the mean, u the
displacement over ℓ and w that over the 3ℓ around it, which do not hold the large squares that cancel in the difference
(`displacements.slope_products`); it is 0.9 to 1.4 times the true one and covers 92–98 % of free and of confined motion
that relaxes forty times or more in the segment. Of few coordinates it is wider where ℓ is a twentieth of the segment
and confined motion is slow, up to 2.2 times too wide for one, which covers 99 %.
All hold the sketch's own relative error √(2/(k d_eff)), with d_eff = (tr C)²/tr C² of the displacements; it is 0 where
a group has no more than k parameters. Two-time errors are those of one Gaussian displacement with as many degrees of
freedom as its sketch has dimensions, times the independent ones that the average over its few origins holds. All have
been held against heavy ball with μ = 0.9, free and confined, over 600 and 1,000 steps, and D against Brownian motion
that shares noise and Ornstein–Uhlenbeck processes. Of α, a difference of lags that fluctuate alike, what they have in
common cancels; its interval covers 90–98 %. That of V² of motion without a drift is safe rather than tight, up to 1.6
times too large with 16 coordinates.
Where layers have different hyper-parameters D per SGD time is taken group by group; NaN where those of a group differ.
"""

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from .. import displacements, errorbar, series
from ..blocks import as_estimate, each, labelled, over_groups
from ..quantities import (
    at_probes,
    correlated_steps,
    dimensions_at,
    displacement_dimensions,
    group_mobility,
    group_sizes,
    group_sum,
    hyperparameters,
    is_nesterov,
    is_sgd,
    require,
    schedule_at,
    schedule_of_groups,
    sgd_time_per_step,
    shuffled_epoch,
    velocity_memory,
    with_all,
)
from ..segments import choose_segment, stretches, within
from ..settings import AnalysisError, AnalysisSettings
from ..verdicts import (
    few_probes_verdicts,
    mixed_layers_verdicts,
    probe_verdicts,
    resting_verdicts,
    segment_verdict,
    verdict,
)

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
    "origin, in squares with the sketch's error; that of D from products of displacements whose mean it is. D and the "
    "local exponent from the displacements without drift."
)
METHOD_ZH = (
    "通过随机投影对所有起点取平均；误差由每个起点的集体平方位移用 Γ 方法得到，并与随机投影误差平方相加；"
    "D 的误差由均值等于 D 的位移乘积得到。D 与局部指数由扣除漂移后的位移得到。"
)
_COEFFICIENTS = (
    ("diffusion_coefficient", "parameter2 step-1", "diffusion coefficient D", "扩散系数 D"),
    ("diffusion_coefficient_sgd_time", "loss", "diffusion coefficient per SGD time", "按 SGD 时间的扩散系数"),
)
_STRAIGHT = 0.2
"""more than α of free motion differs from 1: at √2·5/(1−μ) the transient of momentum makes it 1.16, of any μ at most"""
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
        NotDefinedError: if it was recorded without sketches.
        AnalysisError: if the run is too short.
    """
    require(run, "parameter_sketch")
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    sizes = group_sizes(run)
    lags = series.log_lags(part.sizes["step"] // 4, settings.lags_per_decade)
    lag = _diffusion_lag(part, settings.diffusion_lag)
    positions = part["parameter_sketch"]
    (seen,) = displacement_dimensions(run, positions, [lag])
    steps = part.sizes["step"]
    by_lag = dimensions_at(run, positions, np.append(lags, steps - 1))
    by_lag, of_whole = by_lag.isel(lag=slice(None, -1)), by_lag.isel(lag=-1)

    measured = _measure(run, part, lags, lag)
    shared = labelled(measured.pop("shared_variance"), run, "lag")
    moved = labelled(measured.pop("moved"), run)
    found = {name: as_estimate(values, run, "lag") for name, values in measured.items()}
    results = _time_averages(found, sizes, by_lag["error"], by_lag["error_without_drift"])
    results |= _drift(run, moved, found["whole"], steps, sizes, of_whole["of_sketch"])
    for name, units, en, zh in _COEFFICIENTS if is_sgd(run) else _COEFFICIENTS[:1]:
        value, error, samples = errorbar.scale(found[name], 1 / (2 * lag * sizes))
        error = _with_sketch(value, error, seen["error_without_drift"])
        results |= errorbar.named(name, (value, error, samples), units, en, zh)
    if is_sgd(run) and part.sizes.get("probe"):
        results |= _predictions(part, lags, sizes)
    results |= _two_time(run, settings.waiting_times, shared, lags, sizes, by_lag["of_sketch"], by_lag["error"])
    results["sketch_relative_error"] = seen["error"].assign_attrs(
        units="1", long_name="relative error of the sketch", long_name_zh="随机投影的相对误差"
    )
    epoch = shuffled_epoch(run)
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


def _measure(run: xr.Dataset, part: xr.Dataset, lags: np.ndarray, lag: int) -> dict[str, np.ndarray]:
    """What the sketches tell, per group and summed over its parameters, each with `_stderr` and `_n_eff` from time.

    Returns:
        `displacement` and `free`, the MSD as it is and the drift-free M, and `exponent` (group, lag); M(2ℓ) − M(ℓ) as
        `diffusion_coefficient`, and in units of each group's mobility, for D ∝ ‖Δθ‖², `diffusion_coefficient_sgd_time`;
        M(T) on the straight line through the two anchors as `whole` (group,). Without errors ‖θ(T) − θ(0)‖² as `moved`
        (group,), and `shared_variance` (group, lag) of `displacements.averaged_variance`.
    """
    steps, memory, width = part.sizes["step"], correlated_steps(part), _two_time_width(run)
    rows = np.unique(np.concatenate([lags, [lag, 2 * lag], displacements.straight_anchors(steps)]))
    at, of_slope = np.searchsorted(rows, lags), np.searchsorted(rows, [lag, 2 * lag])
    mobility = group_mobility(part).values if is_sgd(run) else np.ones(part.sizes["group"])

    def add(group: int, x: np.ndarray) -> tuple[np.ndarray, ...]:
        x = np.ascontiguousarray(x)
        without_line = displacements.without_line(x)
        straight = displacements.squared_displacements(without_line, rows)
        products = displacements.slope_products(without_line, lag)
        free = displacements.drift_free_displacements(x, np.stack([rows, 2 * rows]))
        # What has no learning rate does not move.
        scale = 1 / mobility[group] if mobility[group] else 0.0
        scaled = scale * free[0, of_slope], scale * products
        moved = np.sum((x[:, -1].astype(float) - x[:, 0]) ** 2)
        return displacements.squared_displacements(x, lags), straight, free, products, *scaled, moved

    def finish(
        _: int,
        collective: np.ndarray,
        straight: np.ndarray,
        free: np.ndarray,
        products: np.ndarray,
        *others: np.ndarray,
    ) -> dict[str, Any]:
        combine = partial(_combine, free, straight, rows, memory)
        echo = displacements.echo_of_ends(*free)[at]
        by_lag = [
            displacements.displacement_and_error(row, one, back, memory)
            for row, one, back in zip(collective, lags.tolist(), echo.tolist(), strict=True)
        ]
        value, error, samples = np.array([combine({one: 1.0}, one) for one in lags.tolist()]).T
        error = series.widen_for_skewness(value, error)
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = error / np.where(value > 0, value, np.nan)
        exponent, derivatives = displacements.local_exponents(value, relative, lags)
        longest = np.append(lags[1:], lags[-1])
        _alpha, of_exponent, samples_of_exponent = np.array(
            [
                combine(dict(zip(lags, row, strict=True)), one, cancelling=True)
                for row, one in zip(derivatives, longest, strict=True)
            ]
        ).T
        early, late = displacements.straight_anchors(steps).tolist()
        reach = (steps - 1 - late) / (late - early)
        return {
            "displacement": np.array(by_lag).T,
            "free": (value, error, samples),
            "exponent": (exponent, np.where(np.isnan(exponent), np.nan, of_exponent), samples_of_exponent),
            "diffusion_coefficient": displacements.slope_and_error(free[0, of_slope], products, lag, memory),
            "diffusion_coefficient_sgd_time": displacements.slope_and_error(others[0], others[1], lag, memory),
            "whole": combine({early: -reach, late: 1 + reach}, late, cancelling=True),
            "moved": others[2],
            "shared_variance": displacements.averaged_variance(collective, lags, width),
        }

    return over_groups(add, finish, [part["parameter_sketch"]])


def _combine(
    free: np.ndarray,
    straight: np.ndarray,
    rows: np.ndarray,
    memory: int,
    factors: dict[int, float],
    lag: int,
    cancelling: bool = False,
) -> tuple[float, float, float]:
    """Σ factors·M of some lags, its error and its effective samples, with the origins and the echo of one lag.

    Args:
        free: M at the lags `rows` and at twice these, (2, R). straight: of every origin less the line, (R, N).
        cancelling: whether the lags take away from each other what they have in common.
    """
    weights, row = np.zeros(len(rows)), int(np.searchsorted(rows, lag))
    weights[np.searchsorted(rows, list(factors))] = list(factors.values())
    used = np.flatnonzero(weights)
    echo = None if cancelling else float(displacements.echo_of_ends(free[0, row], free[1, row]))
    error, samples = displacements.drift_free_error(straight, weights, rows, row, memory, echo)
    return float(weights[used] @ free[0, used]), error, samples


def _time_averages(
    found: dict[str, errorbar.Estimate], sizes: xr.DataArray, relative: xr.DataArray, relative_free: xr.DataArray
) -> dict[str, xr.DataArray]:
    """Time-averaged displacements as they are and without drift, and the local exponents."""
    results: dict[str, xr.DataArray] = {}
    for source, seen, name, en, zh in (
        ("displacement", relative, "mean_squared_displacement", "mean squared displacement", "均方位移"),
        (
            "free",
            relative_free,
            "detrended_mean_squared_displacement",
            "mean squared displacement without drift",
            "扣除漂移的均方位移",
        ),
    ):
        value, error, samples = errorbar.scale(found[source], 1 / sizes)
        results |= errorbar.named(name, (value, _with_sketch(value, error, seen), samples), "parameter2", en, zh)
    return results | errorbar.named(
        "local_exponent", found["exponent"], "1", "local exponent α", "局部指数 α", samples=False
    )


def _drift(
    run: xr.Dataset,
    moved: xr.DataArray,
    whole: errorbar.Estimate,
    steps: int,
    sizes: xr.DataArray,
    dimensions: xr.DataArray,
) -> dict[str, xr.DataArray]:
    """V² = ‖Δθ‖²/T² − M(T)/T² from end to end, M(T) on the straight line through the two anchors.

    Of Δθ = V T + δ the square fluctuates by 2V·δ/T and by (‖δ‖² − M(T))/T², and M(T) has its own error. A sketch that
    is not exact knows the one direction of V as one square of k degrees of freedom.
    """
    total, width = steps - 1, run.sizes["sketch"]
    confined, error, samples = whole
    confined = confined / total**2
    value = moved / total**2 - confined
    drift = value.clip(min=0)
    variance = (2 * confined**2 + 4 * drift * confined.clip(min=0)) / dimensions + (error / total**2) ** 2
    seen = xr.where(sizes > width, float(series.single_square_error(np.array(width))), 0.0) * drift
    variance = variance + with_all((seen**2).isel(group=slice(1, None)), run)
    return errorbar.named(
        "drift_velocity_squared",
        (value / sizes, variance**0.5 / sizes, samples),
        "parameter2 step-2",
        "squared drift velocity",
        "漂移速度平方",
        samples=False,
    )


def _predictions(part: xr.Dataset, lags: np.ndarray, sizes: xr.DataArray) -> dict[str, xr.DataArray]:
    """D and MSD of free motion under white noise of the measured strength; under Nesterov only D."""
    eta, mu, nu = hyperparameters(part)
    of_step = (eta * (1 - nu) / (1 - mu)) ** 2 / 2
    factor = at_probes(of_step, part)
    noise = group_sum(factor * part["noise_trace"], part) / sizes
    schedule = schedule_at(schedule_of_groups(part, of_step), noise, part)
    found = errorbar.mean_with_error(noise, "probe", shape=schedule)
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


def _two_time_width(run: xr.Dataset) -> int:
    """Origins that a two-time displacement is averaged over: 1/64 of the run, within half a usual stretch of steps."""
    usual = int(np.median([stop - start for start, stop in stretches(run)]))
    return max(1, min(run.sizes["step"] // 64, usual // 2))


def _two_time(
    run: xr.Dataset,
    count: int,
    shared: xr.DataArray,
    lags: np.ndarray,
    sizes: xr.DataArray,
    dimensions: xr.DataArray,
    relative: xr.DataArray,
) -> dict[str, xr.DataArray]:
    """Δ(t_w, t_w+τ), averaged over a few origins, from waiting times 0 to half the run."""
    steps, width = run.sizes["step"], _two_time_width(run)
    waiting = np.concatenate([[0], np.geomspace(max(1, steps // 32), steps // 2, max(1, count - 1))]).astype(int)
    # Where sketches were not taken at every step, the next steps that have them, as many as are averaged over.
    known = np.concatenate([np.arange(start, max(start + 1, stop - width)) for start, stop in stretches(run)])
    waiting = np.unique(known[np.clip(np.searchsorted(known, waiting), 0, len(known) - 1)])

    def add(_: int, x: np.ndarray) -> tuple[np.ndarray]:
        return (displacements.two_time_displacements(x, waiting, lags, width),)

    found = over_groups(add, each("value"), [run["parameter_sketch"]])["value"]
    value = labelled(found, run, "waiting_time", "lag").assign_coords(waiting_time=waiting) / sizes
    single = xr.apply_ufunc(series.single_square_error, dimensions / shared)
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


def _with_sketch(value: xr.DataArray, error: xr.DataArray, relative: xr.DataArray) -> xr.DataArray:
    skew = xr.apply_ufunc(lambda r: series.widen_for_skewness(np.ones_like(r), r), relative)
    return (error**2 + (value * skew) ** 2) ** 0.5


def _verdicts(
    run: xr.Dataset, part: xr.Dataset, results: xr.Dataset, lag: int, epoch: int | None
) -> list[dict[str, str]]:
    found = []
    if is_sgd(run):
        predicted = "diffusion_coefficient_predicted"
        found += probe_verdicts(run, part, predicted) or few_probes_verdicts(results, predicted)
        found += mixed_layers_verdicts(part, results, "diffusion_coefficient_sgd_time")
        found += resting_verdicts(part, "diffusion_coefficient", "mean_squared_displacement")
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
                f"{lag}–{2 * lag}: compare it at a longer one (setting diffusion_lag, --diffusion-lag).",
                f"未记录 {run.attrs['optimizer']['class']} 每步的记忆长度；D 取自间隔 {lag}–{2 * lag} 步："
                "请用更长的间隔比较（设置 diffusion_lag，即 --diffusion-lag）。",
            )
        )
    elif lag < needed:
        mend = (
            f"choose a lag from {needed} to {held} (setting diffusion_lag, --diffusion-lag)"
            if held >= needed
            else f"that takes a segment of {20 * needed} consecutive steps"
        )
        mend_zh = (
            f"请在 {needed} 至 {held} 之间选择间隔（设置 diffusion_lag，即 --diffusion-lag）"
            if held >= needed
            else f"需要连续 {20 * needed} 步的区间"
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
    found += _freedom(results, lag)
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


def _freedom(results: xr.Dataset, lag: int) -> list[dict[str, str]]:
    """A word where the MSD of all groups is no straight line between ℓ and 2ℓ, so that D holds at no other lag."""
    everything = results.sel(group="all")
    value, error = (float(everything[f"diffusion_coefficient{end}"]) for end in ("", "_stderr"))
    if value < -3 * error:
        return [
            verdict(
                "diffusion_coefficient",
                "untrusted",
                "confined",
                f"Confined: the displacement falls between lags {lag} and {2 * lag}. D is half its slope there, and no "
                "diffusion coefficient.",
                f"受限：间隔 {lag} 至 {2 * lag} 步之间位移下降。D 是该处斜率的一半，不是扩散系数。",
            )
        ]
    exponents = everything[["local_exponent", "local_exponent_stderr"]].dropna("lag")
    if not exponents.sizes["lag"]:
        return []
    there = exponents.sel(lag=np.sqrt(2) * lag, method="nearest")
    alpha, spread = float(there["local_exponent"]), float(there["local_exponent_stderr"])
    if not abs(alpha - 1) > max(_STRAIGHT, 3 * spread):
        return []
    return [
        verdict(
            "diffusion_coefficient",
            "caution",
            "not-free",
            f"Not free between lags {lag} and {2 * lag}, where the local exponent is {alpha:.2f} ± {spread:.2f}: D is "
            "half the slope there, and differs at other lags.",
            f"间隔 {lag} 至 {2 * lag} 步之间并非自由运动，局部指数为 {alpha:.2f} ± {spread:.2f}："
            "D 是该处斜率的一半，其他间隔处不同。",
        )
    ]
