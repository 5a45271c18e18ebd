"""Flatness: does the motion spread least where the loss is flattest, and would that be anything new?

Feng & Tu (2021) found σ_u² ∝ F_u^{−ψ} with ψ ≈ 4 in principal directions u of the motion, where equilibrium at one
temperature has σ² ∝ F². F_u is how far one can go along u until the loss is e times that of the minimum, which for
L₀ + ½λ_uθ² is 2√(2(e−1)L₀)·λ_u^{−1/2}. A recording holds no loss along lines, but gradients: with centred positions

    σ_u² = ⟨θ_u²⟩,   λ_u = ⟨θ_u g_u⟩/⟨θ_u²⟩ = uᵀHΣu/uᵀΣu,   F_u = λ_u^{−1/2},   C_uu = ⟨½(g−g′)_u²⟩

and the constant of F, the same in all directions, is left out. λ_u is the effective curvature, that of the Hessian H
where u is a principal direction of the motion and the loss quadratic. g of the step itself serves only where its noise
ξ_t knows nothing of θ_t. Under shuffled epochs it does, and makes λ_u as if the noise were white; g′ of the independent
probe at the same θ is right under any sampling, any momentum and any optimizer, and has no bias at any length. Neither
does a coupled weight decay spoil λ, which then holds it.

ψ is −d ln σ²/d ln F, and a is d ln C/d ln λ. For a quadratic loss and C_uu ∝ λ_u^a (physics.md 1.10, V11)

    ψ = 2(a−1)          batches drawn independently, stationary: σ² = eC(1+μ)/[λ(1−μ)(2(1+μ)−eλ)],   e = η(1−ν)
    ψ = 2a              epochs of M batches, in directions flatter than λ_× = 3(1−μ)/(e(M+1)), where
                        σ² = e²C(M+1)/(6(1−μ)²); or a window of N steps that is shorter than the relaxation, where θ is
                        a random walk and σ² = e²CN/(6(1−μ)²)

so that ψ = 4 needs nothing new where a = 2, or a = 3 by independent batches. In between, the variance under epochs is
that under independent batches times 1 − 2 Σ_{h<M} ρ(h)(M−h)/(M(M−1)), with the correlation ρ of physics.md 1.5: noise
of covariance −C(M−h)/(M(M−1)) (physics.md 1.6). The covariance C of the noise does not know of momentum, and λ neither.

Directions of largest variance in one stretch of time have too large a variance in it, the others too little: a thousand
directions of equal temperature may seem 700 times apart. So the first half of the segment chooses the directions, and
the second is measured; what the choice has favoured by chance is forgotten by then, but for motions as slow as the
segment. These show: the noise of a random walk chooses cosines of k half periods, which hold 6/(π²k²) of its variance
(Antognini & Sohl-Dickstein 2018). A direction whose motion in the first half is that cosine to 70 % (cosine content,
Hess 2002) is a drift, and not a fluctuation. A direction is used for the exponents if it is none, λ_u is larger than
three of its errors and the second half holds ten independent samples of θ_u², for a also ten effective probes of its
noise; the others are shown.

How the turn of directions is taken off is in `directions`, how exponents are fitted in `lines`. With twelve directions
over a factor of 30 and 40 relaxation times of the flattest in the second half, ψ and a at a = 2 are high by two fifths
of an error bar, at a = 1 by none, and intervals of 95 % cover 92–96 %. Directions of equal variance no stretch of time
tells apart: where λ does not differ by more than its errors there is no ψ, and where it hardly does ψ is that of
mixtures, up to 2 too small.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from thermodl.record.words import counted

from .. import errorbar
from ..directions import cosine_content, measure_stretch
from ..lines import FEWEST, chosen, differ, fit_line, relative_errors
from ..modes import Motion, principal_motions
from ..quantities import group_hyperparameters, group_names, group_sizes, is_nesterov, is_sgd, require, shuffled_epoch
from ..segments import choose_segment, within
from ..settings import AnalysisSettings
from ..verdicts import probe_verdicts, segment_verdict, verdict

USES = ("segment", "flatness_modes")
TITLE = "Variance and flatness"
TITLE_ZH = "方差与平坦度"
FORMULA = (
    r"\sigma_u^2\propto F_u^{-\psi}"
    r"\qquad F_u=\lambda_u^{-1/2}"
    r"\qquad \lambda_u=\frac{\langle\theta_u g_u\rangle}{\langle\theta_u^2\rangle}"
)
EXPLANATION = (
    "How far the parameters spread along each principal direction of their motion against how flat the loss is there, "
    "F = λ^(−1/2), with the curvature λ from how the gradient of an independent batch follows the position. The "
    "exponent ψ stands beside what a plain quadratic loss would give with the measured noise C ∝ λ^a: 2(a−1) for "
    "independent batches, 2a for shuffled epochs or a window shorter than the relaxation. "
    "Do not take ψ for a law of learning where it agrees with one of the two, nor use directions that are marked: "
    "their curvature is not resolved, or their motion is a drift. Directions of nearly equal variance are "
    "mixed: over a small range of curvatures ψ says little."
)
EXPLANATION_ZH = (
    "沿运动的各主方向，参数散布的方差与损失的平坦度 F = λ^(−1/2) 的关系；曲率 λ 由独立批次的梯度随位置的变化得到。"
    "指数 ψ 与二次损失在实测噪声 C ∝ λ^a 下的零假设值并列：独立批次为 2(a−1)，按轮次打乱采样或区间短于弛豫时间为 2a。"
    "若 ψ 与其中之一相符，就不要把它当作学习的规律；被标记的方向也不可采信：其曲率未分辨，或其运动只是漂移。"
    "方差相近的方向会相互混合：若曲率范围很窄，ψ 说明不了什么。"
)
METHOD = (
    "Directions from the first half of the segment, what is measured from the second; variance, curvature and noise "
    "freed of the turn of the directions to first order. Means and ratios of means with Γ-method errors. Exponents: "
    "straight lines with correlated errors in both coordinates, weights from the first half, errors from the influence "
    "of every step."
)
METHOD_ZH = (
    "方向由区间的前一半选出，被测的量取自后一半；方差、曲率与噪声已对方向的偏转作一阶修正。"
    "平均值与平均值之比的误差用 Γ 方法。"
    "指数：两坐标均有误差且相关的直线拟合，权重取自前一半的误差，其误差来自每一步的影响函数。"
)
REFERENCE = (
    "Feng & Tu 2021, PNAS 118:e2015617118; Kühn & Rosenow 2023, arXiv 2306.05300; "
    "Antognini & Sohl-Dickstein 2018, arXiv 1806.08805; Hess 2002, PRE 65:031910; "
    "York et al. 2004, Am. J. Phys. 72:367; Wolff 2004."
)
DRIFT = 0.7
"""cosine content from which a direction is a drift"""
LEAST_PROBES = 10
"""effective ones that the noise of a direction is taken from for the exponents"""
SIGMAS = 3
"""errors by which λ must exceed 0"""
_MODES = {
    "mode_variance": ("parameter2", "variance along the direction σ²", "沿该方向的方差 σ²"),
    "curvature": ("loss parameter-2", "effective curvature λ", "有效曲率 λ"),
    "curvature_gradient": ("loss parameter-2", "curvature from the gradients of the steps", "由各步梯度得到的曲率"),
    "curvature_probe": ("loss parameter-2", "curvature from independent probes", "由独立探针得到的曲率"),
    "flatness": ("parameter loss-1/2", "flatness F = λ^(−1/2)", "平坦度 F = λ^(−1/2)"),
    "mode_noise": ("loss2 parameter-2", "gradient noise along the direction C", "沿该方向的梯度噪声 C"),
    "relaxations": ("1", "relaxation times in the window", "区间所含的弛豫时间数"),
    "variance_iid": ("parameter2", "expected of independent batches", "独立批次的预期方差"),
    "variance_epoch": ("parameter2", "expected of shuffled epochs", "按轮次打乱采样的预期方差"),
    "variance_walk": ("parameter2", "expected of a random walk", "随机行走的预期方差"),
    "mode_variance_fraction": ("1", "fraction of the variance that chose the direction", "选出该方向的方差比例"),
    "variance_fraction_walk": ("1", "fraction in a random walk 6/(π²k²)", "随机行走中的比例 6/(π²k²)"),
    "cosine_content": ("1", "cosine content", "余弦含量"),
    "mode_used": ("1", "used for the exponents (1) or marked (0)", "用于拟合指数（1）或仅作标记（0）"),
}
_GROUPS = {
    "flatness_exponent": ("1", "exponent ψ of variance and flatness", "方差–平坦度指数 ψ"),
    "noise_exponent": ("1", "exponent a of noise and curvature", "噪声–曲率指数 a"),
    "exponent_iid": ("1", "ψ of independent batches 2(a−1)", "独立批次的 ψ：2(a−1)"),
    "exponent_epoch": ("1", "ψ of shuffled epochs or a short window 2a", "打乱采样或短区间的 ψ：2a"),
    "crossover_curvature": ("loss parameter-2", "curvature λ_× below which epochs show", "轮次效应显现的曲率上限 λ_×"),
    "fit_directions": ("1", "directions that the exponents rest on", "拟合所用的方向数"),
    "fit_scatter": ("1", "scatter about the line (χ² per degree of freedom)", "相对直线的离散（每自由度 χ²）"),
}

Floats = NDArray[np.float64]


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Variance, curvature, flatness and noise of principal directions, and the exponents that tie them together.

    Returns:
        Of each direction (group, mode): `mode_variance`, `curvature`, `flatness`, `mode_noise`, `curvature_gradient`
        and `curvature_probe` with errors; `variance_iid`, `variance_epoch` and `variance_walk`, what a quadratic loss
        gives with these; `relaxations` in the measured half, `cosine_content`, `mode_variance_fraction`,
        `variance_fraction_walk`, `mode_used`. Of each group: `flatness_exponent` ψ, `noise_exponent` a,
        `exponent_iid` and `exponent_epoch` with errors; `crossover_curvature`, `fit_directions`, `fit_scatter`. NaN
        where probes or hyper-parameters that one and the same number describes are missing.

    Raises:
        NotDefinedError: if it was recorded without sketches.
        AnalysisError: if the run is too short.
    """
    require(run, "parameter_sketch", "gradient_sketch")
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    half = part.sizes["step"] // 2
    probed = bool(part.sizes.get("probe")) and "probe_sketch" in part
    others = [part["gradient_sketch"], *([part["probe_sketch"]] if probed else [])]
    motions = principal_motions(part["parameter_sketch"], settings.flatness_modes, others, slice(half))
    places = part["probe_step"].values - int(part["step"].values[0]) if probed else np.zeros(0, int)
    independent = run.attrs.get("sampling") == "replacement"
    epoch = float(shuffled_epoch(run) or np.nan)
    # All groups together come last.
    everything, *rates = _rates(part)
    *rows, together = (
        measure_directions(motion, places, half, independent, rate, epoch)
        for motion, rate in zip(motions, [*rates, everything], strict=True)
    )
    dataset = _as_dataset([together, *rows], group_names(part), settings.flatness_modes)
    verdicts = [segment_verdict(segment), *_verdicts(run, part, dataset, probed)]
    return dataset.assign_attrs(
        segment=[segment.start, segment.stop], segment_stationary=segment.stationary, verdicts=verdicts
    )


