"""Entropy production: the heat that each group takes up or gives off, and how irreversible the motion looks.

Heat that the loss releases into a group or direction per step (Sekimoto 1998; discrete Harada–Sasa, physics.md 1.9):

    q = (1−μ)(T_kin − T_noise) = (1−μ) η⟨‖v_mid‖²⟩/(1−ν) − ½η(1−ν) tr C                where the velocity is stationary
    q = −⟨½(g_t + g_{t+1})·Δθ_t⟩ − ½η(1−ν) tr C                                        always

The noise must be white, E[ξ_t | θ_t, θ_{t−1}, …] = 0. The two forms differ by the ends of a telescoping sum only. The
sum over the groups is −⟨ΔL⟩, exactly for a quadratic loss: at stationarity what one group gives another takes, and
where no group or direction does there is no sign of a current between them.

Irreversibility of the path of θ, in principal directions of the motion seen through the sketch, is the σ of
`autoregression`, in nats per step. It is a lower bound for the whole: directions that are left out hide currents, and
those of large σ may run in directions of small variance. Directions are chosen by variance, which is even under
reversal, and so do not favour a sense of turning. They are chosen in the first half of the steps, and their heat is
measured in the second: under momentum a direction that happens to vary much also moves fast, and would seem hot.
Irreversibility is called seen where equilibrium gives as much once in a thousand cases at most and the interval of σ
leaves out 0; and not where there is momentum, which makes a motion of second order, and fewer steps than a fit of that
order takes.

Not defined for other optimizers than SGD; the heat not for Nesterov's momentum either. Under shuffled epochs the noise
is coloured: q is not the heat then, and σ still that of the path.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from thermodl.record.words import counted

from .. import errorbar, series
from ..autoregression import ORDERS, turning
from ..modes import principal_motions
from ..quantities import (
    at_probes,
    correlated_steps,
    finite_loss,
    group_hyperparameters,
    group_names,
    group_sum,
    hyperparameters,
    is_nesterov,
    is_sgd,
    mid_velocity_squared,
    require,
    schedule_at,
    schedule_of_groups,
    velocity_samples,
)
from ..segments import Segment, choose_segment, matching_windows, window_coordinates, within
from ..settings import AnalysisSettings, NotDefinedError
from ..verdicts import few_probes_verdicts, probe_verdicts, segment_verdict, verdict

USES = ("segment", "windows", "modes")
TITLE = "Entropy production"
TITLE_ZH = "熵产生"
FORMULA = (
    r"q=(1-\mu)\,(T_\mathrm{kin}-T_\mathrm{noise})"
    r"\qquad\sigma\ge\tfrac12\left\{\mathrm{tr}\left[S^{-1}\langle rr^{\mathsf T}\rangle\right]-d\right\}"
)
EXPLANATION = (
    "The heat q that the loss releases into each group of parameters per step, and a lower bound on the entropy "
    "production σ from how different the motion in its principal directions looks when played backwards, less what "
    "chance alone makes of it. "
    "Do not read σ as that of the network, or a vanishing q of the sum as equilibrium: currents may hide in directions "
    "that are left out; shuffled epochs or a segment that is not stationary spoil both."
)
EXPLANATION_ZH = (
    "每一步损失释放到各层组的热量 q，以及熵产生 σ 的下界：后者来自主方向上的运动与其时间反演的差别，"
    "并已扣除纯随机涨落的贡献。不要把 σ 当作整个网络的熵产生，也不要因为总热量为零就认为处于平衡："
    "概率流可能藏在未包含的方向中；按轮次打乱采样或区间不平稳时，两者都不可靠。"
)
METHOD = (
    "Heat: means over the segment with Γ-method errors; of a principal direction over the second half, where the "
    "first chose the directions. σ: vector autoregression in the principal directions, its order by held-out "
    "likelihood; errors, bias and null distribution from how fits to as many steps scatter."
)
METHOD_ZH = (
    "热量：区间平均，误差用 Γ 方法；各主方向由前一半选定，其热量取后一半的平均。"
    "σ：在主方向上拟合向量自回归，阶数由留出似然确定；误差、偏差与零分布由同样步数下拟合结果的散布得到。"
)
REFERENCE = (
    "Harada & Sasa 2005, PRL 95:130602; Sekimoto 1998, Prog. Theor. Phys. Suppl. 130; "
    "Godrèche & Luck 2019; Battle et al. 2016, Science 352:604; Wolff 2004; "
    "Lütkepohl 2005, New Introduction to Multiple Time Series Analysis; Wilson 1927, J. Am. Stat. Assoc. 22:209."
)
_SEEN = 1e-3
"""probability in equilibrium up to which irreversibility counts as seen, where the bound's interval leaves out 0 as
well: directions are chosen in the same motion, and short motions scatter more than their fits, so that 0.05 comes up in
a quarter of 150 motions in equilibrium, and both in less than one in a hundred"""
_LEAST_CHANCE = 1e-300
"""smaller ones may be rounding of what floating point holds"""
_NAMES = {
    "entropy_production": ("nat step-1", "entropy production, lower bound", "熵产生（下界）"),
    "entropy_production_plugin": ("nat step-1", "entropy production, bias not taken off", "熵产生（未扣除偏差）"),
    "entropy_production_bias": ("nat step-1", "what chance makes of no entropy production", "纯随机涨落造成的熵产生"),
    "entropy_production_p": ("1", "probability of as much in equilibrium", "平衡态下出现同样大小的概率"),
    "autoregression_order": ("step", "order of the autoregression", "自回归阶数"),
    "cycling_frequency": ("step-1", "fastest cycling frequency (rad)", "最快的循环频率（弧度）"),
    "cycling_frequency_null": (
        "step-1",
        "cycling that equilibrium stays below in 95 % of cases",
        "平衡态下 95 % 的循环频率上限",
    ),
    "circulation": ("step-1", "circulation between directions, relative to their size", "方向之间的环流（相对大小）"),
    "mode_variance_fraction": ("1", "fraction of the variance along the direction", "该方向所占方差比例"),
    "mode_heat": ("step-1", "heat of the direction over its temperature", "该方向的热量与温度之比"),
}
_OF_LAYER = ("layer_group", "layer_size", "layer_optimizer_group")

Floats = NDArray[np.float64]


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Heat per group, and the irreversibility of the motion in its principal directions.

    Returns:
        In loss per step `heat`, `heat_direct` (group,), `heat_of_layer` (layer,), `heat_over_time` (group, window),
        which need probes, and `loss_decrease`. In nats per step `entropy_production` (group,), a lower bound without
        its bias, beside `entropy_production_plugin`, `entropy_production_bias`, `entropy_production_p` (chance of as
        much in equilibrium) and `autoregression_order`. In radians per step `cycling_frequency` (group,), the fastest,
        and `cycling_frequency_null`, what equilibrium stays below in 95 % of cases; of more than two directions the
        error bar of the first holds where it is at least twice the second. `circulation` (group, mode,
        other_mode), Q over the standard deviations; `mode_variance_fraction` (group, mode), in the half of the steps
        from which directions are chosen, and `mode_heat` (group, mode), q/T_noise in the other.

    Raises:
        NotDefinedError: if the optimizer is not SGD, or the run was recorded without sketches.
        AnalysisError: if the run is too short.
    """
    if not is_sgd(run):
        raise NotDefinedError(
            "heat and entropy production are taken at one temperature; under "
            f"{run.attrs['optimizer']['class']} the noise has another in each parameter",
            f"热量与熵产生按同一温度计算，而 {run.attrs['optimizer']['class']} 的噪声在每个参数上温度不同",
        )
    require(run, "parameter_sketch")
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    results, coordinates, verdicts = _heat(run, part, segment, settings.windows)
    irreversible = _irreversibility(part, settings.modes)
    dataset = xr.Dataset(results, coords=coordinates).merge(irreversible).compute()
    if "heat" in dataset:
        # Of a direction that is not there nothing is to be said.
        known = dataset["mode_heat_n_eff"].where(dataset["mode_variance_fraction"].notnull(), np.inf)
        verdicts += few_probes_verdicts(xr.Dataset({"mode_heat_n_eff": known}), "mode_heat")
    verdicts = [segment_verdict(segment), *_sampling_verdicts(run), *verdicts, *_balance(dataset)]
    return dataset.assign_attrs(
        segment=[segment.start, segment.stop],
        segment_stationary=segment.stationary,
        verdicts=verdicts + _irreversibility_verdicts(part, dataset, segment),
    )


