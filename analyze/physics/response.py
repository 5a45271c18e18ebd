"""Response: how the parameters answer a push, from probes alone, and the fluctuation–dissipation ratio.

Nothing is perturbed. At a probe the noise of the step is known, ξ_s = g_s − g′_s with the gradient g′ of an independent
batch, and what follows correlates with it (Novikov 1965; Warren & Allen 2012; Szamel 2017):

    𝓡(τ) = −⟨(θ_{s+τ} − θ_s)·ξ_s⟩ = tr(R(τ) C),   R(t−s) = ∂⟨θ_t⟩/∂h_s for h subtracted from g_s.

The noise of g′ costs variance and no bias: no later θ knows of it. 𝓡 is the response to kicks shaped like the noise;
reported is that per noise, R̄(τ) = 𝓡(τ)/tr C, a mean of R over directions weighted by their noise, which is not tr R/P
unless C is isotropic, and χ(τ) = Σ_{u≤τ} R̄(u). Both hold for linear dynamics with white noise, and for any loss if the
noise is Gaussian and does not depend on θ; else they are correlations of noise and motion. Under shuffled epochs ξ has
memory, and they are not the response.

χ–Δ: heavy ball on a quadratic loss has in every eigendirection of H, at every ηλ, confined or free,
c(τ−1) − c(τ+1) = 2T R(τ) with T = η(1−ν)C/(2(1−μ)) (physics.md 1.5). Summed over directions and lags no temperature is
left, whatever C:

    X_Δ(τ) = η(1−ν)/(1−μ) Σ_{u≤τ} 𝓡(u) / {[Δ(τ) + Δ(τ+1) − Δ(1)]/2} = 1,   Δ(τ) = ⟨‖θ_{s+τ} − θ_s‖²⟩.

X_Δ(1) is the noise over the kinetic temperature; X_Δ at τ is the noise temperature over that of motion as slow as τ.
Δ is as it is: a drift V adds V²τ², and lowers X_Δ. `fdt_ratio` is X_Δ at 5/(1−μ), by when the velocity is forgotten.
A ratio of 1 in the trace does not verify equilibrium direction by direction.

χ–C: X_C has c(0) + c(1) − c(τ) − c(τ+1) in its place, of positions centred on the segment, with the products taken at
the later time. It is given for stationary segments only, where it is X_Δ up to what is left of ageing. (Free diffusion,
which has no stationary c, would give X_C = ½.)

Asymmetry: for any loss and white noise, if only increments are stationary,

    (1−μ)/(η(1−ν)) [Δ(τ+1) − Δ(τ−1)]/2 = 𝓡(τ) − A(τ),   A(τ) = ⟨(θ_t − θ_s)·(∇L_s + ∇L_t)⟩,   t = s+τ.

That is the discrete form of 2TR = ∂_sC − ∂_tC − A (Cugliandolo, Kurchan & Parisi 1994); A is 0 on a quadratic loss and
in equilibrium, and negative under a drift. It is measured with g′_s for ∇L_s and g_t for ∇L_t, whose noise does not
know of θ_t − θ_s. g′ then drops out of the difference of both sides, whose size in standard errors is `asymmetry_z`: a
check of the recording and of its being stationary, not of the colour of the noise.

All probes of the segment are origins. Errors come from time, by the Γ-method over the origins, of the joint fluctuation
of numerator and denominator, over at least 3/(1−μ) steps. They are safe rather than tight where probes are closer than
the velocity's memory: the fluctuations then cancel in part, and count as independent. To them comes the relative error
√(2/(k d_eff)) of the sketch, 0 where a group has no more than k parameters; for X it is safe too, since both sides are
seen through the same sketch. The bias of a ratio of means is taken off by a jackknife. One origin knows 𝓡(τ) to
√((2τ+1)/d_eff) (physics.md, V12), so that long lags take many probes.
"""

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
    group_sum,
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
from ..settings import AnalysisError, AnalysisSettings, NotDefinedError

