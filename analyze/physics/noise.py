"""Gradient noise: its strength tr C three ways, the signal beside it, its directions, its colour and its tails.

C = Cov(g | θ) is that of the mini-batch actually used, of B examples out of N. With the gradient g of the step and g′
of an independent mini-batch at the same θ (the probe),

    tr C = ⟨½‖g−g′‖²⟩,   ‖∇L‖² = ⟨g·g′⟩                       of independent batches without bias: it may be < 0
    SNR = ⟨g·g′⟩/⟨½‖g−g′‖²⟩,   B_simple = B/(f SNR)           (McCandlish et al. 2018, App. A.1)

where f is 1, or 1−B/N where batches are drawn without replacement: B_simple = tr C₁/‖∇L‖² is of one example, and C of
such batches holds f already. Both are ratios of means with the error of the joint fluctuation. The mean of the ratios
of single probes is no estimate of them: half of the denominators may be negative (physics.md, V3: −93 for 2,500). The
95 % interval of B_simple is Fieller's, that of SNR turned over: not symmetric, and open above (NaN) where SNR is not
known to differ from 0. The error bar of B_simple is that to first order, and good where SNR is known to a tenth.

Beside it are, where they were recorded, tr C from the micro-batches of every step, times f, and from gradients of
single, independently drawn examples, times 1/B, or (N−B)/((N−1)B) without replacement. They are of the same C; for both
see physics.md 1.1.

The noise fills d_eff = (tr C)²/tr C² directions, of C's mean over the segment. It comes from x = P(g−g′)/√2 at the
probes i, taken as independent; with U₁ = mean of ‖x_i‖²‖x_j‖² and U₂ = mean of (x_i·x_j)² over pairs i ≠ j,

    1/d_eff = (R − w)/(1 + w − 2wR),   R = U₂/U₁,   w = 1/k − 1/P        (physics.md 1.1, where P ≫ k)

in a group of P parameters and k sketch coordinates, and w = 0 where the sketch is exact. The 1/P is that of noise that
is spread evenly over the parameters, of which sums of few parameters do not tell; if it is not, 1/d_eff is wrong by
the difference, at most 1/P_active. Over all groups the sketches are put side by side: they share the batch, and so the
noise. The error has two parts, of the probes and of the signs of the sketch, found from the influence of every
coordinate at every probe; it is too large, up to three times in tests, where the noise is equally strong in all
directions. Where 1/d_eff is not known to differ from 0, d_eff is only known from below.

Its colour is that of g−g′ against the gradients of the steps before (`colour`). Its tails are those of x, coordinate
by coordinate over the probes: kurtosis, Hill's estimate and tail index α̂, beside those of a normal twin with the same
variances (`tails`). Since g−g′ has a symmetric law, nothing is to be centred; its excess kurtosis is half that of g.
Coordinates are those of the sketch, sums of P/k parameters with random signs, which look more normal than single
parameters do: what is found is there, what is not found may have been averaged away. No channel of the recording keeps
the draws of single parameters, but that sketches of groups of at most k are exact.

Where images are augmented the noise has a second part that no order of batches cancels: f of C and A(h) of shuffled
epochs hold for the part of the examples only. B_simple lies between B/SNR and the value given, S(0)/T between 0 and 1.
"""

import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from thermodl.record.format import ALL_GROUPS, OTHER_GROUPS

from .. import errorbar, series, tails
from ..blocks import labelled
from ..colour import noise_colour
from ..dimensions import inverse_dimension
from ..quantities import at_probes, correlated_probes, group_sizes, group_sum
from ..segments import choose_segment, matching_windows, window_coordinates, within
from ..settings import AnalysisSettings
from ..verdicts import (
    few_probes_verdicts,
    probe_verdicts,
    segment_verdict,
    shuffled_signal_verdicts,
    unresolved_signal_verdicts,
    verdict,
)

