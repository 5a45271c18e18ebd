"""Response: how the parameters answer a push, from probes alone, and the fluctuation–dissipation theorem (FDT).

Nothing is perturbed. At a probe the noise of the step is known, ξ_s = g_s − g′_s with the gradient g′ of an independent
batch, and what follows correlates with it (Novikov 1965; Warren & Allen 2012; Szamel 2017):

    𝓡(τ) = −⟨(θ_{s+τ} − θ_s)·ξ_s⟩ = tr(R(τ) C),   R(t−s) = ∂⟨θ_t⟩/∂h_s for h subtracted from g_s.

The noise of g′ costs variance and no bias: no later θ knows of it. 𝓡 is the response to kicks shaped like the noise;
reported is that per noise, R̄(τ) = 𝓡(τ)/tr C, a mean of R over directions weighted by their noise, which is not tr R/P
unless C is isotropic, and χ(τ) = Σ_{u≤τ} R̄(u); of all groups, weighted by η(1−ν)/(1−μ) too, where that differs. Both
hold for linear dynamics with white noise, whatever its distribution, and for any loss and optimizer if the noise is
Gaussian and does not depend on θ; else they are correlations of noise and motion. Under shuffled epochs ξ has memory,
they are not the response, and are called noise–response correlation.

χ–Δ: heavy ball on a quadratic loss has in every eigendirection of H, at every ηλ, confined or free, also with dampening
and coupled weight decay, c(τ−1) − c(τ+1) = 2T R(τ) with T = η(1−ν)C/(2(1−μ)) (physics.md 1.5). Summed over directions,
in which what [H, C] ≠ 0 violates cancels, and over lags, no temperature is left, whatever C:

    X_Δ(τ) = η(1−ν)/(1−μ) Σ_{u≤τ} 𝓡(u) / Δ̃(τ) = 1,   Δ̃(τ) = ½[Δ(τ) + Δ(τ+1) − Δ(1)],   Δ(τ) = ⟨‖θ_{s+τ} − θ_s‖²⟩.

In other words χ = Δ̃/(2TP) with the noise thermometer's T per parameter, the line of the parametric plot, and the FDT
thermometer Δ̃/(2Pχ), which is [c(τ−1) − c(τ+1)]/(2R(τ)) as a ratio of sums over directions and lags, reads T/X_Δ. Up to
lag 1 that is the kinetic temperature; up to τ, that of motion as slow as τ. Δ is as it is: a drift V adds V²τ², and
lowers X_Δ. `fdt_ratio` and `fdt_temperature` are those at 5/(1−μ), by when the velocity is forgotten. A ratio of 1 in
the trace does not verify equilibrium direction by direction.

χ–C: X_C has 2[c̃(0) − c̃(τ)], c̃(τ) = ½[c(τ) + c(τ+1)], in the place of Δ̃, of positions centred on the segment, with the
products taken at the later time; against c̃ χ is a line of slope −1/T. (Centring lowers all of c̃ alike, by the variance
of the mean.) It is given for stationary segments only, where it is X_Δ up to what is left of ageing. Free diffusion,
which has no stationary c, would give X_C = ½, which is no discovery.

Asymmetry: for any loss and white noise, if only increments are stationary,

    (1−μ)/(η(1−ν)) [Δ(τ+1) − Δ(τ−1)]/2 = 𝓡(τ) − A(τ),   A(τ) = ⟨(θ_t − θ_s)·(∇L_s + ∇L_t)⟩,   t = s+τ.

That is the discrete form of 2TR = ∂_sC − ∂_tC − A (Cugliandolo, Kurchan & Parisi 1994); A is 0 on a quadratic loss and
in equilibrium, and negative under a drift. It is measured with g′_s for ∇L_s and g_t for ∇L_t, whose noise does not
know of θ_t − θ_s. g′ then drops out of the difference of both sides, whose size in standard errors is `asymmetry_z`: a
check of the recording and of its being stationary, not of the colour of the noise.

Not defined: X where temperatures differ with frequency (Nesterov) or parameter (Adam), and where a hyper-parameter
changes. Under decoupled decay by a = 1 − η·wd it would be that of heavy ball with momentum μa; torch's SGD has none.

All probes of the segment are origins, however they are spaced. Errors come from time, by the Γ-method over the origins,
of the joint fluctuation of numerator and denominator, over at least 3/(1−μ) steps. They are safe rather than tight
where probes are closer than the velocity's memory: the fluctuations then cancel in part, and count as independent. To
them comes the relative error √(2/(k d_eff)) of the sketch, 0 where a group has no more than k parameters; for X it is
safe too, since both sides are seen through the same sketch. The bias of a ratio of means is taken off by a jackknife.
One origin knows 𝓡(τ) to √((2τ+1)/d_eff) (physics.md, V12), so that long lags take many probes.
"""