# ---------------------------------------------------------------------------------------------------------- the heat


def _heat(
    run: xr.Dataset, part: xr.Dataset, segment: Segment, windows: int
) -> tuple[dict[str, xr.DataArray], dict, list[dict[str, str]]]:
    """Heat over the segment and over time, and why there is none."""
    if is_nesterov(run):
        return {}, {}, [_no_heat("Nesterov momentum", "Nesterov 动量")]
    require(run, "gradient_squared", "velocity_squared", "velocity_dot_gradient")
    found = probe_verdicts(run, part, "heat", "heat_direct", "mode_heat")
    if not part.sizes.get("probe"):
        return {}, {}, found
    results: dict[str, xr.DataArray] = {}
    drawn, of_layers = _drawn(part), _rate(part)
    of_groups = schedule_of_groups(part, of_layers)
    memory, held = correlated_steps(run), velocity_samples(run)
    for name, given, per_step, en, zh in (
        ("heat", _given(part), held, "heat released into the group", "释放到该组的热量"),
        # Gradients times velocities hardly remember.
        ("heat_direct", _given_directly(part), 1.0, "heat, direct form", "热量（直接形式）"),
    ):
        of_layer = _difference(
            errorbar.mean_with_error(given, "step", memory, per_step, schedule_at(of_layers, given, part)),
            errorbar.mean_with_error(drawn, "probe", shape=schedule_at(of_layers, drawn, part)),
        )
        if name == "heat":
            value, error, samples = (values.drop_vars(_OF_LAYER, errors="ignore") for values in of_layer)
            results |= errorbar.named(
                "heat_of_layer", (value, error, samples), "loss step-1", "heat of the layer", "各层的热量"
            )
        of_group = _difference(
            errorbar.mean_with_error(
                group_sum(given, run), "step", memory, per_step, schedule_at(of_groups, given, part)
            ),
            errorbar.mean_with_error(group_sum(drawn, run), "probe", shape=schedule_at(of_groups, drawn, part)),
        )
        results |= errorbar.named(name, of_group, "loss step-1", en, zh)
    text = {
        "units": "1",
        "long_name": "heat, stationary over direct form",
        "long_name_zh": "热量平稳形式与直接形式之比",
    }
    # The common noise taken off, both are positive powers whose difference telescopes.
    steady, direct = (
        group_sum(data, run).isel(group=0)
        for data in (_given(part).drop_vars("step", errors="ignore"), _given_directly(part))
    )
    ratio = errorbar.telescoping_ratio_with_error(steady.isel(step=slice(None, -1)), direct, "step")
    results |= errorbar.named("power_ratio", ratio, "1", text["long_name"], text["long_name_zh"], samples=False)
    if (loss := finite_loss(part)) is not None and segment.judgement != "scheduled":
        results |= errorbar.named(
            "loss_decrease", _loss_decrease(part, loss), "loss step-1", "decrease of the loss", "损失的下降"
        )
    steps, probes = matching_windows(run, windows)
    given, drawn = (group_sum(data, run) for data in (_given(run), _drawn(run)))
    of_groups = schedule_of_groups(run, _rate(run))
    curve = _difference(
        errorbar.window_means(given, "step", steps, memory, held, schedule_at(of_groups, given, run)),
        errorbar.window_means(drawn, "probe", probes, shape=schedule_at(of_groups, drawn, run)),
    )
    results |= errorbar.named("heat_over_time", curve, "loss step-1", "heat", "热量", samples=False)
    return results, window_coordinates(run, steps), found