USES = ("segment", "windows")
TITLE = "Gradient noise"
TITLE_ZH = "梯度噪声"
FORMULA = (
    r"\mathrm{tr}\,C=\tfrac12\langle\|g-g'\|^2\rangle"
    r"\qquad B_\mathrm{simple}=\frac{B\,\mathrm{tr}\,C}{\langle g\cdot g'\rangle}"
    r"\qquad d_\mathrm{eff}=\frac{(\mathrm{tr}\,C)^2}{\mathrm{tr}\,C^2}"
)
EXPLANATION = (
    "How strong the noise of the mini-batch gradient is beside its mean, at which batch size the two would be equal "
    "(B_simple), how many directions the noise fills, whether successive steps share it (colour), and whether its "
    "tails are heavier than those of normal noise. "
    "Do not read B_simple where the gradient's mean is not resolved, or batches are shuffled and the loss has settled, "
    "nor d_eff above its lower bound, nor a tail index but beside that of its normal twin: the verdicts say so."
)
EXPLANATION_ZH = (
    "小批量梯度的噪声相对其平均值有多强，批量多大时两者相等（B_simple），噪声占据多少个方向，各步的噪声是否相关（颜色），尾部是否比高斯噪声更重。"
    "平均梯度未分辨，或打乱采样且损失已趋于平稳时，不要采信 B_simple；不要把下限当作 d_eff 的值，"
    "尾指数也只能与高斯对照并读：判定会指出。"
)
METHOD = (
    "Means over the segment with Γ-method errors; ratios of means with the error of the joint fluctuation; interval of "
    "B_simple after Fieller. d_eff from pairs of probes, debiased for the sketch, with errors of probes and of sketch. "
    "Colour: g−g′ against earlier gradients. Tails: per sketch coordinate over probes, beside normal draws."
)
METHOD_ZH = (
    "区间平均，误差用 Γ 方法；比值为平均值之比，误差取自联合涨落；B_simple 的区间用 Fieller 方法。"
    "d_eff 由成对的探针得到，扣除随机投影的偏差，误差包含探针与随机投影两部分。"
    "颜色：g−g′ 与此前各步梯度的内积。尾部：逐个随机投影坐标、对探针统计，并列同方差的高斯对照。"
)
REFERENCE = (
    "McCandlish et al. 2018, arXiv 1812.06162; Fieller 1954, J. R. Stat. Soc. B 16, 175; "
    "Owen 2007, Ann. Appl. Stat. 1, 386; Wolff 2004, hep-lat/0306017; Kühn & Rosenow 2023, arXiv 2306.05300; "
    "Şimşekli et al. 2019, arXiv 1901.06053; Hill 1975, Ann. Stat. 3, 1163."
)
_UNITS = "loss2 parameter-2"
NAMES = {
    "noise_trace": (_UNITS, "trace of the gradient noise covariance tr C", "梯度噪声协方差的迹 tr C"),
    "noise_trace_chunks": (_UNITS, "tr C from micro-batches", "由微批量得到的 tr C"),
    "noise_trace_samples": (_UNITS, "tr C from single examples", "由单个样本得到的 tr C"),
    "gradient_norm_squared": (_UNITS, "squared norm of the mean gradient ‖∇L‖²", "平均梯度范数平方 ‖∇L‖²"),
    "signal_to_noise": ("1", "signal to noise ‖∇L‖²/tr C", "信噪比 ‖∇L‖²/tr C"),
    "simple_noise_scale": ("1", "simple noise scale B_simple", "简单噪声尺度 B_simple"),
    "effective_dimension": ("1", "directions of the noise d_eff", "噪声的有效维数 d_eff"),
    "noise_trace_chunks_ratio": ("1", "tr C of micro-batches over that of probes", "微批量与探针的 tr C 之比"),
    "noise_trace_samples_ratio": ("1", "tr C of single examples over that of probes", "单个样本与探针的 tr C 之比"),
    "tail_kurtosis": ("1", "kurtosis of the noise", "噪声的峰度"),
    "tail_hill": ("1", "tail exponent α after Hill", "Hill 尾指数 α"),
    "tail_index": ("1", "tail index α̂", "尾指数 α̂"),
    "tail_index_short": ("1", "tail index α̂ of shorter sums", "较短分块的尾指数 α̂"),
}
_SOURCES = {"noise_trace_chunks": ("micro-batches", "微批量"), "noise_trace_samples": ("single examples", "单个样本")}
_PROBES = 1024
"""most probes, evenly chosen, whose pairs d_eff is taken from"""
_TWIN = 1024
"""least coordinates of a normal twin, which repeats those of the noise"""


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Strength and shape of the gradient noise per group, over the segment and over time.

    Args:
        run: from `open_run`.

    Returns:
        `noise_trace`, `gradient_norm_squared`, `signal_to_noise` and `simple_noise_scale` (group,) with errors, each
        also `_over_time` (group, window); `noise_trace_chunks` and `noise_trace_samples` likewise where recorded, and
        the `_ratio` of each to that of the probes; `effective_dimension`. `simple_noise_scale` and
        `effective_dimension` have the ends `_low` and `_high` of their 95 % intervals, NaN where there is none.
        `noise_autocovariance` (group, lag), means over factors of lags, `noise_spectrum` (group, frequency),
        in cycles per step, and `low_frequency_weight` (group,), each with what shuffled epochs would make of it in
        `_shuffled`; `tail_kurtosis`, `tail_hill`, `tail_index` and `tail_index_short` (group,), each with `_normal`.

    Raises:
        AnalysisError: if the run is too short.
    """
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    found = _strengths(part, None)
    for name in _SOURCES:
        if name in found and "noise_trace" in found:
            found[f"{name}_ratio"] = errorbar.quotient(found[name], found["noise_trace"])
    results: dict[str, xr.DataArray] = {}
    for name, values in found.items():
        results |= errorbar.named(name, values, *NAMES[name])
    if "simple_noise_scale" in found:
        low, high = _interval(found["signal_to_noise"])
        scale = _examples(run)
        results |= _ends("simple_noise_scale", scale / high, scale / low)
    if part.sizes.get("probe") and "gradient_sketch" in part and "probe_sketch" in part:
        differences, of_tails = _draws(part)
        results |= _dimensions(part, differences)
        results |= noise_colour(part)
        if of_tails:
            results |= _tails(part, of_tails)
    windows = matching_windows(run, settings.windows)
    for name, values in _strengths(run, windows).items():
        results |= errorbar.named(f"{name}_over_time", values, *NAMES[name], samples=False)
    dataset = xr.Dataset(results, coords=window_coordinates(run, windows[0])).compute()
    verdicts = [segment_verdict(segment, schedule_aware=True), *_verdicts(run, part, dataset)]
    return dataset.assign_attrs(
        segment=[segment.start, segment.stop], segment_stationary=segment.stationary, verdicts=verdicts
    )


def _strengths(
    run: xr.Dataset, windows: tuple[list[tuple[int, int]], list[tuple[int, int]]] | None
) -> dict[str, errorbar.Estimate]:
    """What the run holds of tr C, ‖∇L‖² and their ratios, over all of it or over windows of (steps, probes)."""
    found: dict[str, errorbar.Estimate] = {}
    if run.sizes.get("probe"):
        noise, signal = group_sum(run["noise_trace"], run), group_sum(run["gradient_dot"], run)
        memory = correlated_probes(run)
        if windows is None:
            found["noise_trace"] = errorbar.mean_with_error(noise, "probe")
            found["gradient_norm_squared"] = errorbar.mean_with_error(signal, "probe", memory)
            found["signal_to_noise"] = errorbar.ratio_with_error(signal, noise, "probe", memory)
        else:
            found["noise_trace"] = errorbar.window_means(noise, "probe", windows[1])
            found["gradient_norm_squared"] = errorbar.window_means(signal, "probe", windows[1], memory)
            found["signal_to_noise"] = errorbar.window_ratios(signal, noise, "probe", windows[1], memory)
        value, error, n_eff = found["signal_to_noise"]
        # Without any noise there is no ratio.
        value = value.where(abs(value) < np.inf)
        found["signal_to_noise"] = (value, error, n_eff)
        examples = _examples(run)
        if np.isfinite(examples):
            bottom = value.where(value != 0)
            found["simple_noise_scale"] = (examples / bottom, examples * error / bottom**2, n_eff)
    batch, size = run.attrs.get("batch_size"), run.attrs.get("train_size")
    # The part of all examples that a batch takes away from those left to draw.
    drawn = batch / size if batch and size and run.attrs.get("sampling") == "shuffle" else 0.0
    if "chunk_noise_trace" in run:
        trace = group_sum(run["chunk_noise_trace"] * (1 - drawn), run)
        found["noise_trace_chunks"] = _finite_means(trace, "step", None if windows is None else windows[0])
    if run.sizes.get("per_sample") and batch:
        # Independent draws know Σ‖g_i − ∇L‖²/N, and 1 − B/N is that of Σ‖g_i − ∇L‖²/(N−1).
        factor = (size - batch) / (size - 1) / batch if drawn and size and size > 1 else 1 / batch
        trace = group_sum(run["per_sample_noise_trace"] * factor, run)
        if windows is None:
            found["noise_trace_samples"] = errorbar.mean_with_error(trace, "per_sample")
        else:
            edges = [np.searchsorted(run["per_sample_step"].values, bounds).tolist() for bounds in windows[0]]
            found["noise_trace_samples"] = errorbar.window_means(trace, "per_sample", edges)
    return found


def _finite_means(data: xr.DataArray, dim: str, windows: list[tuple[int, int]] | None) -> errorbar.Estimate:
    """Means over the steps that have a value, which one with a single micro-batch has not."""
    there = np.flatnonzero(data.isel(group=0).notnull().values)
    data = data.isel({dim: there})
    if windows is None:
        return errorbar.mean_with_error(data, dim)
    return errorbar.window_means(data, dim, [np.searchsorted(there, bounds).tolist() for bounds in windows])


def _examples(run: xr.Dataset) -> float:
    """B/f, by which 1/SNR becomes B_simple; NaN where the batch size is not known, or a batch holds everything."""
    batch, size = run.attrs.get("batch_size"), run.attrs.get("train_size")
    if not batch:
        return float("nan")
    if run.attrs.get("sampling") != "shuffle" or not size:
        return float(batch)
    return batch / (1 - batch / size) if batch < size else float("nan")


def _interval(estimate: errorbar.Estimate) -> tuple[xr.DataArray, xr.DataArray]:
    """Ends of the 95 % interval of what cannot be negative; NaN for an end that is not positive."""
    value, error, _ = estimate
    low, high = value - series.NORMAL * error, value + series.NORMAL * error
    return low.where(low > 0), high.where(high > 0)


def _ends(name: str, low: xr.DataArray, high: xr.DataArray) -> dict[str, xr.DataArray]:
    """`_low` and `_high` of a quantity."""
    units, en, zh = NAMES[name]
    return {
        f"{name}_{end}": values.assign_attrs(
            units=units,
            long_name=f"{which} end of the 95 % interval of {en}",
            long_name_zh=f"{zh}的 95 % 区间{which_zh}",
        )
        for end, values, which, which_zh in (("low", low, "lower", "下限"), ("high", high, "upper", "上限"))
    }


def _draws(part: xr.Dataset) -> tuple[np.ndarray, list[tuple[tails.Sums, np.ndarray]]]:
    """g−g′ of at most so many probes, evenly chosen, (group, sketch, probe); and what `_tails` takes of each group.

    Both at once, so that the gradients are read once; of fewer probes than tails need there is nothing of these.
    """
    count = part.sizes["probe"]
    chosen = part.isel(probe=np.unique(np.linspace(0, count - 1, min(count, _PROBES)).round().astype(int)))
    difference = at_probes(chosen["gradient_sketch"], chosen) - chosen["probe_sketch"]
    difference = difference.transpose("group", "sketch", "probe")
    call = delayed if difference.chunks else lambda function: function
    of_groups = [call(_draws_of_group)(one.data, number) for number, one in enumerate(difference)]
    samples, of_tails = zip(*(compute(*of_groups) if difference.chunks else of_groups), strict=True)
    return np.stack(samples), [one for one in of_tails if one]


def _draws_of_group(samples: np.ndarray, number: int) -> tuple[np.ndarray, tuple[tails.Sums, np.ndarray] | None]:
    """The draws (coordinate, n), and their sums with the statistics of a normal twin (statistic,)."""
    # The order in memory, which differs between what is read and what was, would show in the last digits of sums.
    samples = np.ascontiguousarray(samples)
    if samples.shape[1] < tails.LEAST:
        return samples, None
    many = np.tile(samples.astype(np.float64), (-(-_TWIN // len(samples)), 1))
    twin = tails.gaussian_twin(many, np.random.default_rng([0, number]))
    return samples, (tails.tail_sums(samples), tails.tail_statistics(tails.tail_sums(twin))[0])


def _dimensions(part: xr.Dataset, differences: np.ndarray) -> dict[str, xr.DataArray]:
    """d_eff with its error and interval."""
    sizes = group_sizes(part).values[1:]
    inverse, error, n_eff = (labelled(values, part) for values in inverse_dimension(differences, sizes))
    # More than the parameters, or than probes times coordinates, cannot be told apart from none.
    most = np.minimum(group_sizes(part), n_eff * differences.shape[1])
    value = xr.where(inverse * most > 1, 1 / inverse, most).where(inverse.notnull())
    low, high = _interval((inverse, error, n_eff))
    found = errorbar.named("effective_dimension", (value, error * value**2, n_eff), *NAMES["effective_dimension"])
    return found | _ends("effective_dimension", (1 / high).clip(min=1.0), 1 / low)


def _tails(part: xr.Dataset, of_groups: list[tuple[tails.Sums, np.ndarray]]) -> dict[str, xr.DataArray]:
    """Kurtosis and tail indices of each group's coordinates, and of those of a normal twin."""
    sums, twins = zip(*of_groups, strict=True)
    # Of all groups together the statistics of single coordinates are averaged, not the coordinates pooled.
    statistics = [tails.tail_statistics(*sums), *(tails.tail_statistics(group) for group in sums)]
    live = np.array([group.coordinates for group in sums])
    together = np.average(np.nan_to_num(twins), axis=0, weights=live) if live.any() else np.full(4, np.nan)
    values, errors = (np.array(column) for column in zip(*statistics, strict=True))
    normal = np.stack([np.where(np.isnan(values[0]), np.nan, together), *twins])
    value, error, normal = (labelled(one, part, "statistic") for one in (values, errors, normal))
    found: dict[str, xr.DataArray] = {}
    for index, statistic in enumerate(tails.STATISTICS):
        name = f"tail_{statistic}"
        one, deviation, twin = (values.isel(statistic=index) for values in (value, error, normal))
        if statistic != "kurtosis":
            one, deviation, twin = 1 / one, deviation / one**2, 1 / twin
        found |= errorbar.named(name, (one, deviation, one), *NAMES[name], samples=False)
        units, en, zh = NAMES[name]
        found[f"{name}_normal"] = twin.assign_attrs(
            units=units, long_name=f"{en}, of normal noise", long_name_zh=f"高斯对照：{zh}"
        )
    return found


