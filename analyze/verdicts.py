"""Words on how far an estimate can be trusted, of the kinds that several analyses share."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from thermodl.record.words import counted

from . import series
from .quantities import at_probes, group_hyperparameters, hyperparameters
from .segments import Segment

_PARTS = 4
_UNEVEN = 4
"""parts of a segment, and probes of one for one of another, from which on their mean is not that over time"""


def verdict(quantity: str, status: str, code: str, en: str, zh: str) -> dict[str, str]:
    """One sentence about how far a quantity, or with "" the whole analysis, can be trusted.

    `status` is ok, caution or untrusted.
    """
    return {"quantity": quantity, "status": status, "code": code, "en": en, "zh": zh}


def segment_verdict(segment: Segment, *, schedule_aware: bool = False) -> dict[str, str]:
    """Whether the segment behind an analysis is stationary.

    A segment of mixed hyper-parameters leaves nothing to trust, unless the estimate takes those of each step.
    """
    where = f"steps {segment.start}–{segment.stop - 1}"
    where_zh = f"第 {segment.start}–{segment.stop - 1} 步"
    if segment.stationary:
        return verdict(
            "",
            "ok",
            "stationary",
            f"Stationary in {where}: {segment.reason}.",
            f"{where_zh}内平稳：{segment.reason_zh}。",
        )
    return verdict(
        "",
        "untrusted" if segment.judgement == "scheduled" and not schedule_aware else "caution",
        "not-stationary",
        f"Not shown to be stationary in {where}: {segment.reason}.",
        f"{where_zh}内未显示平稳：{segment.reason_zh}。",
    )


def probe_verdicts(run: xr.Dataset, part: xr.Dataset, quantity: str, *also: str) -> list[dict[str, str]]:
    """Why probes say nothing, or not what they seem to, in a part of a run: none, clipped, lost or uneven in time.

    Args:
        run: the whole run. part: what is estimated from.
        quantity: what rests on the probes. also: what else does, and is spoilt with it.
    """
    if "noise_trace" not in run:
        en, zh = "the run was recorded without a probe", "记录时没有使用探针"
        if any(entry["channel"] == "probe" for entry in run.attrs.get("thinned", [])):
            en = "the limits on overhead or size left no room for probes; raise recorder.max_overhead or max_bytes"
            zh = "开销或大小的上限没有给探针留下余地；请提高 recorder.max_overhead 或 max_bytes"
        return [verdict(quantity, "untrusted", "no-probe", f"Not measured: {en}.", f"未测量：{zh}。")]
    if not part.sizes["probe"]:
        mend, mend_zh = (
            "a smaller probe_every, or name a longer segment",
            "请减小 probe_every 重新记录，或指定更长的区间",
        )
        if run.attrs.get("recorder", {}).get("products_every", 1) != 1:
            mend, mend_zh = "probes at steps that have inner products", "请在计算内积的步上记录探针"
        return [
            verdict(
                quantity,
                "untrusted",
                "no-probe",
                f"Not measured: none of the run's {run.sizes['probe']} probes lies in the segment; record with {mend}.",
                f"未测量：全部 {run.sizes['probe']} 个探针都不在区间内；{mend_zh}。",
            )
        ]
    # The step's gradient was clipped and the probe's was not: their difference is more than noise.
    clipped = float((at_probes(part["clip_factor"], part) < 1).mean()) if "clip_factor" in part else 0.0
    if clipped:
        return [
            verdict(
                name,
                "untrusted",
                "clipped",
                f"At {clipped:.0%} of the probes the step's gradient was clipped, and the probe's was not: their "
                "difference holds more than the noise.",
                f"在 {clipped:.0%} 的探针处，该步梯度经过裁剪而探针梯度没有：两者之差不只是噪声。",
            )
            for name in (quantity, *also)
        ]
    return [
        verdict(name, "caution", code, en, zh)
        for code, en, zh in (*_lost_probes(run, part), *_uneven_probes(part))
        for name in (quantity, *also)
    ]


def _lost_probes(run: xr.Dataset, part: xr.Dataset) -> Iterator[tuple[str, str, str]]:
    """How many probes of the segment were left out, because they had no finite loss."""
    if "probe_loss" not in run:
        return
    steps, places = part["step"].values, run["probe_step"].values
    losses = run["probe_loss"].values[(places >= steps[0]) & (places <= steps[-1])]
    count, lost = len(losses), int((~np.isfinite(losses)).sum())
    if lost:
        yield (
            "lost-probes",
            f"{lost} of the segment's {counted(count, 'probe')} had a loss that is not finite, and are left out.",
            f"区间内 {count} 个探针中有 {lost} 个的损失不是有限数，未计入。",
        )


def _uneven_probes(part: xr.Dataset) -> Iterator[tuple[str, str, str]]:
    """Whether parts of the segment have many more probes than others, as where a budget thinned them."""
    steps = part["step"].values
    counts, _ = np.histogram(part["probe_step"].values, _PARTS, (steps[0] - 0.5, steps[-1] + 0.5))
    if counts.max() >= _UNEVEN and counts.max() > _UNEVEN * counts.min():
        yield (
            "uneven-probes",
            f"Of {_PARTS} equal parts of the segment one has {counted(int(counts.max()), 'probe')} and one "
            f"{counts.min()}: means over probes are not those over steps where the noise changes in time.",
            f"把区间分成相等的 {_PARTS} 份，探针最多的一份有 {counts.max()} 个，最少的只有 {counts.min()} 个："
            "噪声随时间变化时，对探针的平均不等于对步的平均。",
        )


def mixed_layers_verdicts(part: xr.Dataset, results: xr.Dataset, *names: str) -> list[dict[str, str]]:
    """A word on each of these quantities that are not defined where layers of one group differ in hyper-parameters."""
    if not bool(group_hyperparameters(part)[0].isnull().any()):
        return []
    return [
        verdict(
            name,
            "untrusted",
            "not-defined",
            "Not defined for all parameters together: layers of one group have different hyper-parameters.",
            "对全部参数没有定义：同一组内各层的超参数不同。",
        )
        for name in names
        if name in results and bool(results[name].sel(group="all").isnull().all())
    ]


def resting_verdicts(part: xr.Dataset, *names: str) -> list[dict[str, str]]:
    """A word on each of these means over all parameters, where some of them never move in a part of a run."""
    rests = (hyperparameters(part)[0] == 0).all("step").values
    resting, whole = int(part["layer_size"].values[rests].sum()), int(part["layer_size"].sum())
    if not 0 < resting < whole:
        return []
    return [
        verdict(
            name,
            "caution",
            "at-rest",
            f"{resting:,} of {whole:,} parameters never move in the segment; the mean over all layers counts them.",
            f"全部 {whole:,} 个参数中有 {resting:,} 个在区间内从不更新；对全部层的平均计入了它们。",
        )
        for name in names
    ]


def few_probes_verdicts(results: xr.Dataset, *names: str) -> list[dict[str, str]]:
    """A word on each of these quantities that some group does not know from ten effective probes."""
    return [
        verdict(
            name,
            "untrusted",
            "unresolved",
            "Unresolved: fewer than ten effective probes in the segment; record with a smaller probe_every.",
            "未分辨：区间内有效探针少于十个；请减小 probe_every 重新记录。",
        )
        for name in names
        if f"{name}_n_eff" in results and not float(results[f"{name}_n_eff"].min(skipna=False)) >= 10
    ]


def shuffled_signal_verdicts(run: xr.Dataset, results: xr.Dataset, *names: str) -> list[dict[str, str]]:
    """A word on what is made of g·g′, where batches may come from shuffled epochs."""
    sampling = run.attrs.get("sampling")
    if sampling == "replacement":
        return []
    en, zh = ("", "") if sampling == "shuffle" else ("If batches are shuffled: ", "若按轮次打乱采样：")
    return [
        verdict(
            name,
            "caution",
            "shuffled-signal",
            f"{en}g·g′ holds ∇L·ξ, because the noise of shuffled epochs knows where the parameters are. Where the loss "
            "has settled it may be several times ‖∇L‖².",
            f"{zh}打乱采样的噪声与参数位置相关，g·g′ 含有 ∇L·ξ；损失趋于平稳时，它可达 ‖∇L‖² 的数倍。",
        )
        for name in names
        if name in results
    ]


def unresolved_signal_verdicts(results: xr.Dataset, *also: str) -> list[dict[str, str]]:
    """A word where ‖∇L‖² of all groups is not known to differ from 0, on it and on what else rests on it."""
    value = float(results["gradient_norm_squared"].sel(group="all"))
    error = float(results["gradient_norm_squared_stderr"].sel(group="all"))
    if value > series.NORMAL * error or value == error == 0:
        return []
    en, zh = "too few probes to know the error of ‖∇L‖²", "探针太少，‖∇L‖² 的误差未知"
    if np.isfinite(error):
        en = f"‖∇L‖² = {value:.3g} ± {error:.2g} is not known to differ from 0"
        zh = f"‖∇L‖² = {value:.3g} ± {error:.2g}，与 0 没有可分辨的差别"
    return [
        verdict(name, "untrusted", "unresolved", f"Unresolved: {en}.", f"未分辨：{zh}。")
        for name in ("gradient_norm_squared", *also)
    ]