VERSION = 1
USES = ("segment", "lags_per_decade")
TITLE = "Response"
TITLE_ZH = "响应"
FORMULA = (
    r"\mathcal R(\tau)=-\langle(\theta_{s+\tau}-\theta_s)\cdot\xi_s\rangle=\mathrm{tr}\,RC"
    r"\qquad X_\Delta(\tau)=\frac{\eta(1-\nu)}{1-\mu}\,"
    r"\frac{\sum_{u\le\tau}\mathcal R(u)}{\frac12[\Delta(\tau)+\Delta(\tau+1)-\Delta(1)]}"
)
EXPLANATION = (
    "How the parameters answer a push, measured without pushing: from the correlation of their motion with the noise "
    "of earlier steps, which independent mini-batches tell. X compares it with the fluctuations and is 1 where both "
    "belong to one temperature. "
    "Do not read it as a response under shuffled epochs, whose noise has memory; a drift lowers X, and X = 1 in the "
    "sum over parameters does not prove equilibrium."
)
EXPLANATION_ZH = (
    "参数对推力的响应，无需施加推力：由参数运动与先前各步噪声（用独立小批量测得）的相关得到。"
    "X 将响应与涨落相比，二者属于同一温度时等于 1。"
    "按轮次打乱采样时噪声有记忆，不要把它当作响应；漂移会降低 X；对参数求和后的 X = 1 不能证明平衡。"
)
METHOD = (
    "Averages over all probes of the segment as origins, through the sketch; errors by the Γ-method from the joint "
    "fluctuation of numerator and denominator, in squares with the sketch's error."
)
METHOD_ZH = "以区间内全部探针为起点，用草图作平均；误差取分子与分母的联合涨落（Γ 方法），并与草图误差平方相加。"
REFERENCE = (
    "Novikov 1965, Sov. Phys. JETP 20, 1290; Cugliandolo, Kurchan & Parisi 1994, J. Phys. I 4, 1641; "
    "Warren & Allen 2012, Phys. Rev. Lett. 109, 250601; Szamel 2017, EPL 117, 50010; Wolff 2004, hep-lat/0306017."
)
_PRODUCTS = 7
_UNKNOWN_MEMORY = 10
"""1/(1−μ) where the optimizer does not say its momentum; that of μ = 0.9"""
_OPEN = 4.0
"""standard errors from which on the asymmetry identity counts as violated, of many lags the worst"""


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Response, its sum and the fluctuation–dissipation ratios per group.

    Returns:
        `response` R̄ and `integrated_response` χ (group, lag); for SGD without Nesterov `displacement_ratio` X_Δ and,
        where stationary, `correlation_ratio` X_C, `asymmetry` A (group, lag), `asymmetry_z`, and `fdt_ratio` (group,),
        X_Δ at one lag. All with errors.

    Raises:
        NotDefinedError: if the run was recorded without probes.
        AnalysisError: if it has no sketches or is too short.
    """
    require(run, "parameter_sketch", "gradient_sketch")
    try:
        require(run, "probe_sketch", "noise_trace")
    except AnalysisError as error:
        raise NotDefinedError(str(error)) from error
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    basis = {"segment": [segment.start, segment.stop], "segment_stationary": segment.stationary}
    if not part.sizes["probe"]:
        empty = xr.Dataset(attrs=basis)
        return empty.assign_attrs(verdicts=[segment_verdict(segment), *probe_verdicts(run, part, "response")])
    lags = series.log_lags(part.sizes["step"] // 4, settings.lags_per_decade)
    origins = part["probe_step"].values.astype(np.int64) - segment.start
    over = _Origins(origins, lags, part.sizes["step"], correlated_steps(part))
    products = _products(part, origins, lags)
    memory = velocity_memory(part)
    memory = _UNKNOWN_MEMORY if np.isnan(memory) else memory
    apart = int(np.clip(round(memory), 1, part.sizes["step"] // 16))
    seen = displacement_dimensions(run, part["parameter_sketch"], apart)["error"]

    noise = group_sum(part["noise_trace"], part).drop_vars("probe_step", errors="ignore")
    summed = with_all(products.isel(product=1), run)
    results = _named(
        "response",
        over.ratio(with_all(products.isel(product=0), run), noise),
        seen,
        "response per noise",
        "响应（按噪声）",
    )
    results |= _named("integrated_response", over.ratio(summed, noise), seen, "integrated response χ", "积分响应 χ")
    if is_sgd(run) and not is_nesterov(run):
        mobility = group_mobility(part)
        pushed = with_all(mobility * products.isel(product=1), run)
        moved = over.ratio(pushed, with_all(products.isel(product=2), run))
        ratio = ("1", "fluctuation–dissipation ratio")
        results |= _named("displacement_ratio", moved, seen, f"{ratio[1]} X_Δ", "涨落耗散比 X_Δ", ratio[0])
        at = int(np.searchsorted(lags, np.ceil(round(5 * memory, 6)), side="right")) - 1
        single = tuple(values.isel(lag=at) for values in moved)
        results |= _named("fdt_ratio", single, seen, f"{ratio[1]} X_Δ at one lag", "单一间隔的涨落耗散比 X_Δ", ratio[0])
        if segment.stationary:
            correlated = over.ratio(pushed, with_all(products.isel(product=3), run))
            results |= _named("correlation_ratio", correlated, seen, f"{ratio[1]} X_C", "涨落耗散比 X_C", ratio[0])
        results |= _asymmetry(run, products, mobility, over, seen)
    clock = {"lag": lags, "lag_sgd_time": ("lag", lags * sgd_time_per_step(part))}
    dataset = xr.Dataset(results, coords=clock).compute()
    if "fdt_ratio" in dataset:
        dataset = dataset.assign_attrs(response_lag=int(lags[at]))
    verdicts = [segment_verdict(segment), *_verdicts(run, part, dataset)]
    return dataset.assign_attrs(basis, verdicts=verdicts)


class _Origins:
    """Which probes are origins at each lag, and over how many of them the velocity remembers.

    Args:
        origins: steps of the probes within the segment. lags: of the estimates. steps: of the segment.
        memory: steps over which the velocity is correlated.
    """

    def __init__(self, origins: np.ndarray, lags: np.ndarray, steps: int, memory: int):
        self._first = np.full(len(lags), np.searchsorted(origins, 1))
        self._stop = np.searchsorted(origins, steps - 1 - lags)
        reach = np.searchsorted(origins, origins + memory, side="right") - np.arange(len(origins)) - 1
        self._memory = int(np.ceil(reach.mean()))

    def ratio(self, numerator: xr.DataArray, denominator: xr.DataArray | float) -> errorbar.Estimate:
        """Ratio of means over the origins, (group, lag); lazy."""
        numerator, denominator = xr.broadcast(numerator, xr.zeros_like(numerator) + denominator)
        return xr.apply_ufunc(
            lambda above, below: series.ratios_of_origins(above, below, self._first, self._stop, self._memory),
            *(values.chunk({"lag": -1, "probe": -1}) for values in (numerator, denominator)),
            input_core_dims=[["lag", "probe"]] * 2,
            output_core_dims=[["lag"]] * 3,
            dask="parallelized",
            output_dtypes=[float] * 3,
        )


def _products(part: xr.Dataset, origins: np.ndarray, lags: np.ndarray) -> xr.DataArray:
    """`series.response_products` of every group, (group, product, lag, probe); lazy."""
    positions, gradient = part["parameter_sketch"], part["gradient_sketch"].astype(float)
    probe = part["probe_sketch"].drop_vars("probe_step", errors="ignore").astype(float)
    noise = at_probes(gradient, part) - probe
    positions = positions - positions.mean("step", skipna=False)
    arrays = [values.chunk({"step": -1, "sketch": -1}) for values in (positions, gradient)]
    arrays += [values.chunk({"probe": -1, "sketch": -1}) for values in (noise, probe)]
    return xr.apply_ufunc(
        lambda x, g, xi, other: series.response_products(x, g, xi, other, origins, lags),
        *(values.drop_vars(list(values.coords), errors="ignore") for values in arrays),
        input_core_dims=[["sketch", "step"]] * 2 + [["sketch", "probe"]] * 2,
        output_core_dims=[["product", "lag", "probe"]],
        exclude_dims={"probe"},
        vectorize=True,
        dask="parallelized",
        output_dtypes=[float],
        dask_gufunc_kwargs={"output_sizes": {"product": _PRODUCTS, "lag": len(lags), "probe": len(origins)}},
    )


def _asymmetry(
    run: xr.Dataset, products: xr.DataArray, mobility: xr.DataArray, over: _Origins, seen: xr.DataArray
) -> dict[str, xr.DataArray]:
    """A(τ), and the gap of its identity in standard errors; the sketch keeps both sides alike."""
    results = _named(
        "asymmetry", over.ratio(with_all(products.isel(product=4), run), 1.0), seen, "asymmetry A", "不对称性 A", "loss"
    )
    # What has no learning rate does not move.
    turned = xr.where(mobility == 0, 0.0, products.isel(product=5) / mobility.where(mobility != 0))
    gap, error, _ = over.ratio(with_all(turned + products.isel(product=6), run), 1.0)
    results["asymmetry_z"] = (gap / error.where(error > 0)).assign_attrs(
        units="1",
        long_name="gap of the asymmetry identity in standard errors",
        long_name_zh="不对称恒等式的偏差（以标准误差计）",
    )
    return results


def _named(
    name: str, found: Any, seen: xr.DataArray, en: str, zh: str, units: str = "parameter2 loss-1"
) -> dict[str, xr.DataArray]:
    value, error, n_eff = found
    return errorbar.named(name, (value, (error**2 + (value * seen) ** 2) ** 0.5, n_eff), units, en, zh)


def _verdicts(run: xr.Dataset, part: xr.Dataset, results: xr.Dataset) -> list[dict[str, str]]:
    held = [name for name in ("integrated_response", "displacement_ratio", "fdt_ratio") if name in results]
    found = probe_verdicts(run, part, "response", *held)
    if run.attrs.get("sampling") == "shuffle":
        found += [
            verdict(
                name,
                "untrusted",
                "sampler-limited",
                "Sampler-limited: shuffled epochs give coloured noise; this is its correlation with the motion, not "
                "the response.",
                "受采样限制：按轮次打乱采样的噪声有记忆；这是它与运动的相关，不是响应。",
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
    if "fdt_ratio" not in results:
        kind = "Nesterov momentum" if is_nesterov(run) else run.attrs["optimizer"]["class"]
        kind_zh = "Nesterov 动量" if is_nesterov(run) else kind
        return [
            *found,
            verdict(
                "displacement_ratio",
                "untrusted",
                "not-defined",
                f"The fluctuation–dissipation ratio is not defined for {kind}: it has not one temperature.",
                f"{kind_zh} 没有定义涨落耗散比：它没有单一的温度。",
            ),
        ]
    found.append(_compare(results))
    worst = float(abs(results["asymmetry_z"].sel(group="all")).max())
    if worst > _OPEN:
        found.append(
            verdict(
                "asymmetry",
                "caution",
                "identity-open",
                f"The asymmetry identity is off by {worst:.1f} standard errors: the motion is not stationary, or not "
                "that of the recorded gradients.",
                f"不对称恒等式偏差为 {worst:.1f} 倍标准误差：运动不平稳，或与记录的梯度不符。",
            )
        )
    elif np.isfinite(worst):
        found.append(
            verdict(
                "asymmetry",
                "ok",
                "identity-closes",
                "The asymmetry identity closes within the errors at every lag.",
                "不对称恒等式在每个间隔都在误差内成立。",
            )
        )
    return found


def _compare(results: xr.Dataset) -> dict[str, str]:
    value, error, samples = (float(results[f"fdt_ratio{end}"].sel(group="all")) for end in ("", "_stderr", "_n_eff"))
    lag = results.attrs["response_lag"]
    if not (error < 0.3 * abs(value) and samples >= 10):
        return verdict(
            "fdt_ratio",
            "untrusted",
            "unresolved",
            f"Unresolved: X at lag {lag} is not known to better than a third; record with a smaller probe_every.",
            f"未分辨：间隔 {lag} 步的 X 误差超过三分之一；请减小 probe_every 重新记录。",
        )
    if abs(value - 1) <= 3 * error:
        return verdict(
            "fdt_ratio",
            "ok",
            "agree",
            f"Response and displacement agree with one temperature at lag {lag} within three standard errors.",
            f"间隔 {lag} 步的响应与位移在三倍标准误差内属于同一温度。",
        )
    return verdict(
        "fdt_ratio",
        "caution",
        "disagree",
        f"Response and displacement part: X = {value:.3f} ± {error:.3f} at lag {lag} (drift, curvature beyond the "
        "quadratic, or coloured noise).",
        f"响应与位移不一致：间隔 {lag} 步时 X = {value:.3f} ± {error:.3f}（漂移、非二次曲率或有色噪声）。",
    )