def _rates(part: xr.Dataset) -> Floats:
    """η, μ, ν of all groups and of each, (1 + group, 3); NaN where there is no one number or they mean other things."""
    if not is_sgd(part) or is_nesterov(part):
        return np.full((1 + part.sizes["group"], 3), np.nan)
    values = np.stack([one.transpose("group", "step").values for one in group_hyperparameters(part)], axis=1)
    first = np.where(np.ptp(values, axis=2) == 0, values[:, :, 0], np.nan)
    # What a step never moves has no direction in which all could differ from the others.
    moving = first[first[:, 0] != 0] if np.any(first[:, 0] != 0) else first
    return np.concatenate([np.where(np.ptp(moving, axis=0) == 0, moving[:1], np.nan), first])


# -------------------------------------------------------------------------------------------------------- directions


def measure_directions(
    motion: Motion, places: NDArray[np.int64], half: int, independent: bool, rates: Floats, epoch: float
) -> dict[str, Floats]:
    """All numbers of one group.

    Args:
        motion: along the directions: positions and gradients of every step and, if any, g′ at the probes.
        places: steps of the probes. half: the first step that is measured.
        independent: whether the noise of a step knows nothing of where it is.
        rates: η, μ, ν. epoch: M; NaN for none.
    """
    before = measure_stretch(motion, places, slice(half), independent)
    # Where errors share their times: λ with σ² in the steps, or with C in the probes.
    errors = relative_errors(before.curvature, before.variance, independent)
    errors_of_noise = relative_errors(before.curvature, before.noise, not independent)
    del before  # as large as what follows
    measured = measure_stretch(motion, places, slice(half, None), independent)
    variance, curvature, noise = measured.variance, measured.curvature, measured.noise
    d, window = motion.positions[:, half:].shape
    content = cosine_content(motion.positions[:, :half])
    with np.errstate(invalid="ignore", divide="ignore"):
        flat = np.where(curvature.value > 0, curvature.value, np.nan) ** -0.5
        resolved = curvature.value > SIGMAS * curvature.error
        used = resolved & (variance.value > 0) & (variance.samples >= 10) & (content <= DRIFT)
        eta, mu, nu = rates
        rate = eta * (1 - nu)
        found = {
            "flatness": flat,
            "flatness_stderr": flat * curvature.error / curvature.value / 2,
            "relaxations": window * rate / (1 - mu) * curvature.value,
            "variance_iid": white_variance(noise.value, curvature.value, rate, mu),
            "variance_epoch": epoch_variance(noise.value, curvature.value, rate, mu, epoch),
            "variance_walk": rate**2 * noise.value * window / (6 * (1 - mu) ** 2),
            "mode_variance_fraction": motion.positions[:, :half].var(-1) / max(motion.variance, 1e-300),
            "variance_fraction_walk": 6 / (np.pi * np.arange(1, d + 1)) ** 2,
            "cosine_content": content,
            "mode_used": used.astype(float),
            "crossover_curvature": np.array(3 * (1 - mu) / (rate * (epoch + 1))),
        }
    for name, one in (
        ("mode_variance", variance),
        ("curvature", curvature),
        ("curvature_gradient", measured.by_step),
        ("curvature_probe", measured.by_probe),
        ("mode_noise", noise),
    ):
        found |= {name: one.value, f"{name}_stderr": one.error, f"{name}_n_eff": one.samples}
    # Curvatures that are one number within their errors draw a line by chance.
    fitted = used & differ(curvature.value[used], curvature.error[used])
    loud = fitted & (noise.value > 0) & (noise.samples >= LEAST_PROBES)
    spread = fit_line(chosen(curvature, fitted), chosen(variance, fitted), errors[:, fitted], shared=independent)
    noisy = fit_line(chosen(curvature, loud), chosen(noise, loud), errors_of_noise[:, loud], shared=not independent)
    for name, line, factor, shift in (
        ("flatness_exponent", spread, 2, 0),
        ("noise_exponent", noisy, 1, 0),
        ("exponent_iid", noisy, 2, -2),
        ("exponent_epoch", noisy, 2, 0),
    ):
        numbers = {"": factor * line.slope + shift, "_stderr": factor * line.error, "_n_eff": line.samples}
        found |= {f"{name}{end}": np.array(value) for end, value in numbers.items()}
    return found | {"fit_directions": np.array(float(used.sum())), "fit_scatter": np.array(spread.scatter)}