def _verdicts(run: xr.Dataset, part: xr.Dataset, results: xr.Dataset) -> list[dict[str, str]]:
    derived = ("gradient_norm_squared", "signal_to_noise", "simple_noise_scale", "effective_dimension",
               "low_frequency_weight", "tail_kurtosis", "tail_index")  # fmt: skip
    found = probe_verdicts(run, part, "noise_trace", *(name for name in derived if name in results))
    spoilt = bool(found)
    if "noise_trace" in results:
        found += few_probes_verdicts(results, "noise_trace")
        found += _unresolved_signal(results)
        of_signal = ("gradient_norm_squared", "signal_to_noise", "simple_noise_scale")
        found += shuffled_signal_verdicts(run, results, *of_signal)
        found += _batch_size(run)
        found += _dimension(results)
        if not spoilt:
            found += _colour_verdict(run, results)
            found += _tail_verdict(part, results)
    for name, (en, zh) in _SOURCES.items():
        if f"{name}_ratio" in results and not spoilt:
            found.append(_compare(name, en, zh, results))
    return found + _chunks(run, part, results)


def _unresolved_signal(results: xr.Dataset) -> list[dict[str, str]]:
    """A word where ‖∇L‖² of all groups is not known to differ from 0."""
    found = unresolved_signal_verdicts(results, "signal_to_noise")
    if found and "simple_noise_scale" in results:
        least = float(results["simple_noise_scale_low"].sel(group="all"))
        bound, bound_zh = (
            (f"; B_simple is above {least:.3g}", f"；B_simple 大于 {least:.3g}") if least > 0 else ("", "")
        )
        found.append(
            verdict(
                "simple_noise_scale",
                "untrusted",
                "unresolved",
                f"Unresolved: its denominator ‖∇L‖² is not known to differ from 0{bound}.",
                f"未分辨：分母 ‖∇L‖² 与 0 没有可分辨的差别{bound_zh}。",
            )
        )
    return found