def _rate(run: xr.Dataset) -> xr.DataArray:
    """η(1−ν) of each step, (layer, step), which what is given and what is drawn follow."""
    eta, _, nu = hyperparameters(run)
    return eta * (1 - nu)


def _given(run: xr.Dataset) -> xr.DataArray:
    """(1−μ)η‖v_mid‖²/(1−ν) of each step, (layer, step)."""
    eta, mu, nu = hyperparameters(run)
    return eta * (1 - mu) / (1 - nu) * mid_velocity_squared(run)


def _given_directly(run: xr.Dataset) -> xr.DataArray:
    """η½(g_t + g_{t+1})·v_{t+1} of each step but the last, (layer, step)."""
    eta, mu, nu = (values.drop_vars("step", errors="ignore") for values in hyperparameters(run))
    crossed, squared = (
        run[name].drop_vars("step", errors="ignore") for name in ("velocity_dot_gradient", "gradient_squared")
    )
    with_next = xr.where(mu == 0, 0.0, mu * crossed) + (1 - nu) * squared
    return (eta / 2 * with_next).isel(step=slice(None, -1)) + (eta / 2).isel(step=slice(None, -1)) * crossed.isel(
        step=slice(1, None)
    )


def _drawn(run: xr.Dataset) -> xr.DataArray:
    """½η(1−ν) tr C at each probe, (layer, probe)."""
    return at_probes(_rate(run) / 2, run) * run["noise_trace"]