# ------------------------------------------------------------------------------------------------------------- nulls


@np.errstate(invalid="ignore", divide="ignore")
def white_variance(noise: Floats, curvature: Floats, rate: float, momentum: float) -> Floats:
    """σ² = eC(1+μ)/[λ(1−μ)(2(1+μ)−eλ)] of independent batches; NaN where the curvature is not positive or unstable."""
    room = 2 * (1 + momentum) - rate * curvature
    held = (curvature > 0) & (room > 0)
    value = rate * noise * (1 + momentum) / (curvature * (1 - momentum) * room)
    return np.where(held, value, np.nan)


@np.errstate(invalid="ignore", divide="ignore")
def epoch_variance(noise: Floats, curvature: Floats, rate: float, momentum: float, epoch: float) -> Floats:
    """σ² under epochs of M batches: that of independent ones times 1 − 2 Σ_{h<M} ρ(h)(M−h)/(M(M−1))."""
    white = white_variance(noise, curvature, rate, momentum)
    if not epoch > 1 or not np.isfinite(rate * momentum):
        return np.full_like(white, np.nan)
    first = 1 + momentum - rate * curvature
    before, now = np.ones_like(white), first / (1 + momentum)
    total = np.zeros_like(white)
    for lag in range(1, int(epoch)):
        total += (epoch - lag) * now
        before, now = now, first * now - momentum * before
    return white * (1 - 2 * total / (epoch * (epoch - 1)))