def _batch_size(run: xr.Dataset) -> list[dict[str, str]]:
    """Why there is no B_simple, or what it takes for granted."""
    sampling = run.attrs.get("sampling")
    lacking = "sampling" if "sampling" not in run.attrs else ""
    if sampling == "shuffle" and not run.attrs.get("train_size"):
        lacking = "train_size"
    if not run.attrs.get("batch_size"):
        found = (
            "untrusted",
            "batch-size-unknown",
            "Not measured: the batch size was not recorded; give the Recorder batch_size in its attributes.",
            "未测量：没有记录批量大小；请在 Recorder 的 attributes 中给出 batch_size。",
        )
    elif not np.isfinite(_examples(run)):
        found = (
            "untrusted",
            "not-defined",
            "Not defined: every batch holds all examples, and their gradient has no noise.",
            "没有定义：每个批量都包含全部样本，其梯度没有噪声。",
        )
    elif lacking:
        found = (
            "caution",
            "sampler-unknown",
            f"The attribute {lacking} was not recorded; drawn without replacement, B_simple is larger by 1/(1−B/N).",
            f"未记录属性 {lacking}；若为不放回采样，B_simple 应再乘以 1/(1−B/N)。",
        )
    elif run.attrs["sampling"] == "shuffle" and run.attrs.get("augmentation", "none") != "none":
        found = (
            "caution",
            "augmented",
            "1−B/N holds for the noise of the examples, not for that of their augmentation: B_simple is smaller, by "
            "1−B/N at most.",
            "1−B/N 只适用于样本的噪声，不适用于数据增强的噪声：B_simple 偏大，至多差因子 1−B/N。",
        )
    else:
        return []
    return [verdict("simple_noise_scale", *found)]