from functools import partial
from typing import Any

import numba
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import errorbar, series
from ..blocks import as_estimate, over_groups
from ..quantities import (
    correlated_steps,
    displacement_dimensions,
    group_mobility,
    group_sizes,
    group_sum,
    is_nesterov,
    is_sgd,
    require,
    sgd_time_per_step,
    velocity_memory,
    with_all,
)
from ..segments import Segment, choose_segment, within
from ..settings import AnalysisError, AnalysisSettings, NotDefinedError
from ..verdicts import few_probes_verdicts, mixed_layers_verdicts, probe_verdicts, segment_verdict, verdict

USES = ("segment", "lags_per_decade")
TITLE = "FDT"
TITLE_ZH = "涨落耗散定理"
FORMULA = (
    r"\mathcal R(\tau)=-\langle(\theta_{s+\tau}-\theta_s)\cdot\xi_s\rangle=\mathrm{tr}\,RC"
    r"\qquad X_\Delta(\tau)=\frac{\eta(1-\nu)}{1-\mu}\,"
    r"\frac{\sum_{u\le\tau}\mathcal R(u)}{\frac12[\Delta(\tau)+\Delta(\tau+1)-\Delta(1)]}"
)
EXPLANATION = (
    "How the parameters answer a push, measured without pushing: from the correlation of their motion with the noise "
    "of earlier steps, which independent mini-batches tell. X compares it with the fluctuations at the temperature of "
    "the noise: 1 where both belong to that one temperature, less where the slow motion is hotter. "
    "It is the response only if the dynamics is linear or the noise Gaussian, and never under shuffled epochs, whose "
    "noise has memory; a drift lowers X, and X = 1 in the sum over parameters does not prove equilibrium. (X_C = ½ of "
    "free diffusion is no discovery: read X_Δ first.)"
)
EXPLANATION_ZH = (
    "参数对推力的响应，无需施加推力：由参数运动与先前各步噪声（用独立小批量测得）的关联得到。"
    "X 在噪声温度下比较响应与涨落：二者同属这一温度时等于 1，慢运动更热时小于 1。"
    "只有动力学为线性或噪声为高斯时它才是响应；按轮次打乱采样时噪声有记忆，它不是响应。"
    "漂移会降低 X；对参数求和后的 X = 1 不能证明平衡。（自由扩散的 X_C = ½ 并非新发现：应先看 X_Δ。）"
)
METHOD = (
    "Averages over all probes of the segment as origins, through the sketch; errors by the Γ-method from the joint "
    "fluctuation of numerator and denominator, in squares with the sketch's error."
)
METHOD_ZH = (
    "以区间内全部探针为时间起点，用随机投影作平均；误差取分子与分母的联合涨落（Γ 方法），并与随机投影误差平方相加。"
)
REFERENCE = (
    "Novikov 1965, Sov. Phys. JETP 20, 1290; Cugliandolo, Kurchan & Parisi 1994, J. Phys. I 4, 1641; "
    "Warren & Allen 2012, Phys. Rev. Lett. 109, 250601; Szamel 2017, EPL 117, 50010; Wolff 2004, hep-lat/0306017."
)
NAMES = {
    "response": ("response per noise", "响应（按噪声）", "parameter2 loss-1"),
    "integrated_response": ("integrated response χ", "积分响应 χ", "parameter2 loss-1"),
    "displacement": ("displacement ½[Δ(τ)+Δ(τ+1)−Δ(1)]", "位移 ½[Δ(τ)+Δ(τ+1)−Δ(1)]", "parameter2"),
    "response_of_displacement": ("Δ/2T at the noise temperature", "噪声温度下的 Δ/2T", "parameter2 loss-1"),
    "displacement_ratio": ("fluctuation–dissipation ratio X_Δ", "涨落耗散比 X_Δ", "1"),
    "correlation": ("correlation ½[c(τ)+c(τ+1)]", "关联 ½[c(τ)+c(τ+1)]", "parameter2"),
    "response_of_correlation": ("[c(0)−c(τ)]/T at the noise temperature", "噪声温度下的 [c(0)−c(τ)]/T",
                                "parameter2 loss-1"),
    "correlation_ratio": ("fluctuation–dissipation ratio X_C", "涨落耗散比 X_C", "1"),
    "asymmetry": ("asymmetry A", "不对称性 A", "loss"),
    "fdt_ratio": ("fluctuation–dissipation ratio X_Δ at one lag", "单一时间差的涨落耗散比 X_Δ", "1"),
    "fdt_temperature": ("FDT temperature", "涨落耗散温度", "loss"),
    "temperature_noise": ("noise temperature", "噪声温度", "loss"),
}  # fmt: skip
_UNDER_EPOCHS = {
    "response": ("noise–response correlation", "噪声–响应关联", "parameter2 loss-1"),
    "integrated_response": ("integrated noise–response correlation", "积分噪声–响应关联", "parameter2 loss-1"),
}
_UNKNOWN_MEMORY = 10
"""1/(1−μ) where the optimizer does not say its momentum; that of μ = 0.9"""
_BLOCKS = 8
"""of the jackknife that takes the bias off a ratio of means"""
_OPEN = 4.0
"""standard errors from which on the asymmetry identity counts as violated, of many lags the worst"""


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Response, its sum, what both are held against, and the fluctuation–dissipation ratios, per group.

    Args:
        run: from `open_run`.

    Returns:
        `response` R̄ and `integrated_response` χ (group, lag), in parameter²/loss. For SGD without Nesterov, decoupled
        decay or a schedule also, over (group, lag), `displacement` ½[Δ(τ)+Δ(τ+1)−Δ(1)]/P, `response_of_displacement`,
        the χ that it stands for at the noise temperature, `displacement_ratio` X_Δ, `asymmetry` A, `asymmetry_z`; where
        stationary `correlation` ½[c(τ)+c(τ+1)]/P, `response_of_correlation` and `correlation_ratio` X_C; over (group,)
        `fdt_ratio` X_Δ and `fdt_temperature` at the lag `response_lag`, and `temperature_noise`. All with errors.

    Raises:
        NotDefinedError: if the run was recorded without probes or sketches.
        AnalysisError: if it is too short.
    """
    require(run, "parameter_sketch", "gradient_sketch")
    try:
        require(run, "probe_sketch", "noise_trace")
    except AnalysisError as error:
        raise NotDefinedError(
            f"the response is that to the noise between probes: {error}", "响应须由探针及其随机投影得到，这次记录中没有"
        ) from error
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    basis = {"segment": [segment.start, segment.stop], "segment_stationary": segment.stationary}
    spoilt = probe_verdicts(run, part, "response")
    # The first step of the segment has no step before it, which the kernel takes.
    part = part.isel(probe=part["probe_step"].values > segment.start)
    if not part.sizes["probe"]:
        first = verdict(
            "response",
            "untrusted",
            "no-probe",
            "Not measured: the only probe of the segment is at its first step, and has no step before it; record with "
            "a smaller probe_every.",
            "未测量：区间内唯一的探针位于其第一步，之前没有步；请减小 probe_every 重新记录。",
        )
        return xr.Dataset(attrs=basis | {"verdicts": [segment_verdict(segment), *(spoilt or [first])]})
    lags = series.log_lags(part.sizes["step"] // 4, settings.lags_per_decade)
    memory = velocity_memory(part)
    memory = _UNKNOWN_MEMORY if np.isnan(memory) else memory
    needed = int(np.ceil(round(5 * memory, 6)))
    at = int(np.searchsorted(lags, needed, side="right")) - 1
    undefined = _undefined(run, segment)
    kick = group_mobility(part) if undefined is None else xr.DataArray(1.0)
    found = _measure(part, lags, at, kick, ratios=undefined is None, stationary=segment.stationary)
    results: dict[str, xr.DataArray] = {}
    if undefined is None:
        results["asymmetry_z"] = _identity_score(found.pop("gap"))
    apart = int(np.clip(round(memory), 1, part.sizes["step"] // 16))
    of_sketch = displacement_dimensions(part, part["parameter_sketch"], [apart])[0]["error"]
    names = NAMES | (_UNDER_EPOCHS if run.attrs.get("sampling") == "shuffle" else {})
    for name, (value, error, n_eff) in found.items():
        seen = 0.0 if name == "temperature_noise" else of_sketch
        en, zh, units = names[name]
        results |= errorbar.named(name, (value, (error**2 + (value * seen) ** 2) ** 0.5, n_eff), units, en, zh)
    clock = {"lag": lags, "lag_sgd_time": ("lag", lags * sgd_time_per_step(part))}
    dataset = xr.Dataset(results, coords=clock).compute()
    if undefined is None:
        dataset = dataset.assign_attrs(response_lag=int(lags[at]), response_lag_needed=needed)
    verdicts = [segment_verdict(segment), *_verdicts(run, part, dataset, undefined)]
    return dataset.assign_attrs(basis, verdicts=verdicts)


def _undefined(run: xr.Dataset, segment: Segment) -> tuple[str, str] | None:
    """Why there is no ratio, in both languages."""
    if not is_sgd(run):
        kind = run.attrs["optimizer"]["class"]
        return (
            f"for {kind}: each parameter has a temperature of its own, which depends on its preconditioner",
            f"{kind} 的每个参数各有取决于预条件因子的温度",
        )
    if is_nesterov(run):
        return "for Nesterov momentum: its temperature depends on frequency", "Nesterov 动量的温度随频率变化"
    if run.attrs["optimizer"].get("weight_decay_kind") == "decoupled" and bool((run["weight_decay"] > 0).any()):
        return (
            "under decoupled weight decay, which takes the place of a part of the momentum",
            "解耦权重衰减会改变有效动量",
        )
    if segment.judgement == "scheduled":
        return "where a hyper-parameter changes: so does the temperature", "区间内超参数变化，温度随之变化"
    return None


def _measure(
    part: xr.Dataset, lags: np.ndarray, at: int, kick: xr.DataArray, *, ratios: bool, stationary: bool
) -> dict[str, errorbar.Estimate]:
    """Ratios of means over the origins, (group, lag) or (group,), with noise weighted by `kick`, η(1−ν)/(1−μ).

    Args:
        at: which of the lags the FDT ratio is reported at.
        ratios: whether there is a temperature that the response can be held against. stationary: and correlations.
    """
    origins, steps = part["probe_step"].values - int(part["step"].values[0]), part.sizes["step"]
    counts = np.searchsorted(origins, steps - 1 - lags)
    reach = np.searchsorted(origins, origins + correlated_steps(part), side="right") - np.arange(len(origins)) - 1
    ratio = partial(ratios_of_origins, memory=int(np.ceil(reach.mean())))
    of_groups = group_sum(part["noise_trace"], part).isel(group=slice(1, None)).drop_vars("group")
    heats, sizes = with_all(kick * of_groups, part).transpose("group", "probe").values, group_sizes(part).values
    kicks = np.broadcast_to(kick.values, part.sizes["group"])

    def add(group: int, x: np.ndarray, gradient: np.ndarray, probe: np.ndarray) -> tuple[np.ndarray]:
        probe = probe.astype(float)
        noise = gradient[:, origins] - probe
        centred = x - x.mean(-1, keepdims=True, dtype=float)
        terms = response_products(centred, np.ascontiguousarray(gradient), noise, probe, origins, lags)
        terms[:2] *= kicks[group]
        # What has no learning rate does not move.
        terms[6] = (1 / kicks[group] if kicks[group] else 0.0) * terms[6] + terms[7]
        return (terms[:7],)

    def finish(row: int, terms: np.ndarray) -> dict[str, Any]:
        kicked, pushed, moved, together, apart, asymmetry, gap = terms
        heat, ones = np.broadcast_to(heats[row], moved.shape), np.ones_like(moved)
        found = {"response": ratio(kicked, heat, counts), "integrated_response": ratio(pushed, heat, counts)}
        if not ratios:
            return found
        # ⟨moved⟩⟨heat⟩/⟨pushed⟩: the product of two means as that of a series that fluctuates as it does, to first
        # order.
        here, count = slice(at, at + 1), counts[at]
        with np.errstate(invalid="ignore"):
            mean_moved, mean_heat = (np.sum(values[here, :count]) / count for values in (moved, heat))
        both = moved[here] * mean_heat + mean_moved * (heat[here] - mean_heat)
        hot = ratio(both, 2 * sizes[row] * pushed[here], counts[here])
        found |= {
            "asymmetry": ratio(asymmetry, ones, counts),
            "gap": ratio(gap, ones, counts),
            "displacement": ratio(moved / sizes[row], ones, counts),
            "response_of_displacement": ratio(moved, heat, counts),
            "displacement_ratio": ratio(pushed, moved, counts),
            "fdt_temperature": tuple(values[0] for values in hot),
            "temperature_noise": series.mean_and_error(heats[row] / (2 * sizes[row])),
        }
        found["fdt_ratio"] = tuple(values[at] for values in found["displacement_ratio"])
        if stationary:
            lost = 2 * (together - apart)
            found |= {
                "correlation": ratio(apart / sizes[row], ones, counts),
                "response_of_correlation": ratio(lost, heat, counts),
                "correlation_ratio": ratio(pushed, lost, counts),
            }
        return found

    found = over_groups(add, finish, [part[f"{name}_sketch"] for name in ("parameter", "gradient", "probe")])
    return {name: as_estimate(values, part, "lag") for name, values in found.items()}


def _identity_score(gap: errorbar.Estimate) -> xr.DataArray:
    """Gap of the asymmetry identity in standard errors, (group, lag); the sketch keeps both sides alike."""
    value, error, _ = gap
    return (value / error.where(error > 0)).assign_attrs(
        units="1",
        long_name="gap of the asymmetry identity in standard errors",
        long_name_zh="不对称恒等式的偏差（以标准误差计）",
    )


def _verdicts(
    run: xr.Dataset, part: xr.Dataset, results: xr.Dataset, undefined: tuple[str, str] | None
) -> list[dict[str, str]]:
    names = ("integrated_response", "displacement_ratio", "correlation_ratio", "fdt_ratio", "fdt_temperature")
    held = [name for name in names if name in results]
    found = probe_verdicts(run, part, "response", *held)
    if run.attrs.get("sampling") == "shuffle":
        found += [
            verdict(
                name,
                "untrusted",
                "sampler-limited",
                "Sampler-limited: shuffled epochs give coloured noise; this is its correlation with the motion, not "
                "the response.",
                "受采样限制：按轮次打乱采样的噪声有记忆；这是它与运动的关联，不是响应。",
            )
            for name in ("response", *held)
        ]
    elif run.attrs.get("sampling") != "replacement":
        found.append(
            verdict(
                "response",
                "caution",
                "sampler-unknown",
                "The sampling scheme was not recorded; under shuffled epochs this would not be the response.",
                "未记录采样方式；若为按轮次打乱采样，这就不是响应。",
            )
        )
    if not is_sgd(run):
        found.append(
            verdict(
                "response",
                "caution",
                "gaussian-only",
                "The response only if the noise is Gaussian: the optimizer is not linear in the gradient.",
                "仅当噪声为高斯时才是响应：该优化器对梯度不是线性的。",
            )
        )
    if undefined is not None:
        return [
            *found,
            verdict(
                "displacement_ratio",
                "untrusted",
                "not-defined",
                f"The fluctuation–dissipation ratio is not defined {undefined[0]}.",
                f"涨落耗散比没有定义：{undefined[1]}。",
            ),
        ]
    # What spoils the response spoils the comparison too, but not the identity.
    spoilt = any(one["status"] == "untrusted" for one in found)
    found += few_probes_verdicts(results, "temperature_noise")
    mixed = mixed_layers_verdicts(part, results, "fdt_ratio", "fdt_temperature")
    return found + ([] if spoilt else mixed or [*_compare(results), *_short_lag(results)]) + _closure(results)


def _short_lag(results: xr.Dataset) -> list[dict[str, str]]:
    """A word where the segment is too short for X at the lag that it is meant for."""
    lag, needed = results.attrs["response_lag"], results.attrs["response_lag_needed"]
    # Lags lie on a ladder, of which the last one below is taken.
    if 2 * lag >= needed:
        return []
    return [
        verdict(
            "fdt_ratio",
            "caution",
            "lag-too-short",
            f"X is taken at lag {lag}, within the memory of the velocity, 5/(1−μ) = {needed} steps; that takes a "
            f"segment of {4 * needed} consecutive steps.",
            f"X 取自时间差 {lag} 步，仍在速度的记忆 5/(1−μ) = {needed} 步之内；需要连续 {4 * needed} 步的区间。",
        )
    ]


def _compare(results: xr.Dataset) -> list[dict[str, str]]:
    value, error, samples = (float(results[f"fdt_ratio{end}"].sel(group="all")) for end in ("", "_stderr", "_n_eff"))
    lag = results.attrs["response_lag"]
    if not (error < 0.3 * abs(value) and samples >= 10):
        # T/X has no interval of two equal sides where X may be 0.
        return [
            verdict(
                name,
                "untrusted",
                "unresolved",
                f"Unresolved: X at lag {lag} is not known to better than a third; record with a smaller probe_every.",
                f"未分辨：时间差 {lag} 步的 X 相对误差超过三分之一；请减小 probe_every 重新记录。",
            )
            for name in ("fdt_ratio", "fdt_temperature")
        ]
    if abs(value - 1) <= 3 * error:
        return [
            verdict(
                "fdt_ratio",
                "ok",
                "agree",
                f"Response and displacement agree with the noise temperature at lag {lag} within three standard "
                "errors. The sum over parameters is blind to currents between directions ([H, C] ≠ 0).",
                f"时间差 {lag} 步的响应与位移在三倍标准误差内符合噪声温度；"
                "但对参数求和看不到不同方向之间的环流（[H, C] ≠ 0）。",
            )
        ]
    return [
        verdict(
            "fdt_ratio",
            "caution",
            "disagree",
            f"Response and displacement part: X = {value:.3f} ± {error:.3f} at lag {lag} (drift, curvature beyond the "
            "quadratic, or forces with memory).",
            f"响应与位移不符：时间差 {lag} 步时 X = {value:.3f} ± {error:.3f}（漂移、非二次曲率或有记忆的力）。",
        )
    ]


def _closure(results: xr.Dataset) -> list[dict[str, str]]:
    worst = float(abs(results["asymmetry_z"].sel(group="all")).max())
    if worst > _OPEN:
        return [
            verdict(
                "asymmetry",
                "caution",
                "identity-open",
                f"The asymmetry identity is off by {worst:.1f} standard errors: the motion is not stationary, or not "
                "that of the recorded gradients.",
                f"不对称恒等式偏差为 {worst:.1f} 倍标准误差：运动不平稳，或与记录的梯度不符。",
            )
        ]
    if np.isfinite(worst):
        return [
            verdict(
                "asymmetry",
                "ok",
                "identity-closes",
                f"The asymmetry identity closes at every lag: off by at most {worst:.1f} standard errors.",
                f"不对称恒等式在每个时间差都成立：偏差至多 {worst:.1f} 倍标准误差。",
            )
        ]
    return []


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def response_products(positions, gradient, noise, probe, origins, lags):
    """Eight products of every origin s with what is a lag later, t = s+τ, summed over coordinates.

    With D = x(t) − x(s), in this order:

        −D·ξ(s)                                                  response
        −Σ_{u≤τ} (x(s+u) − x(s))·ξ(s)                            its sum
        [‖x(t) − x(s)‖² + ‖x(t+1) − x(s)‖² − ‖x(s+1) − x(s)‖²]/2   displacement that the sum is held against
        x(t)·(x(t) + x(t−1))/2,   x(t)·(x(s) + x(s−1))/2             correlation at lag 0 and at τ
        D·(g′(s) + g(t))                                         asymmetry
        [‖x(t+1) − x(s)‖² − ‖x(t−1) − x(s)‖²]/2,   D·(ξ(s) + g′(s) + g(t))    both sides of its identity

    Args:
        positions, gradient: (coordinate, N), positions centred so that their running sum keeps its digits.
        noise, probe: ξ and g′ of each origin (coordinate, M). origins: (M,) ascending. lags: (L,).

    Returns:
        (8, L, M), NaN where s−1 or t+1 is outside.
    """
    count, n = positions.shape
    out = np.zeros((8, lags.size, origins.size))
    total = np.zeros(n)
    for c in range(count):
        x = positions[c]
        running = np.float64(0.0)
        for t in range(n):
            running += x[t]
            total[t] = running
        for i in range(lags.size):
            lag = lags[i]
            for m in range(origins.size):
                s = origins[m]
                t = s + lag
                if s < 1 or t + 1 >= n:
                    continue
                xi, other = np.float64(noise[c, m]), np.float64(probe[c, m])
                moved, next_moved = x[t] - x[s], x[t + 1] - x[s]
                first, before = x[s + 1] - x[s], x[t - 1] - x[s]
                out[0, i, m] -= moved * xi
                out[1, i, m] -= (total[t] - total[s] - lag * x[s]) * xi
                out[2, i, m] += (moved * moved + next_moved * next_moved - first * first) / 2
                out[3, i, m] += x[t] * (x[t] + x[t - 1]) / 2
                out[4, i, m] += x[t] * (x[s] + x[s - 1]) / 2
                out[5, i, m] += moved * (other + gradient[c, t])
                out[6, i, m] += (next_moved * next_moved - before * before) / 2
                out[7, i, m] += moved * (xi + other + gradient[c, t])
    for i in range(lags.size):
        for m in range(origins.size):
            if origins[m] < 1 or origins[m] + lags[i] + 1 >= n:
                out[:, i, m] = np.nan
    return out


def ratios_of_origins(
    numerator: series.Floats, denominator: series.Floats, counts: NDArray[np.int64], memory: int
) -> tuple[series.Floats, series.Floats, series.Floats]:
    """Ratios of means over the first `counts` origins of each lag, with errors and effective samples.

    A ratio of means is off by what its denominator fluctuates; the jackknife over blocks of origins takes that off.

    Args:
        numerator, denominator: (..., L, M). counts: (L,). memory: in origins, as in `mean_and_error`.

    Returns:
        (..., L) each; NaN where a lag has no origin.
    """
    value, error, n_eff = np.full((3, *numerator.shape[:-1]), np.nan)
    for i, count in enumerate(counts):
        if not count:
            n_eff[..., i] = 0
            continue
        above, below = numerator[..., i, :count], denominator[..., i, :count]
        value[..., i], error[..., i], n_eff[..., i] = series.ratio_and_error(above, below, memory=memory)
        if count >= _BLOCKS:
            edges = np.linspace(0, count, _BLOCKS + 1).astype(int)[:-1]
            with np.errstate(invalid="ignore", divide="ignore"):
                top, bottom = (np.add.reduceat(x, edges, axis=-1) for x in (above, below))
                without = (top.sum(-1, keepdims=True) - top) / (bottom.sum(-1, keepdims=True) - bottom)
                share = np.diff(edges, append=count) / count
                value[..., i] = _BLOCKS * value[..., i] - without @ (1 - share)
    return value, error, n_eff
