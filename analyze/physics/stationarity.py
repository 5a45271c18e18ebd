"""Stationarity: Yaida's two fluctuation–dissipation relations, and the segments they hold in.

For SGD with momentum (Yaida 2019, FDR1′; PyTorch's sign of v),

    O_L = ⟨θ·g_t⟩,   O_R = η(1+μ)/(2(1−ν)) ⟨‖v_{t+1}‖²⟩,   O_L/O_R = 1 where ‖θ‖² is stationary.

`raw` takes θ as it is, from the exact inner products; `centred` takes θ − ⟨θ⟩, which tests the norm of the
fluctuation and is far more sensitive (Yaida 2019, footnote 4). The centred one is measured in the sketch, where the
relation holds for the projected motion exactly. FDR1 says nothing about the colour of the noise.

FDR2 tests the stationarity of the loss (Yaida 2019; in this form physics.md, V1, V10; exact for a quadratic loss, else
with corrections of higher order in η):

    ⟨‖∇L‖²⟩ = (η/2)((1+μ)/(1−ν)) ⟨vᵀHv⟩.

‖∇L‖² is g·g′ of independent batches and vᵀHv a Hessian-vector product, which is recorded with `curvature_every`. It
holds for all parameters together only: within a group H couples it to the others. It does not see the colour of
shuffled epochs: θ·ξ has a mean then, which enters g·g′ through g as it enters vᵀHv, and drops out.

At finite time the relation is a telescoping identity for any gradient sequence (physics.md, fact 3),

    (1−ν)(Ō_L − Ō_R) = −(1−μ)(‖θ_T‖² − ‖θ_0‖²)/(2ηT) + μ(s_T − s_0)/T,   s = θ·v,

so that its residual tests the recording itself, and the gap is known to the fluctuation of the two end points: the
error bars fall as 1/T, and are those of `series.telescoping_ratio_and_error`. In floating point the update is rounded;
`identity_floor` bounds what rounding can do to the residual (unit roundoff u of the parameters' type):

    u [ 2(1−μ)⟨‖θ‖²⟩/η + 4⟨‖θ‖‖v_{t+1}‖⟩ ] + the float64 roundoff of the sums.
"""

from itertools import pairwise

import numpy as np
import xarray as xr

from thermodl.record.check import unit_roundoff
from thermodl.record.format import MIN_STEPS

from .. import errorbar
from ..blocks import each, labelled, over_groups
from ..quantities import (
    at_probes,
    block_means,
    group_hyperparameters,
    group_sum,
    hyperparameters,
    is_nesterov,
    is_sgd,
    next_velocity_squared,
    require,
)
from ..segments import (
    Segment,
    choose_segment,
    constant_stretches,
    judge_segment,
    split_windows,
    stretches,
    window_coordinates,
    within,
)
from ..settings import AnalysisSettings, NotDefinedError
from ..verdicts import probe_verdicts, segment_verdict, verdict