def _dimension(results: xr.Dataset) -> list[dict[str, str]]:
    if "effective_dimension" not in results:
        return [
            verdict(
                "effective_dimension",
                "untrusted",
                "no-sketch",
                "Not measured: the run holds no sketches of gradient and probe.",
                "未测量：该记录没有梯度与探针的随机投影。",
            )
        ]
    value, low, high = (results[f"effective_dimension{end}"] for end in ("", "_low", "_high"))
    open_ = [str(name) for name in results["group"].values[(value.notnull() & ~(high > 0)).values]]
    found = []
    if open_:
        least = float(low.sel(group=open_[0]))
        names, names_zh = (
            [{ALL_GROUPS: everything, OTHER_GROUPS: rest}.get(name, name) for name in open_]
            for everything, rest in (("all together", "the others"), ("全部层", "其余层"))
        )
        bound, bound_zh = (
            (f" (above {least:.3g} in {names[0]})", f"（{names_zh[0]} 大于 {least:.3g}）") if least > 0 else ("", "")
        )
        found.append(
            verdict(
                "effective_dimension",
                "untrusted",
                "lower-bound",
                f"Lower bound only in the groups {', '.join(names)}{bound}: probes and sketch tell the noise from no "
                "more.",
                f"层组 {'、'.join(names_zh)} 只有下限{bound_zh}：探针与随机投影无法分辨更多方向。",
            )
        )
    return found