def _as_dataset(rows: list[dict[str, Floats]], names: list[str], count: int) -> xr.Dataset:
    """Rows of each group side by side, filled up with NaN where a group has fewer directions than `count`."""

    def stack(name: str, one: bool) -> xr.DataArray:
        out = np.full((len(rows), *([] if one else [count])), np.nan)
        for index, row in enumerate(rows):
            out[(index, *([] if one else [slice(len(row[name]))]))] = row[name]
        return xr.DataArray(out, dims=("group",) if one else ("group", "mode"))

    variables: dict[str, xr.DataArray] = {}
    for table, one in ((_MODES, False), (_GROUPS, True)):
        for name, (units, en, zh) in table.items():
            if f"{name}_stderr" not in rows[0]:
                variables[name] = stack(name, one).assign_attrs(units=units, long_name=en, long_name_zh=zh)
                continue
            samples = f"{name}_n_eff" in rows[0]
            counted = stack(f"{name}_n_eff", one) if samples else xr.DataArray(np.nan)
            found = (stack(name, one), stack(f"{name}_stderr", one), counted)
            variables |= errorbar.named(name, found, units, en, zh, samples=samples)
    return xr.Dataset(variables, coords={"group": names, "mode": np.arange(1, count + 1)})


# ---------------------------------------------------------------------------------------------------------- verdicts