USES = ("segment", "windows")
TITLE = "Stationarity"
TITLE_ZH = "平稳性"
FORMULA = (
    r"\frac{\langle\theta\cdot g\rangle}{\frac{\eta(1+\mu)}{2(1-\nu)}\langle\|v_{t+1}\|^2\rangle}=1"
    r"\qquad \frac{\langle g\cdot g'\rangle}{\frac{\eta(1+\mu)}{2(1-\nu)}\langle v^\top H v\rangle}=1"
)
EXPLANATION = (
    "Yaida's fluctuation–dissipation relation FDR1, as the ratio of its two sides: 1 where the squared norm of the "
    "parameters (raw) or of their fluctuation (centred) is stationary. "
    "Do not take it for equilibrium: it holds for any noise, coloured or not, and for the raw form a large constant "
    "part of the parameters can hide a drift. FDR2, where the curvature vᵀHv was recorded, is 1 if the loss is "
    "stationary; the colour of shuffled epochs it does not show."
)
EXPLANATION_ZH = (
    "Yaida 的涨落耗散关系 FDR1，以两边之比表示：参数范数平方（原始）或其涨落的范数平方（中心化）平稳时等于 1。"
    "不要把它当作平衡态的证据：无论噪声是否有色它都成立；对原始形式，参数中很大的常数部分可能掩盖漂移。"
    "若记录了曲率 vᵀHv，损失平稳时 FDR2 等于 1；它不反映打乱采样造成的噪声颜色。"
)
METHOD = (
    "FDR1: ratio of means; their gap telescopes, so its error is that of the two end points. FDR2: ratio of the "
    "means of g·g′ and of vᵀHv in common blocks of time, with a Γ-method error. The segment is the earliest "
    "eighth of the last stretch of constant hyper-parameters from which both halves agree in loss and squared "
    "displacement."
)
METHOD_ZH = (
    "FDR1：均值之比；两边之差逐项相消，误差来自两个端点的涨落。"
    "FDR2：g·g′ 与 vᵀHv 在共同时间块中的均值之比，误差用 Γ 方法。"
    "区间取超参数不变的最后一段中，最早使前后两半的损失与位移平方一致的起点。"
)
REFERENCE = "Yaida 2019, ICLR, arXiv 1810.00004, FDR1′, FDR2 and footnote 4; Geweke 1992; Wolff 2004."


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """FDR1 per group over the segment and over time, the identity's residual, and the segments.

    Returns:
        `fdr1_raw`, `fdr1_centred` (group,) and `_over_time` (group, window), dimensionless, with errors;
        `identity_residual` and `identity_floor` (group,), relative to O_R; per segment the split-half z scores;
        `fdr2` (group,), of `all` only, where curvature and probes are there.

    Raises:
        NotDefinedError: if the optimizer is not SGD without Nesterov.
        AnalysisError: if the run is too short.
    """
    if not is_sgd(run) or is_nesterov(run):
        kind = run.attrs["optimizer"]["class"]
        raise NotDefinedError(
            f"FDR1 in this form is that of heavy ball, not of {kind}{' with Nesterov momentum' * is_nesterov(run)}",
            f"这种形式的 FDR1 属于重球法，不适用于{'采用 Nesterov 动量的' * is_nesterov(run)} {kind}",
        )
    require(run, "velocity_squared", "parameter_sketch")
    segment = choose_segment(run, settings.segment)
    # Everything is read from the rows of the segment and the one after it, which holds its end point.
    last = next(stop for start, stop in stretches(run) if start <= segment.start < stop)
    # At the first step torch leaves the dampening out.
    first = max(1, segment.start)
    span = run.isel(step=slice(first, min(segment.stop + 1, last)))
    windows = split_windows([(max(1, start), stop - 1) for start, stop in stretches(run)], settings.windows)
    results: dict[str, xr.DataArray] = {}
    left, right = _sides(run)
    part = slice(first, first + span.sizes["step"] - 1)
    raw = errorbar.telescoping_ratio_with_error(left.isel(step=part), right.isel(step=part), "step")
    results |= errorbar.named("fdr1_raw", raw, "1", "FDR1, raw", "FDR1（原始）")
    part_of_segment = within(run, segment)
    if min(part_of_segment.sizes.get(dim, 0) for dim in ("curvature", "probe")) >= 4:
        value, error, n_eff = (values.where(values["group"] == "all") for values in second_ratio(part_of_segment))
        results |= errorbar.named("fdr2", (value, error, n_eff), "1", "FDR2", "FDR2")
    raw_curve = errorbar.window_telescoping_ratios(left, right, "step", windows)
    centred = errorbar.telescoping_ratio_with_error(*centred_sides(span, [(0, span.sizes["step"] - 1)]), "step")
    results |= errorbar.named("fdr1_centred", centred, "1", "FDR1, centred", "FDR1（中心化）")
    centred_curve = errorbar.window_telescoping_ratios(*centred_sides(run, windows), "step", windows)
    for name, curve, en, zh in (
        ("fdr1_raw_over_time", raw_curve, "FDR1, raw", "FDR1（原始）"),
        ("fdr1_centred_over_time", centred_curve, "FDR1, centred", "FDR1（中心化）"),
    ):
        results |= errorbar.named(name, curve, "1", en, zh, samples=False)
    residual, floor = identity(span)
    if segment.judgement == "scheduled":
        # It divides by the one learning rate of the segment.
        residual, floor = residual * np.nan, floor * np.nan
    text = {"units": "1", "long_name": "residual of the FDR1 identity", "long_name_zh": "FDR1 恒等式的残差"}
    results["identity_residual"] = residual.assign_attrs(text)
    text = {"units": "1", "long_name": "rounding floor of the identity", "long_name_zh": "恒等式的舍入误差下限"}
    results["identity_floor"] = floor.assign_attrs(text)
    segments, coordinates = _segments(run, segment)
    dataset = xr.Dataset(results | segments, coords=coordinates | window_coordinates(run, windows))
    dataset = dataset.compute()
    return dataset.assign_attrs(
        segment=[segment.start, segment.stop],
        segment_stationary=segment.stationary,
        verdicts=_verdicts(dataset, segment, run),
    )