def _difference(left: errorbar.Estimate, right: errorbar.Estimate) -> errorbar.Estimate:
    """left − right of estimates taken as independent.

    Those of the heat share the gradients of probed steps: the bar is right where one step in ten is probed, and up to a
    third too wide where all are.
    """
    fewest = left[2].where(left[2] < right[2], right[2])
    return left[0] - right[0], (left[1] ** 2 + right[1] ** 2) ** 0.5, fewest


def _loss_decrease(run: xr.Dataset, loss: xr.DataArray) -> errorbar.Estimate:
    """−⟨ΔL⟩ per step from the means of the two halves, with the weight decay that the gradient holds.

    L is what the optimizer descends: under `maximize` less the loss.
    """
    if run.attrs["optimizer"].get("maximize"):
        loss = -loss
    if run.attrs["optimizer"].get("weight_decay_kind") == "coupled":
        of_layer = run["layer_optimizer_group"].drop_vars(["layer_group", "layer_size", "layer_optimizer_group"])
        decay = run["weight_decay"].isel(optimizer_group=of_layer)
        loss = loss + xr.where(decay == 0, 0.0, decay / 2 * run["parameter_squared"]).sum("layer", skipna=False)
    half = run.sizes["step"] // 2
    early, late = (errorbar.mean_with_error(loss.isel(step=span), "step") for span in (slice(half), slice(-half, None)))
    return errorbar.scale(_difference(early, late), 1 / (run.sizes["step"] - half))


# ------------------------------------------------------------------------------------------------- irreversibility