def _colour_verdict(run: xr.Dataset, results: xr.Dataset) -> list[dict[str, str]]:
    """White, coloured by epochs, coloured otherwise, or not known, over all groups."""
    name, sampling = "low_frequency_weight", run.attrs.get("sampling")
    if name not in results:
        return []
    value, error = (float(results[f"{name}{end}"].sel(group="all")) for end in ("", "_stderr"))
    expected = float(results[f"{name}_shuffled"])
    told = f"S(0)/tr C = {value:.2f} ± {error:.2f}"
    if not error < abs(1 - np.nan_to_num(expected)) / 3 and not abs(value - 1) > 3 * error:
        found = (
            "untrusted",
            "unresolved",
            f"Unresolved: {told} does not tell white noise (1) from that of shuffled epochs (0); it takes more probes.",
            f"未分辨：{told}，无法区分白噪声（1）与打乱采样的噪声（0）；需要更多探针。",
        )
    elif abs(value - 1) <= 3 * error and sampling == "shuffle":
        found = (
            "caution",
            "white",
            f"White as far as gradients tell: {told}. Batches are shuffled, and where the motion relaxes within an "
            "epoch the gradient hides the colour; augmentation adds noise that has none.",
            f"就梯度所见为白噪声：{told}。批次是打乱采样的，若运动在一轮内弛豫，梯度会掩盖颜色；数据增强带来的噪声本来无色。",
        )
    elif abs(value - 1) <= 3 * error:
        found = ("ok", "white", f"White: {told} agrees with 1.", f"白噪声：{told}，与 1 一致。")
    elif value < 1 and sampling != "replacement":
        whole = np.isnan(expected) or value <= expected + 3 * error
        found = (
            "ok" if sampling == "shuffle" else "caution",
            "coloured-epoch",
            f"Coloured by epochs: {told}, where shuffled batches give {np.nan_to_num(expected):.2f}"
            + ("." if whole else " in flat directions; the rest relaxes within an epoch, or is not of examples."),
            f"轮次着色：{told}，打乱采样的预言为 {np.nan_to_num(expected):.2f}"
            + ("。" if whole else "（平坦方向）；其余部分在一轮内弛豫，或不来自样本。"),
        )
    else:
        found = (
            "caution",
            "coloured",
            f"Coloured: {told}, which neither independent nor shuffled batches explain.",
            f"有色：{told}，独立采样与打乱采样都不能解释。",
        )
    return [verdict(name, *found)]