def _verdicts(run: xr.Dataset, part: xr.Dataset, results: xr.Dataset, probed: bool) -> list[dict[str, str]]:
    everything = results.sel(group="all")
    found = probe_verdicts(run, part, "mode_noise", "curvature_gradient", "noise_exponent")
    found += [*_sampling(run, everything, probed), *_defined(run), *_sketch(part)]
    moved = int(everything["mode_variance"].notnull().sum())
    drifting = int((everything["cosine_content"] > DRIFT).sum())
    used = int(everything["mode_used"].sum())
    if drifting:
        found.append(
            verdict(
                "mode_variance",
                "caution",
                "drift-mode",
                f"Drift modes: the motion in {drifting} of {moved} directions is the cosine that a random walk or a "
                "drift makes; they are marked and not used.",
                f"漂移模式：{moved} 个方向中有 {drifting} 个的运动就是随机行走或漂移所给出的余弦；已标记，不参与拟合。",
            )
        )
    if used < moved:
        found.append(
            verdict(
                "curvature",
                "caution",
                "marked",
                f"{moved - used} of {moved} directions are marked and not used: their curvature is not known to differ "
                "from 0, their motion too slow for the segment, or a drift.",
                f"{moved} 个方向中有 {moved - used} 个仅作标记、不参与拟合：其曲率与 0 无法区分，"
                "或运动相对区间过慢，或只是漂移。",
            )
        )
    if is_sgd(run) and not is_nesterov(run) and np.isnan((rates := _rates(part))[0]).any():
        en = "Not defined: hyper-parameters change within the segment, and no one line is expected of its directions."
        zh = "没有定义：区间内超参数有变化，各方向不应落在同一条直线上。"
        if np.isfinite(rates[1:]).all(axis=1).any():
            en = (
                "Not defined for all parameters together, whose layers have different hyper-parameters: no one line "
                "is expected of their directions. Take the groups one by one."
            )
            zh = "对全部参数没有定义：各层的超参数不同，其方向不应落在同一条直线上。请逐个层组查看。"
        return [
            *found,
            *_mixed(everything),
            verdict("flatness_exponent", "untrusted", "not-defined", en, zh),
        ]
    return [*found, *_mixed(everything), *_exponents(everything, used)]