def _irreversibility(part: xr.Dataset, count: int) -> xr.Dataset:
    """σ and cycling of every group in up to `count` principal directions, and the heat of each direction."""
    names = group_names(part)
    eta, mu, nu = group_hyperparameters(part)
    with_heat = bool(part.sizes.get("probe")) and "probe_sketch" in part and not is_nesterov(part)
    others = []
    if with_heat:
        others = [at_probes(part["gradient_sketch"], part) - part["probe_sketch"]]
    half = part.sizes["step"] // 2
    motions = principal_motions(part["parameter_sketch"], count, others, slice(half))
    late = part.isel(step=slice(half, None))
    if with_heat:
        probed_late = part["probe_step"].values >= int(part["step"].values[half])
        late = late.isel(probe=probed_late)
    rows = []
    shared = [values.values for values in (eta, mu, nu)]
    # All groups together come last.
    for group, (positions, along, variance) in zip([*range(1, len(names)), 0], motions, strict=True):
        # Hyper-parameters of all groups together where they are the same.
        own_rates = [
            (np.where(np.ptp(values, axis=0) == 0, values[0], np.nan) if group == 0 else values[group - 1])[half:]
            for values in shared
        ]
        heat = np.full((3, len(positions)), np.nan)
        if with_heat and probed_late.any():
            heat = np.array(mode_heat(positions[:, half:], along[0][:, probed_late], late, *own_rates))
        rng = np.random.default_rng([0, group])
        row = turning(positions, rng) | {"mode_variance_fraction": positions[:, :half].var(-1) / max(variance, 1e-300)}
        rows.append(row | dict(zip(("mode_heat", "mode_heat_stderr", "mode_heat_n_eff"), heat, strict=True)))
    return _as_dataset([rows[-1], *rows[:-1]], names, count)