def _tail_verdict(part: xr.Dataset, results: xr.Dataset) -> list[dict[str, str]]:
    """Whether the coordinates of all groups have heavier tails than normal ones."""
    if "tail_kurtosis" not in results:
        if "gradient_sketch" not in part:
            return []
        return [
            verdict(
                "tail_index",
                "untrusted",
                "unresolved",
                f"Not measured: tails take at least {tails.LEAST} probes in the segment.",
                f"未测量：尾部至少需要区间内有 {tails.LEAST} 个探针。",
            )
        ]
    everything = results.sel(group="all")
    value, error, normal = (float(everything[f"tail_kurtosis{end}"]) for end in ("", "_stderr", "_normal"))
    index, spread, twin = (float(everything[f"tail_index_short{end}"]) for end in ("", "_stderr", "_normal"))
    if np.isnan(value):
        found = (
            "untrusted",
            "unresolved",
            "Not measured: a value is not finite, or no coordinate of the noise is ever other than 0.",
            "未测量：有非有限值，或噪声坐标全为 0。",
        )
    elif value - normal > 3 * error or twin - index > 3 * spread:
        found = (
            "caution",
            "heavier-than-normal",
            f"Heavier tails than normal noise: kurtosis {value:.2f} ± {error:.2f} beside {normal:.2f}. The tail "
            "indices are exponents only if they agree with each other.",
            f"尾部比高斯噪声重：峰度 {value:.2f} ± {error:.2f}，高斯对照为 {normal:.2f}。各尾指数彼此一致时才是指数。",
        )
    else:
        found = (
            "ok",
            "normal",
            f"Not told from normal noise: kurtosis {value:.2f} ± {error:.2f} beside {normal:.2f}; sketch coordinates "
            "are sums of parameters, and look more normal than these.",
            f"与高斯噪声无法区分：峰度 {value:.2f} ± {error:.2f}，高斯对照为 {normal:.2f}；"
            "随机投影坐标是多个参数之和，比单个参数更接近高斯。",
        )
    return [verdict("tail_index", *found)]