def _mixed(everything: xr.Dataset) -> list[dict[str, str]]:
    """A word where half of the directions in use have a neighbour that no stretch of this length tells from them."""
    used = everything.isel(mode=everything["mode_used"].values > 0)
    variance, error = used["mode_variance"].values, used["mode_variance_stderr"].values
    order = np.argsort(variance)
    logarithm, spread = np.log(variance[order]), (error / variance)[order]
    alike = np.diff(logarithm) < np.hypot(spread[1:], spread[:-1])
    mixed, count = int(np.sum(np.append(alike, False) | np.append(False, alike))), len(variance)
    if not mixed or 2 * mixed < count:
        return []
    return [
        verdict(
            "curvature",
            "caution",
            "mixed-directions",
            f"Mixed directions: the variances of {mixed} of {count} directions differ from the next by less than their "
            "errors; such directions are mixtures, and λ along them is that of the mixture.",
            f"方向相混：{count} 个方向中有 {mixed} 个的方差与相邻方向之差小于误差；这些方向是混合方向，"
            "沿其方向的 λ 也是混合后的值。",
        )
    ]


def _sampling(run: xr.Dataset, everything: xr.Dataset, probed: bool) -> list[dict[str, str]]:
    sampling = run.attrs.get("sampling")
    if sampling == "replacement":
        return []
    if not probed:
        return [
            verdict(
                "curvature",
                "untrusted",
                "no-probe",
                "Not estimated: batches were not drawn independently, or it was not recorded how, and only gradients "
                "of independent probes tell the curvature then; curvature_gradient is that of white noise.",
                "未估计：批次不是独立抽取的（或未记录采样方式），此时只有独立探针的梯度才能给出曲率；"
                "curvature_gradient 只对白噪声成立。",
            )
        ]
    if sampling != "shuffle":
        return [
            verdict(
                "",
                "caution",
                "sampler-unknown",
                "The sampling scheme was not recorded, and so it is open which of the two null hypotheses holds.",
                "未记录采样方式，因此无法确定哪一个零假设适用。",
            )
        ]
    crossover = float(everything["crossover_curvature"])
    if not np.isfinite(crossover):
        return [
            verdict(
                "flatness_exponent",
                "caution",
                "sampler-limited",
                "Shuffled epochs: the order of the batches sets the variance of flat directions, and of which is not "
                "known for this optimizer or schedule.",
                "按轮次打乱采样：平坦方向的方差由批次的次序决定，而对这种优化器或学习率变化，无法得知是哪些方向。",
            )
        ]
    flat = int((everything["curvature"] < crossover).sum())
    return [
        verdict(
            "flatness_exponent",
            "caution",
            "sampler-limited",
            f"Shuffled epochs: in {flat} directions the curvature is below λ_× = {crossover:.2e}, where the order of "
            "the batches sets the variance, and not the loss.",
            f"按轮次打乱采样：有 {flat} 个方向的曲率低于 λ_× = {crossover:.2e}，其方差由批次的次序而不是损失决定。",
        )
    ]


def _defined(run: xr.Dataset) -> list[dict[str, str]]:
    if is_sgd(run) and not is_nesterov(run):
        return []
    name = "Nesterov momentum" if is_sgd(run) else str(run.attrs["optimizer"]["class"])
    name_zh = "Nesterov 动量" if is_sgd(run) else str(run.attrs["optimizer"]["class"])
    return [
        verdict(
            "exponent_iid",
            "untrusted" if not is_sgd(run) else "caution",
            "not-defined",
            f"The expected variances are not defined for {name}"
            + ("." if is_sgd(run) else ", and the expected exponents are those of SGD: do not hold ψ against them."),
            f"对 {name_zh} 没有定义预期方差" + ("。" if is_sgd(run) else "，预期指数则是 SGD 的：不可与 ψ 比较。"),
        )
    ]


def _sketch(part: xr.Dataset) -> list[dict[str, str]]:
    """Groups whose directions are sums of many parameters with random signs."""
    width = part.sizes["sketch"]
    mixed = int((group_sizes(part)[1:] > width).sum())
    if not mixed:
        return []
    return [
        verdict(
            "",
            "caution",
            "sketch-directions",
            f"Sketch directions only: in {mixed} of {part.sizes['group']} groups a direction is a sum of parameters "
            f"through a sketch of {width} coordinates; what is flat in it is mixed with what is steep.",
            f"仅为随机投影中的方向：{part.sizes['group']} 个层组中有 {mixed} 个的方向是参数经 {width} 个投影坐标的"
            "线性组合，平坦与陡峭的成分混在一起。",
        )
    ]