def mode_heat(
    positions: Floats, noise: Floats, part: xr.Dataset, eta: Floats, mu: Floats, nu: Floats
) -> tuple[Floats, Floats, Floats]:
    """q/T_noise = (1−μ)(T_kin/T_noise − 1) of each direction, its error and effective probes, (d,) each.

    Args:
        positions: (d, N). noise: g − g′ at the probes, (d, probe). eta, mu, nu: (N,), NaN if not those of all layers.
    """
    probes = part["probe_step"].values - int(part["step"].values[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        kinetic = (positions[:, 2:] - positions[:, :-2]) ** 2 / (4 * eta * (1 - nu))[1:-1]
        drawn = (eta * (1 - nu) / (2 * (1 - mu)))[probes] * noise**2 / 2
        (top, top_error, _), (bottom, bottom_error, probes_eff) = (
            series.mean_and_error(kinetic, memory=correlated_steps(part), per_step=velocity_samples(part)),
            series.mean_and_error(drawn),
        )
        # A ratio is high by the relative variance of its denominator.
        ratio = top / bottom / (1 + (bottom_error / bottom) ** 2)
        error = ratio * np.hypot(top_error / top, bottom_error / bottom)
    # Where they differ from step to step there is no one temperature.
    kept = 1 - mu[0] if np.all(mu == mu[0]) else np.nan
    return kept * (ratio - 1), kept * error, probes_eff


def _as_dataset(rows: list[dict[str, Floats]], names: list[str], count: int) -> xr.Dataset:
    """Rows of each group side by side, filled up with NaN where a group has fewer directions than `count`."""
    dims = ("group", "mode", "other_mode")

    def stack(name: str) -> xr.DataArray:
        rank = max(row[name].ndim for row in rows)
        out = np.full((len(rows), *[count] * rank), np.nan)
        for index, row in enumerate(rows):
            out[(index, *(slice(size) for size in row[name].shape))] = row[name]
        return xr.DataArray(out, dims=dims[: rank + 1])

    variables: dict[str, xr.DataArray] = {}
    for name, (units, en, zh) in _NAMES.items():
        if f"{name}_stderr" not in rows[0]:
            variables[name] = stack(name).assign_attrs(units=units, long_name=en, long_name_zh=zh)
            continue
        samples = f"{name}_n_eff" in rows[0]
        found = (stack(name), stack(f"{name}_stderr"), stack(f"{name}_n_eff") if samples else xr.DataArray(np.nan))
        variables |= errorbar.named(name, found, units, en, zh, samples=samples)
    coordinates = {"group": names, "mode": np.arange(1, count + 1), "other_mode": np.arange(1, count + 1)}
    return xr.Dataset(variables, coords=coordinates)


# --------------------------------------------------------------------------------------------------------- verdicts


def _no_heat(kind: str, kind_zh: str) -> dict[str, str]:
    return verdict(
        "heat",
        "untrusted",
        "not-defined",
        f"The heat is not defined for {kind}: its kinetic temperature depends on frequency.",
        f"{kind_zh}没有定义热量：其动能温度随频率变化。",
    )


def _sampling_verdicts(run: xr.Dataset) -> list[dict[str, str]]:
    sampling = run.attrs.get("sampling")
    if sampling == "replacement":
        return []
    if sampling == "shuffle":
        return [
            verdict(
                "",
                "caution",
                "coloured-noise",
                "Coloured noise: batches of shuffled epochs are anti-correlated, so that q is not the heat; σ is still "
                "how irreversible the path is, but no longer tells of the forces alone.",
                "有色噪声：按轮次打乱的批次之间反相关，q 不再是热量；σ 仍表示路径的不可逆性，但不再只反映力的性质。",
            )
        ]
    return [
        verdict(
            "",
            "caution",
            "sampler-unknown",
            "The sampling scheme was not recorded; under shuffled epochs the noise is coloured, and q not the heat.",
            "未记录采样方式；若按轮次打乱采样，噪声有色，q 不是热量。",
        )
    ]


def _balance(results: xr.Dataset) -> list[dict[str, str]]:
    """Whether both forms of the heat agree, and its sum with the loss."""
    if "heat" not in results:
        return []
    found = few_probes_verdicts(results, "heat", "heat_direct")
    ratio, error = (float(results[name]) for name in ("power_ratio", "power_ratio_stderr"))
    if not abs(ratio - 1) <= 3 * error and not np.isnan(ratio):
        found.append(
            verdict(
                "heat",
                "caution",
                "forms-differ",
                f"The stationary and the direct form of the power differ by a factor of {ratio:.4f} ± {error:.4f}: the "
                "velocities are not stationary, or the recording is damaged; take heat_direct.",
                f"功率的平稳形式与直接形式相差 {ratio:.4f} ± {error:.4f} 倍：速度不平稳，或记录已损坏；"
                "请采用直接形式的热量。",
            )
        )
    heat, error = (float(results[name].sel(group="all")) for name in ("heat_direct", "heat_direct_stderr"))
    if "loss_decrease" not in results or not np.isfinite(error):
        return found
    fall, of_fall = (float(results[name]) for name in ("loss_decrease", "loss_decrease_stderr"))
    spread = float(np.hypot(error, of_fall))
    if not np.isfinite(spread):
        return found
    if max(abs(heat), abs(fall)) <= 2 * spread:
        found.append(
            verdict(
                "heat_direct",
                "caution",
                "unresolved",
                f"Unresolved: the heat of all groups, {heat:.2e}, and the decrease of the loss, {fall:.2e} per step, "
                f"are both within two standard errors of {spread:.1e} of 0: nothing can be said of their balance.",
                f"未分辨：各层组热量之和 {heat:.2e} 与每步损失下降 {fall:.2e} 都在 0 的两倍标准误差（{spread:.1e}）"
                "以内，无法判断二者是否平衡。",
            )
        )
        return found
    agree = abs(heat - fall) <= 3 * spread
    found.append(
        verdict(
            "heat_direct",
            "ok" if agree else "caution",
            "balanced" if agree else "unbalanced",
            f"The heat of all groups, {heat:.2e}, {'agrees' if agree else 'does not agree'} with the decrease of the "
            f"loss, {fall:.2e} per step, within three standard errors of {spread:.1e}"
            + ("." if agree else ": the loss is not quadratic over a step, or the noise is not white."),
            f"各层组热量之和 {heat:.2e} 与每步损失下降 {fall:.2e} 在三倍标准误差（{spread:.1e}）内"
            + ("一致。" if agree else "不一致：一步之内损失不是二次的，或噪声不是白噪声。"),
        )
    )
    return found


def _probability(chance: float) -> str:
    """Such as 3.1e-05; no number is smaller than what floating point holds."""
    return f"{chance:.1e}" if chance >= _LEAST_CHANCE else f"< {_LEAST_CHANCE:.0e}"


def _irreversibility_verdicts(part: xr.Dataset, results: xr.Dataset, segment: Segment) -> list[dict[str, str]]:
    name = "entropy_production"
    if segment.judgement == "scheduled":
        return [
            verdict(
                name,
                "untrusted",
                "not-stationary",
                "Not to be told: σ is that of a stationary motion, and hyper-parameters change within the segment.",
                "无法判断：σ 属于平稳运动，而区间内超参数有变化。",
            )
        ]
    value, error, samples, chance = (
        float(results[of].sel(group="all")) for of in (name, f"{name}_stderr", f"{name}_n_eff", f"{name}_p")
    )
    if np.isnan(samples):
        return [
            verdict(
                name,
                "untrusted",
                "one-direction",
                "Not defined: fewer than two directions are moved along, and a current takes two.",
                "没有定义：运动的方向少于两个，而概率流至少需要两个方向。",
            )
        ]
    if np.isnan(value):
        return [
            verdict(
                name,
                "untrusted",
                "not-stationary",
                "Not estimated: the autoregression that fits the motion has no stationary state, or hardly one.",
                "未估计：与运动相符的自回归没有定态，或几乎没有定态。",
            )
        ]
    seen = chance <= _SEEN and value > series.NORMAL * error
    found = [
        verdict(
            name,
            "caution",
            "lower-bound",
            f"Lower bound on σ from {counted(int(results.sizes['mode']), 'principal direction')} or fewer: "
            f"{value:.2e} ± {error:.1e} nats per step{'' if seen else ', not known to exceed 0'}; what is "
            "left out only adds to it.",
            f"σ 的下界，取自至多 {int(results.sizes['mode'])} 个主方向：{value:.2e} ± {error:.1e} 奈特/步"
            f"{'' if seen else '，尚不能认定大于 0'}；未包含的方向只会使其增大。",
        )
    ]
    least = 20 * ORDERS[1] * int(results["mode_variance_fraction"].sel(group="all").notnull().sum())
    if not samples >= 10:
        found.append(
            verdict(
                name,
                "untrusted",
                "unresolved",
                f"Unresolved: the segment holds {samples:.1f} independent samples of its slowest direction, ten are "
                "needed.",
                f"未分辨：区间只含最慢方向的 {samples:.1f} 个独立样本，至少需要十个。",
            )
        )
    elif part.sizes["step"] < least and not bool((part["momentum"] == 0).all()):
        found.append(
            verdict(
                name,
                "untrusted",
                "order-limited",
                f"Momentum makes the motion one of second order, whose fit takes {least} steps; with that of first "
                "order, which is all that these steps hold, equilibrium looks irreversible too.",
                f"动量使运动成为二阶过程，其拟合至少需要 {least} 步；此区间只够一阶拟合，"
                "而用一阶拟合时平衡态也会显得不可逆。",
            )
        )
    elif not seen:
        found.append(
            verdict(
                name,
                "caution",
                "not-seen",
                f"No irreversibility seen: equilibrium gives as much with probability {chance:.2g}, and the bound is "
                f"{value / error:.1f} standard errors from 0.",
                f"未见不可逆性：平衡态以 {chance:.2g} 的概率给出同样大小的值，"
                f"下界与 0 相差 {value / error:.1f} 个标准误差。",
            )
        )
    else:
        found.append(
            verdict(
                name,
                "ok",
                "irreversible",
                f"Irreversible: equilibrium gives as much with probability {_probability(chance)}.",
                f"不可逆：平衡态给出同样大小的概率为 {_probability(chance)}。",
            )
        )
    return found