def _compare(name: str, en: str, zh: str, results: xr.Dataset) -> dict[str, str]:
    """Whether another tr C agrees with that of the probes, over all groups."""
    value = float(results[f"{name}_ratio"].sel(group="all"))
    error = float(results[f"{name}_ratio_stderr"].sel(group="all"))
    if not error < 0.3 * abs(value):
        return verdict(
            f"{name}_ratio",
            "untrusted",
            "unresolved",
            f"Unresolved: tr C from {en} over that from probes is not known to better than a third.",
            f"未分辨：{zh}与探针的 tr C 之比，误差超过三分之一。",
        )
    if abs(value - 1) <= 3 * error:
        return verdict(
            f"{name}_ratio",
            "ok",
            "agree",
            f"tr C from {en} and from probes agree within three standard errors.",
            f"{zh}与探针得到的 tr C 在三倍标准误差内一致。",
        )
    return verdict(
        f"{name}_ratio",
        "caution",
        "disagree",
        f"tr C from {en} is {value:.3f} ± {error:.3f} times that from probes (batches that are not drawn alike, "
        "micro-batches of unequal size, statistics of batches, augmentation, or a loss that is not a mean over "
        "examples).",
        f"{zh}得到的 tr C 是探针的 {value:.3f} ± {error:.3f} 倍（抽样方式不同、微批量大小不等、批量统计量、数据增强，"
        "或损失不是样本平均）。",
    )


def _chunks(run: xr.Dataset, part: xr.Dataset, results: xr.Dataset) -> list[dict[str, str]]:
    """What micro-batches measure that is not quite C."""
    if "noise_trace_chunks" not in results:
        return []
    found = []
    if run.attrs.get("chunk_statistics"):
        found.append(
            verdict(
                "noise_trace_chunks",
                "caution",
                "chunk-statistics",
                "C measured for BatchNorm over micro-batches: their statistics add noise that a whole batch has not.",
                "所测为微批量 BatchNorm 的 C：其统计量带来整批所没有的噪声。",
            )
        )
    lost, several = 0, 0
    if "chunk_count" in part:
        of_several = part["chunk_count"] >= 2
        several = int(of_several.sum())
        lost = int((of_several & part["chunk_noise_trace"].isnull().any("layer")).sum())
    clipped = "clip_factor" in part and bool((part["clip_factor"] < 1).any())
    if lost and not clipped:
        found.append(
            verdict(
                "noise_trace_chunks",
                "untrusted",
                "changed-gradient",
                f"Not measured at {lost:,} of {several:,} steps with micro-batches: the gradient was changed between "
                "the last one and the step, as by clipping, or not finite. The rest is a selection; log clip_factor.",
                f"{several:,} 个含微批量的步中有 {lost:,} 步未能测量：最后一个微批量之后、更新之前，"
                "梯度被改动（如裁剪）或不是有限数。其余的步是有选择的；请记录 clip_factor。",
            )
        )
    if clipped:
        found.append(
            verdict(
                "noise_trace_chunks",
                "untrusted",
                "clipped",
                "Measured at the steps that were not clipped only, which are a selection.",
                "只在未裁剪的步上测量，这些步是有选择的。",
            )
        )
    return found
