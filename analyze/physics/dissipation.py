"""Dissipation: η‖g‖² and its split into descent power and noise power.

To first order in the step, η‖g‖² is the heat that a batch releases when it moves the parameters down its own loss
(batch-switching first law, physics.md 1.3). It does not vanish at stationarity, where switching batches pays for it:

    ⟨η‖g‖²⟩ = η‖∇L‖² + η tr C       dissipation rate = descent power + noise power

Both terms are unbiased: η g·g′ for the first, η ½‖g−g′‖² for the second, with an independent batch g′; the first only
where batches are drawn independently, for in shuffled epochs ξ of g knows θ, and g·g′ holds ∇L·ξ. Per step, with the
learning rate of each step; never a mean learning rate times a mean. With momentum the actual descent runs faster by
1/(1−μ); the split of η‖g‖² is the same. An optimizer that scales each parameter's step, such as Adam, releases another
heat: not defined here.
"""

import xarray as xr

from .. import errorbar
from ..quantities import (
    at_probes,
    correlated_probes,
    correlated_steps,
    group_sum,
    hyperparameters,
    is_sgd,
    schedule_at,
    schedule_of_groups,
)
from ..segments import choose_segment, matching_windows, window_coordinates, within
from ..settings import AnalysisSettings, NotDefinedError
from ..verdicts import few_probes_verdicts, probe_verdicts, segment_verdict, shuffled_signal_verdicts, verdict

USES = ("segment", "windows")
TITLE = "Dissipation"
TITLE_ZH = "耗散"
FORMULA = (
    r"\langle\eta\|g\|^2\rangle="
    r"\underbrace{\eta\,\|\nabla L\|^2}_{\text{descent}}+\underbrace{\eta\,\mathrm{tr}\,C}_{\text{noise}}"
)
EXPLANATION = (
    "The power that a step turns over, η‖g‖², and its two parts: what goes into descending the full loss, "
    "and what the mini-batch noise only stirs; both parts come from pairs of independent batches. "
    "Do not read η‖g‖² as progress: at stationarity it is all noise; and do not trust the descent power where it is "
    "smaller than its error bar, or batches are shuffled and the loss has settled."
)
EXPLANATION_ZH = (
    "每一步周转的功率，即 η‖g‖²，以及它的两部分：用于沿全损失下降的部分，和仅被小批量噪声搅动的部分；"
    "两部分都由成对的独立批次估计。不要把 η‖g‖² 当作进展：平稳时它全是噪声；"
    "下降功率小于其误差，或打乱采样且损失已趋于平稳时，不要采信下降功率。"
)
METHOD = "Means over the segment with Γ-method errors; ratio of means for the descent fraction."
METHOD_ZH = "区间平均，误差用 Γ 方法；下降比例取均值之比。"
REFERENCE = (
    "Sekimoto 1998, Prog. Theor. Phys. Suppl. 130; McCandlish et al. 2018, arXiv 1812.06162, App. A; Wolff 2004."
)
NAMES = {
    "gradient_dissipation": ("dissipation rate η‖g‖²", "耗散率 η‖g‖²"),
    "descent_power": ("descent power η‖∇L‖²", "下降功率 η‖∇L‖²"),
    "noise_power": ("noise power η tr C", "噪声功率 η tr C"),
}


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Dissipation per group, over the segment and over time.

    Returns:
        `gradient_dissipation`, `descent_power`, `noise_power` (group,) and each `_over_time` (group, window), in loss
        per step, and `descent_fraction`; the last three only where there are probes.

    Raises:
        NotDefinedError: if the optimizer is not SGD.
        AnalysisError: if the run is too short.
    """
    if not is_sgd(run):
        raise NotDefinedError(
            f"η‖g‖² is the heat of a step along the gradient; {run.attrs['optimizer']['class']} steps otherwise",
            f"η‖g‖² 是沿梯度更新一步放出的热量，而 {run.attrs['optimizer']['class']} 的更新不沿梯度方向",
        )
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    verdicts = [segment_verdict(segment, schedule_aware=True)]
    results: dict[str, xr.DataArray] = {}
    powers, schedule = _powers(part), schedule_of_groups(part, hyperparameters(part)[0])
    for name, data in powers.items():
        shape = schedule_at(schedule, data, part)
        one = errorbar.mean_with_error(data, _time(data), _memory(name, part), shape=shape)
        results |= errorbar.named(name, one, "loss step-1", *NAMES[name])
    if "descent_power" in powers:
        ratio = errorbar.ratio_with_error(
            powers["descent_power"], powers["descent_power"] + powers["noise_power"], "probe", correlated_probes(part)
        )
        results |= errorbar.named("descent_fraction", ratio, "1", "fraction that descends", "用于下降的比例")
    spoilt = probe_verdicts(run, part, "descent_power", "noise_power", "descent_fraction")
    verdicts += spoilt or [
        *few_probes_verdicts(xr.Dataset(results), "noise_power"),
        *_resolution(results),
        *shuffled_signal_verdicts(run, xr.Dataset(results), "descent_power", "descent_fraction"),
    ]
    curves, coordinates = _over_time(run, settings.windows)
    return xr.Dataset(results | curves, coords=coordinates).assign_attrs(
        segment=[segment.start, segment.stop], segment_stationary=segment.stationary, verdicts=verdicts
    )


def _powers(run: xr.Dataset) -> dict[str, xr.DataArray]:
    """Each power at every step, or at every probe, (group, step or probe)."""
    eta = hyperparameters(run)[0]
    powers = {"gradient_dissipation": group_sum(eta * run["gradient_squared"], run)}
    if run.sizes.get("probe"):
        rate = at_probes(eta, run)
        powers["descent_power"] = group_sum(rate * run["gradient_dot"], run)
        powers["noise_power"] = group_sum(rate * run["noise_trace"], run)
    return powers


def _time(data: xr.DataArray) -> str:
    return "step" if "step" in data.dims else "probe"


def _memory(name: str, run: xr.Dataset) -> int:
    """Steps, or probes, in which a power is known to be correlated; differences of gradients are not."""
    if name == "gradient_dissipation":
        return correlated_steps(run)
    return correlated_probes(run) if name == "descent_power" else 0


def _over_time(run: xr.Dataset, count: int) -> tuple[dict[str, xr.DataArray], dict]:
    powers, schedule = _powers(run), schedule_of_groups(run, hyperparameters(run)[0])
    steps, probes = matching_windows(run, count)
    curves: dict[str, xr.DataArray] = {}
    for name, data in powers.items():
        bounds = steps if _time(data) == "step" else probes
        shape = schedule_at(schedule, data, run)
        one = errorbar.window_means(data, _time(data), bounds, _memory(name, run), shape=shape)
        curves |= errorbar.named(f"{name}_over_time", one, "loss step-1", *NAMES[name], samples=False)
    return curves, window_coordinates(run, steps)


def _resolution(results: dict[str, xr.DataArray]) -> list[dict[str, str]]:
    value = float(results["descent_power"].sel(group="all"))
    error = float(results["descent_power_stderr"].sel(group="all"))
    if not abs(value) > 1.96 * error:
        return [
            verdict(
                "descent_power",
                "caution",
                "unresolved",
                "Unresolved: the descent power's interval contains 0.",
                "未分辨：下降功率的置信区间包含 0。",
            )
        ]
    return [verdict("descent_power", "ok", "resolved", "The descent power is resolved.", "下降功率已分辨。")]