def _exponents(everything: xr.Dataset, used: int) -> list[dict[str, str]]:
    name = "flatness_exponent"
    value, error = float(everything[name]), float(everything[f"{name}_stderr"])
    if not np.isfinite(error):
        why = f"the curvature is resolved of {counted(used, 'direction')}, an exponent takes {FEWEST}"
        why_zh = f"只有 {used} 个方向的曲率已分辨，拟合指数至少需要 {FEWEST} 个"
        code = "unresolved"
        fitted = everything.isel(mode=everything["mode_used"].values > 0)
        if used >= FEWEST and not differ(fitted["curvature"].values, fitted["curvature_stderr"].values):
            code = "no-range"
            why = "the curvatures of the directions do not differ by more than their errors"
            why_zh = "各方向的曲率之差不超过其误差"
        elif used >= FEWEST:
            why = "the first half of the segment does not tell the errors of these directions"
            why_zh = "区间前一半的数据不足以给出这些方向的误差"
        return [
            verdict(one, "untrusted", code, f"Unresolved: {why}.", f"未分辨：{why_zh}。")
            for one in (name, "noise_exponent", "exponent_iid", "exponent_epoch")
            if not np.isfinite(float(everything[f"{one}_stderr"]))
        ]
    found = []
    scatter = float(everything["fit_scatter"])
    if scatter > 1 + 3 * np.sqrt(2 / (used - 2)):
        found.append(
            verdict(
                name,
                "caution",
                "no-power-law",
                f"No power law: the directions scatter about the line with χ² = {scatter:.1f} per degree of freedom.",
                f"不成幂律：各方向相对直线的离散为每自由度 χ² = {scatter:.1f}。",
            )
        )
    nulls = {
        one: (float(everything[f"exponent_{one}"]), float(np.hypot(everything[f"exponent_{one}_stderr"], error)))
        for one in ("iid", "epoch")
    }
    if not np.isfinite(nulls["iid"][1]):
        return found + [
            verdict(
                one,
                "untrusted",
                "unresolved",
                f"Unresolved: it takes the noise of {FEWEST} of these directions, each from {LEAST_PROBES} effective "
                "probes in each half of the segment; record with a smaller probe_every.",
                f"未分辨：需要其中 {FEWEST} 个方向的噪声，且区间前后两半各至少有 {LEAST_PROBES} 个有效探针；"
                "请减小 probe_every 重新记录。",
            )
            for one in ("noise_exponent", "exponent_iid", "exponent_epoch")
            # Without any probe that is said already.
            if bool(np.isfinite(everything["mode_noise"]).any())
        ]
    agree = [one for one, (null, spread) in nulls.items() if abs(value - null) <= 2 * spread]
    words = {
        "iid": ("independent batches", "独立批次"),
        "epoch": ("shuffled epochs or a short window", "打乱采样或短区间"),
    }
    expected = ", ".join(f"{null:.2f} ± {error_:.2f}" for null, error_ in nulls.values())
    if agree:
        en, zh = (" or ".join(words[one][0] for one in agree), "或".join(words[one][1] for one in agree))
        found.append(
            verdict(
                name,
                "caution" if len(agree) > 1 or found else "ok",
                "as-expected",
                f"ψ = {value:.2f} ± {error:.2f} is what {en} in a quadratic loss would give.",
                f"ψ = {value:.2f} ± {error:.2f}，正是二次损失下{zh}的预期值。",
            )
        )
    else:
        found.append(
            verdict(
                name,
                "caution",
                "not-expected",
                f"ψ = {value:.2f} ± {error:.2f} agrees with neither null hypothesis ({expected}, the errors of both "
                "taken together): directions between the two regimes, a loss that is not quadratic, or something new.",
                f"ψ = {value:.2f} ± {error:.2f} 与两个零假设（{expected}，已合并两者误差）都不符："
                "各方向处于两种情形之间，或损失不是二次的，或确有新现象。",
            )
        )
    return found