_COARSE = 0.1
"""residual that rounding may leave in the identity, relative to its terms, from which on it tells nothing"""


def _sides(run: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """θ·g and η(1+μ)/(2(1−ν))‖v_{t+1}‖² of every step, (group, step)."""
    eta, mu, nu = hyperparameters(run)
    factor = eta * (1 + mu) / (2 * (1 - nu))
    # Layers without a learning rate stay where they are, whatever their gradient.
    left = xr.where(eta == 0, 0.0, run["parameter_dot_gradient"])
    return group_sum(left, run), group_sum(factor * next_velocity_squared(run), run)


def centred_sides(run: xr.Dataset, bounds: list[tuple[int, int]]) -> tuple[xr.DataArray, xr.DataArray]:
    """The same in the sketch for θ less its mean over each of the windows, NaN outside; v_{t+1} = −Δθ/η.

    NaN for a group whose layers have different hyper-parameters. The last row has no update, and no place in the
    result.
    """
    rows = run["parameter_sketch"].sizes["step"] - 1
    rates = [values.transpose("group", "step") for values in group_hyperparameters(run.isel(step=slice(rows)))]

    def add(
        _: int, theta: np.ndarray, gradient: np.ndarray, eta: np.ndarray, mu: np.ndarray, nu: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        left, squares = np.full(rows, np.nan), np.zeros(rows)
        for start, stop in bounds:
            left[start:stop] = 0.0
        for x, g in zip(theta, gradient, strict=True):
            squares += np.diff(x) ** 2
            for start, stop in bounds:
                left[start:stop] += (x[start:stop] - x[start:stop].mean()) * g[start:stop]
        with np.errstate(invalid="ignore", divide="ignore"):
            right = (1 + mu) / (2 * (1 - nu) * eta) * squares
        # What has no learning rate stays where it is, whatever its gradient.
        return np.where(eta == 0, 0.0, left), np.where(eta == 0, 0.0, right)

    found = over_groups(add, each("left", "right"), [run["parameter_sketch"], run["gradient_sketch"], *rates])
    left, right = (labelled(found[name], run, "step") for name in ("left", "right"))
    return left, right


def second_ratio(part: xr.Dataset) -> errorbar.Estimate:
    """⟨g·g′⟩ over (η/2)((1+μ)/(1−ν))⟨vᵀHv⟩, (group,): FDR2 of a group only where H does not couple it to others."""
    eta, mu, nu = hyperparameters(part)
    factor = eta * (1 + mu) / (2 * (1 - nu))
    # With a factor of its own for each layer the relation mixes them in another way.
    factor = factor.isel(layer=0).where((factor == factor.isel(layer=0)).all("layer"))
    curvature = group_sum(at_probes(factor, part, "curvature") * part["velocity_curvature"], part)
    squares = group_sum(part["gradient_dot"], part)
    top, bottom = block_means(part, probe=squares, curvature=curvature)
    return errorbar.ratio_with_error(top, bottom, "block")


def identity(span: xr.Dataset, edges: list[int] | None = None) -> tuple[xr.DataArray, xr.DataArray]:
    """Residual of the telescoping identity and its rounding floor, relative to O_R, (group,).

    Args:
        span: rows 0…T of a stretch with constant η, μ, ν; the last row is the end point.
        edges: rows that cut the span into windows, each with constant η, μ, ν, from its edge to the next. With them
            the results are (group, window).
    """
    at = xr.DataArray([0, span.sizes["step"] - 1] if edges is None else edges, dims="window")
    steps = at.diff("window")
    here = {"window": slice(0, -1)}

    def mean(values: xr.DataArray) -> xr.DataArray:
        sums = xr.apply_ufunc(
            lambda rows: np.add.reduceat(rows, at.values[:-1], axis=-1),
            values.isel(step=slice(0, int(at[-1]))).compute(),
            input_core_dims=[["step"]],
            output_core_dims=[["window"]],
        )
        return sums / steps

    eta, mu, nu = (values.isel(step=at[here]) for values in hyperparameters(span))
    # Layers without a learning rate obey no identity that divides by it.
    still, eta = eta == 0, eta.where(eta != 0)
    gain = span["parameter_squared"].isel(step=at).diff("window")
    turn = span["parameter_dot_velocity"].isel(step=at).diff("window")
    left = mean(span["parameter_dot_gradient"])
    next_squared = next_velocity_squared(span)
    right = eta * (1 + mu) / (2 * (1 - nu)) * mean(next_squared)
    telescoped = (-(1 - mu) * gain / (2 * eta) + xr.where(mu == 0, 0.0, mu * turn)) / steps
    residual = xr.where(still, 0.0, (1 - nu) * (left - right) - telescoped)
    unit = unit_roundoff(span.attrs)
    theta, velocity = span["parameter_squared"] ** 0.5, abs(next_squared) ** 0.5
    rounding = unit * (2 * (1 - mu) * mean(theta**2) / eta + 4 * mean(theta * velocity))
    # The stored sums are float64: a few roundoffs of their largest terms.
    ends = theta.isel(step=at) ** 2
    rounding = rounding + 8 * np.finfo(float).eps * (
        abs(left) + abs(right) + (ends.isel(window=slice(1, None)) + ends.isel(here)) / eta / steps
    )
    rounding, right = xr.where(still, 0.0, rounding), xr.where(still, 0.0, right)
    scale = group_sum(abs(right), span)
    scale = scale.where(scale > 0)
    relative = abs(group_sum(residual, span)) / scale, group_sum(rounding, span) / scale
    residual, floor = (values.isel(window=0) if edges is None else values for values in relative)
    return residual, floor


def _segments(run: xr.Dataset, chosen: Segment) -> tuple[dict[str, xr.DataArray], dict]:
    """The run cut where a hyper-parameter changes, where inner products were not taken, and at the ends of the chosen
    segment; short pieces are left out."""
    parts = stretches(run)
    edges = {edge for stretch in [*constant_stretches(run), *parts] for edge in stretch} | {chosen.start, chosen.stop}
    segments = []
    for start, stop in pairwise(sorted(edges)):
        if (start, stop) == (chosen.start, chosen.stop):
            segments.append(chosen)
        elif stop - start >= MIN_STEPS and any(first <= start < last for first, last in parts):
            segments.append(judge_segment(run, start, stop))
    values = {
        "loss_split_half": ([s.loss_z for s in segments], "split-half z score of the loss", "损失的前后半 z 值"),
        "displacement_split_half": (
            [s.displacement_z for s in segments],
            "split-half z score of the squared displacement",
            "位移平方的前后半 z 值",
        ),
        "segment_stationary_flag": (
            [float(s.stationary) for s in segments],
            "stationary (1) or not (0)",
            "平稳(1)或否(0)",
        ),
    }
    variables = {
        name: xr.DataArray(column, dims="segment", attrs={"units": "1", "long_name": en, "long_name_zh": zh})
        for name, (column, en, zh) in values.items()
    }
    coordinates = {
        "segment_start": ("segment", [s.start for s in segments]),
        "segment_stop": ("segment", [s.stop for s in segments]),
    }
    return variables, coordinates


def _verdicts(results: xr.Dataset, segment: Segment, run: xr.Dataset) -> list[dict[str, str]]:
    found = [segment_verdict(segment)]
    if "fdr2" in results:
        spoilt = probe_verdicts(run, within(run, segment), "fdr2")
        value, error, n_eff = (float(results[f"fdr2{part}"].sel(group="all")) for part in ("", "_stderr", "_n_eff"))
        found += spoilt or [_judge_fdr2(value, error, n_eff, run.attrs.get("sampling"))]
    value, error = (float(results[name].sel(group="all")) for name in ("fdr1_centred", "fdr1_centred_stderr"))
    if np.isnan(value):
        found.append(
            verdict(
                "fdr1_centred",
                "untrusted",
                "not-defined",
                "Not defined for all parameters together: layers of one group have different hyper-parameters, or "
                "nothing moves.",
                "对全部参数没有定义：同一组内各层的超参数不同，或参数不变。",
            )
        )
    elif segment.judgement == "scheduled" or not float(results["fdr1_centred_n_eff"].sel(group="all")) >= 10:
        found.append(
            verdict(
                "fdr1_centred",
                "untrusted",
                "unresolved",
                "Unresolved: fewer than ten effective samples in the segment, or mixed hyper-parameters.",
                "未分辨：区间内有效样本少于十个，或超参数有变化。",
            )
        )
    elif abs(value - 1) < 3 * error:
        found.append(
            verdict(
                "fdr1_centred",
                "ok",
                "holds",
                "Centred FDR1 holds within three standard errors.",
                "中心化 FDR1 在三倍标准误差内成立。",
            )
        )
    else:
        found.append(
            verdict(
                "fdr1_centred",
                "caution",
                "transient",
                f"Transient: centred FDR1 is {value:.4f} ± {error:.4f} instead of 1.",
                f"暂态：中心化 FDR1 为 {value:.4f} ± {error:.4f}，而不是 1。",
            )
        )
    residual, floor = (float(results[name].sel(group="all")) for name in ("identity_residual", "identity_floor"))
    if segment.judgement == "scheduled" or np.isnan(residual):
        return found
    if residual <= floor and floor > _COARSE:
        found.append(
            verdict(
                "identity_residual",
                "untrusted",
                "precision",
                f"Nothing is told by the identity: at the precision of {run.attrs['parameter_dtype']} rounding alone "
                f"may open it by {floor:.1e}. It moves the parameters too, so that FDR1 may miss 1 by itself.",
                f"恒等式不说明任何问题：在 {run.attrs['parameter_dtype']} 的精度下，仅舍入就可使残差达到 {floor:.1e}；"
                "舍入也会移动参数，FDR1 可能因此偏离 1。",
            )
        )
    elif residual <= floor:
        found.append(
            verdict(
                "identity_residual",
                "ok",
                "closes",
                f"The recording closes the FDR1 identity to {residual:.1e}; rounding allows {floor:.1e}.",
                f"记录满足 FDR1 恒等式，残差 {residual:.1e}；舍入允许 {floor:.1e}。",
            )
        )
    else:
        found.append(
            verdict(
                "identity_residual",
                "untrusted",
                "open",
                f"The recording misses the FDR1 identity by {residual:.1e}, more than rounding ({floor:.1e}) "
                "explains: parameters were changed outside the optimizer, or the store is damaged.",
                f"记录不满足 FDR1 恒等式：残差 {residual:.1e} 超过舍入误差 {floor:.1e}；"
                "参数在优化器之外被改动，或存储已损坏。",
            )
        )
    return found


def _judge_fdr2(value: float, error: float, n_eff: float, sampling: str | None) -> dict[str, str]:
    if not (n_eff >= 10 and error < 0.3 * abs(value)):
        return verdict(
            "fdr2",
            "untrusted",
            "unresolved",
            "Unresolved: fewer than ten effective samples, an error above a third, or layers of different "
            "hyper-parameters, for which FDR2 has another form.",
            "未分辨：有效样本少于十个，或误差超过三分之一，或各层超参数不同（此时 FDR2 形式不同）。",
        )
    if abs(value - 1) < 3 * error and sampling == "shuffle":
        return verdict(
            "fdr2",
            "caution",
            "blind",
            "FDR2 holds within three standard errors; of the colour of shuffled epochs g·g′ makes it blind.",
            "FDR2 在三倍标准误差内成立；但打乱采样下用 g·g′ 计算使它无法反映噪声的颜色。",
        )
    if abs(value - 1) < 3 * error:
        return verdict("fdr2", "ok", "holds", "FDR2 holds within three standard errors.", "FDR2 在三倍标准误差内成立。")
    return verdict(
        "fdr2",
        "caution",
        "transient",
        f"FDR2 is {value:.3f} ± {error:.3f} instead of 1: the loss is not stationary, or not quadratic within a step.",
        f"FDR2 为 {value:.3f} ± {error:.3f} 而不是 1：损失不平稳，或一步之内损失远非二次。",
    )
