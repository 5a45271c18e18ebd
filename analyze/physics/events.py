"""Events: sudden changes of the loss, and which of them neither a changed setting nor the end of an epoch explains.

Around every step t a level, a slope and a jump are fitted to the 2w losses of [t−w, t+w) (a local likelihood-ratio
scan; Basseville & Nikiforov 1993). A drift that is straight over the window so leaves no jump:

    Δ̂(t) = Σ_j k_j ℓ_{t+j},   k = s − proj(s | 1, j) over its product with s,   s_j = 1 for j ≥ 0, else 0
    z(t) = Δ̂(t) / √(2 τ_int Γ(0) Σ k²),   w = max(64, 60 τ_int)

with the variance of means of the correlated loss (Wolff 2004), the median of blocks less their straight lines, or that
of the five blocks around where it is more: correlation is made up for without a model of it. Where differences of
neighbours, weighed by k² (White 1980) or evenly, are larger than in the median window, so is the error: the noise θ·ξ
of a mini-batch loss comes and goes with θ, and without that two in three runs on a quadratic had a false alarm, with it
two in a hundred. The largest |z| of a loss without events is beyond b with a probability below

    p(b) = N (1−r) 2b φ(b) + 2Φ(−b),   r = Σ k_j k_{j+1} / Σ k²

since z is Brownian over short lags (Leadbetter, Lindgren & Rootzén 1983, ch. 12). Events are the z with p below 1 %,
of a run as a whole; b is widened to Student's t for what is not known of the variance. The largest comes first, its
jump is taken off, and the scan goes on; within 2w of an event no other is sought. Where a cubic fits the window better
than the jump, it is a bend, such as of the first descent, and no event. The place of a jump is known to the steps where
z² stays within 7.35 of its largest, 95 % for white noise (Hansen 2000), and τ_int to either side.

Losses of one place in the epoch have a mean of their own where a shuffled run has sixteen epochs: it is taken off. No
candidate is an event with a hyper-parameter that changes by more than a twentieth in its window, or with the end of an
epoch in the interval of its place. The others are candidates, of escapes or of anything else that is sudden: which,
only a quench of snapshots from before and after can tell.

Before and after an event, as far as the next but no further than 4w or 20ℓ, stand the noise temperature and the
diffusion coefficient [M(2ℓ) − M(ℓ)]/(2ℓP) at ℓ = 5/(1−μ) of all parameters, M the MSD without its drift. Of fewer than
thirty candidates no law of waiting times is given: they are a list.
"""

import numpy as np
import xarray as xr
from scipy import ndimage, optimize, signal, stats

from .. import displacements, errorbar, series
from ..blocks import each, over_groups
from ..quantities import (
    correlated_steps,
    displacement_dimensions,
    finite_loss,
    hyperparameters,
    is_sgd,
    shuffled_epoch,
    velocity_memory,
)
from ..segments import split_windows, stretches, window_coordinates
from ..settings import AnalysisSettings, NotDefinedError
from ..verdicts import probe_verdicts, verdict

USES = ("windows",)
TITLE = "Events"
TITLE_ZH = "突变事件"
FORMULA = r"z(t)=\frac{\sum_j k_j\,\ell_{t+j}}{\sqrt{2\tau_\mathrm{int}\Gamma(0)\sum_j k_j^2}}\qquad k\perp 1,\,j"
EXPLANATION = (
    "Where the loss changes suddenly: a jump against level and slope of its surroundings, larger than correlated noise "
    "makes one in a hundred runs. What coincides with a changed setting or the end of an epoch is marked as such; the "
    "rest are candidates. "
    "Do not call a candidate an escape from a minimum: a drop of the loss does not show one. Changes slower than the "
    "window are not sought, and two within a window of each other are one."
)
EXPLANATION_ZH = (
    "损失发生突变的位置：相对于周围的水平与斜率的跳变，其幅度在有关联的噪声下每一百次运行才会出现一次。"
    "与超参数变化或一轮结束同时发生的会单独标出，其余为候选事件。"
    "不要把候选事件称为逃离极小值：损失下降本身不能说明这一点。比窗口更慢的变化不在搜索之列，一个窗口内的两次变化算作一次。"
)
METHOD = (
    "Local fit of level, slope and jump at every step; threshold from the crossing rate of a Gaussian process at 1 % "
    "false alarms a run, with the long-run variance of the Γ-method; place by the likelihood ratio."
)
METHOD_ZH = (
    "在每一步局部拟合水平、斜率与跳变；阈值由高斯过程的穿越率给出（每次运行误报率 1 %），长程方差用 Γ 方法；"
    "位置区间由似然比给出。"
)
REFERENCE = (
    "Basseville & Nikiforov 1993, Detection of Abrupt Changes; Leadbetter, Lindgren & Rootzén 1983; "
    "Hansen 2000, Econometrica 68, 575; White 1980, Econometrica 48, 817; Wolff 2004, hep-lat/0306017."
)
KINDS = ("candidate", "hyper-parameters", "epoch")
FALSE_ALARMS = 0.01
"""probability that a run without events shows any"""
_FEWEST_STEPS = 512
_PLACE = 7.35
"""95 % quantile of the likelihood ratio of a change point (Hansen 2000)"""
_EPOCHS, _CHANGED, _MOST, _LAW, _BLOCKS = 16, 0.05, 500, 30, 12


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Events of the loss, in the order of time, and the loss over time.

    Returns:
        `event_step`, `event_first`, `event_last` (the interval of its place), `jump` with its error, `event_z`,
        `event_p`, `event_kind` (0 candidate, 1 hyper-parameters, 2 end of an epoch), and `temperature_…` and
        `diffusion_…` `before` and `after`, all (event,), of which there may be none; `loss_over_time` (window,).

    Raises:
        NotDefinedError: if the loss was not recorded, or less than nine tenths of it are finite.
    """
    if "loss" not in run:
        raise NotDefinedError(
            "the loss was not logged, and events are sought in it", "没有记录损失，而事件要在损失中寻找"
        )
    bridged, steps = finite_loss(run), run.sizes["step"]
    known = int(np.isfinite(run["loss"].values).sum())
    if bridged is None:
        raise NotDefinedError(
            f"events need the loss of nine steps in ten; {known} of {steps} are finite",
            f"十步中须有九步的损失；{steps} 步中只有 {known} 步的损失为有限数",
        )
    epoch = shuffled_epoch(run)
    profiled = epoch is not None and steps >= _EPOCHS * epoch
    searched = bridged.values
    if epoch is not None and profiled:
        searched = _without_profile(searched, epoch)
    found, width = scan(searched)
    order = np.argsort([event[0] for event in found], kind="stable")
    found = np.array(found, float).reshape(-1, 6)[order]
    step, first, last = (found[:, column].astype(np.int64) for column in range(3))
    kind = np.array(
        [_kind(run, *place, width, epoch, profiled) for place in zip(step, first, last, strict=True)], dtype=np.int64
    ).reshape(-1)
    results = {
        "event_step": _array(step, "step", "step of the event", "事件所在的步"),
        "event_first": _array(first, "step", "first step it may be at", "可能的最早一步"),
        "event_last": _array(last, "step", "last step it may be at", "可能的最晚一步"),
        "event_z": _array(found[:, 4], "1", "jump in standard errors", "跳变（以标准误计）"),
        "event_p": _array(found[:, 5], "1", "probability of one like it by chance", "纯随机涨落产生的概率"),
        "event_kind": _array(kind, "1", "0 candidate, 1 changed setting, 2 end of an epoch",
                             "0 候选，1 超参数变化，2 一轮结束"),
    }  # fmt: skip
    of_jump = (xr.DataArray(found[:, 3], dims="event"), xr.DataArray(found[:, 3] / found[:, 4], dims="event"))
    results |= errorbar.named("jump", (*of_jump, of_jump[0]), "loss", "jump of the loss", "损失的跳变", samples=False)
    results |= _before_and_after(run, step, first, last, width)
    waits = np.diff(step[kind == 0])
    if len(waits) >= _LAW - 1:
        # Within 2w of an event no other is seen: a dead time, which every wait holds.
        waits = waits - 2 * width
        mean = (xr.DataArray(waits.mean()), xr.DataArray(waits.std(ddof=1) / np.sqrt(len(waits))))
        results |= errorbar.named("waiting_time", (*mean, mean[0]), "step", "mean wait without dead time",
                                  "扣除死时间的候选事件平均间隔", samples=False)  # fmt: skip
        varied = xr.DataArray(waits.std(ddof=1) / waits.mean())
        results["waiting_time_variation"] = varied.assign_attrs(
            units="1",
            long_name="variation of the waiting times, 1 if random",
            long_name_zh="等待时间的变异系数，随机时为 1",
        )
    bounds = split_windows([(0, steps)], settings.windows)
    curve = errorbar.window_means(bridged.chunk(), "step", bounds)
    results |= errorbar.named("loss_over_time", curve, "loss", "loss", "损失", samples=False)
    dataset = xr.Dataset(results, coords=window_coordinates(run, bounds)).compute()
    verdicts = _verdicts(kind, run.sizes["step"], width, steps - known, profiled, epoch)
    if width:
        verdicts += probe_verdicts(run, run, "temperature_before", "temperature_after")
        verdicts += _sampler_verdicts(run)
    # Nothing here says that any segment is stationary.
    return dataset.assign_attrs(segment_stationary=False, window=width, verdicts=verdicts)


def scan(loss: np.ndarray) -> tuple[list[tuple[float, ...]], int]:
    """Events of a loss without gaps: (step, first, last, jump, z, p) each, and the half window.

    The half window is 0 where the loss is too short for any, or constant.
    """
    n = len(loss)
    if n < _FEWEST_STEPS:
        return [], 0
    size, errors, n_eff = _noise(loss)
    error = np.median(errors)
    width = max(64, int(np.ceil(30 * n / n_eff)))
    # Losses that are the same but for rounding have no noise to hold a jump against.
    if not error > 1e-12 * np.abs(loss).max() or n < 8 * width:
        return [], 0
    kernel = _kernel(width)
    # Where the loss is louder than usual its own noise counts, over blocks, of which one with an event is outvoted by
    # its neighbours, and in the window itself.
    local = np.maximum(ndimage.median_filter(errors, size=5, mode="reflect"), error)
    centres = n % size + (np.arange(len(errors)) + 0.5) * size
    local = np.maximum(np.interp(np.arange(width, n - width + 1), centres, local), error * _loudness(loss, kernel))
    spread = local * np.sqrt(size * np.sum(kernel**2))
    rate = n * (1 - np.sum(kernel[1:] * kernel[:-1]) / np.sum(kernel**2))
    freedom = max(n_eff / 3, 3)

    def chance(z: float) -> float:
        """Probability of any |z| beyond this one."""
        # Beyond 37 both are zero in floating point.
        normal = min(37.0, stats.norm.isf(stats.t.sf(z, freedom)))
        return float(min(1.0, 2 * rate * normal * stats.norm.pdf(normal) + 2 * stats.norm.sf(normal)))

    threshold = optimize.brentq(lambda z: chance(z) - FALSE_ALARMS, 1, 1e6)
    # jumps[i] is Δ̂ at step i + width
    jumps = signal.oaconvolve(loss, kernel[::-1], mode="valid")
    echo = signal.oaconvolve(np.repeat([0.0, 1.0], 2 * width), kernel[::-1], mode="valid")
    free, found = np.ones(len(jumps), bool), []
    while len(found) < _MOST:
        z = np.where(free, np.abs(jumps), 0) / spread
        at = int(z.argmax())
        if not z[at] > threshold:
            break
        low, high = max(0, at - width), min(len(z), at + width + 1)
        close = np.flatnonzero(z[low:high] ** 2 >= z[at] ** 2 - _PLACE) + low
        margin = int(np.ceil(n / (2 * n_eff)))
        step = at + width
        jump = float(jumps[at])
        if _bends(loss[at : at + 2 * width]):
            free[low:high] = False
            continue
        found.append((step, max(0, close[0] + width - margin), min(n - 1, close[-1] + width + margin), jump,
                      jump / spread[at], chance(z[at])))  # fmt: skip
        # The window that a jump moves through: its echo, from 2w steps before to 2w after.
        begin, end = max(0, at - width), min(len(jumps), at + width + 1)
        jumps[begin:end] -= jump * echo[begin - at + width : end - at + width]
        free[max(0, at - 2 * width) : at + 2 * width + 1] = False
    return found, width


def _loudness(loss: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """How loud the loss is in each window, where a jump rests on it most or on average, over the median window.

    From differences of neighbours, of which a jump is one.

    Args:
        loss: (N,). kernel: (2w,).

    Returns:
        (N − 2w + 1,).
    """
    squares = np.diff(loss, prepend=loss[0]) ** 2
    weights = kernel[::-1] ** 2 / np.sum(kernel**2), np.full(len(kernel), 1 / len(kernel))
    found = np.maximum(*(signal.oaconvolve(squares, weight, mode="valid") for weight in weights)).clip(min=0)
    usual = np.median(found)
    return np.sqrt(found / usual) if usual > 0 else np.ones_like(found)


def _bends(window: np.ndarray) -> bool:
    """Whether a cubic fits it better than level, slope and a jump in its middle, which with its place are four too."""
    place = np.linspace(-1, 1, len(window))
    powers = np.stack([place**0, place, place**2, place**3], axis=1)
    jump = np.column_stack([powers[:, :2], place > 0])
    smooth, sudden = (np.sum((window - a @ np.linalg.lstsq(a, window, rcond=None)[0]) ** 2) for a in (powers, jump))
    return bool(smooth < sudden)


def _noise(loss: np.ndarray) -> tuple[int, np.ndarray, float]:
    """Length of the blocks, standard error of the mean of each, and effective samples of the whole.

    An event, or a fast descent at first, spoils few of the blocks: the median does not see it. They are short where a
    thousand steps hold a hundred effective samples, so that many events leave blocks without any.
    """
    n = len(loss)
    lengths = [length for length in (1000,) if n >= _BLOCKS * length]
    for length in [*lengths, n // _BLOCKS]:
        blocks = signal.detrend(loss[n % length :].reshape(-1, length))
        _, errors, counts = series.mean_and_error(blocks)
        if np.median(counts) >= 100:
            break
    return length, errors, n / length * float(np.median(counts))


def _kernel(width: int) -> np.ndarray:
    """Weights of the losses of [t−w, t+w) in the jump at t: of the step what level and slope do not explain."""
    place = np.arange(-width, width) + 0.5
    step = (place > 0) - 0.5
    kernel = step - place * (step @ place) / (place @ place)
    return kernel / (kernel @ step)


def _without_profile(loss: np.ndarray, epoch: int) -> np.ndarray:
    """The loss less the mean of its place in the epoch: the median deviation from a running median of one epoch."""
    deviation = loss - ndimage.median_filter(loss, size=epoch | 1, mode="nearest")
    whole = len(loss) // epoch * epoch
    profile = np.median(deviation[:whole].reshape(-1, epoch), axis=0)
    return loss - np.resize(profile - profile.mean(), len(loss))


def _kind(run: xr.Dataset, step: int, first: int, last: int, width: int, epoch: int | None, profiled: bool) -> int:
    part = run.isel(step=slice(max(0, step - width), step + width))
    eta, mu, nu, decay = (part[name].values for name in ("learning_rate", "momentum", "dampening", "weight_decay"))
    # Of momentum near 1 it is the rest to 1 that temperatures go by.
    for rows in map(np.atleast_2d, (eta, mu, 1 - mu, 1 - nu, decay)):
        least, most = rows.min(axis=-1), rows.max(axis=-1)
        if np.any(most - least > _CHANGED * np.abs(most)):
            return 1
    if epoch is None:
        return 0
    ends = last // epoch > (first - 1) // epoch
    # Where the profile of the epoch is gone, a wide interval holds the end of one by chance.
    return 2 if ends and (not profiled or last - first < epoch / 2) else 0


def _array(values: np.ndarray, units: str, en: str, zh: str) -> xr.DataArray:
    return xr.DataArray(values, dims="event", attrs={"units": units, "long_name": en, "long_name_zh": zh})


def _before_and_after(
    run: xr.Dataset, step: np.ndarray, first: np.ndarray, last: np.ndarray, width: int
) -> dict[str, xr.DataArray]:
    results: dict[str, xr.DataArray] = {}
    ends = np.concatenate([[0], last, [run.sizes["step"]]]), np.concatenate([first, [run.sizes["step"]]])
    # A diffusion coefficient takes ten of its lags at least.
    reach = max(4 * width, 20 * _lag(run))
    parts = {
        "before": [(max(ends[0][i], first[i] - reach), first[i]) for i in range(len(step))],
        "after": [(last[i] + 1, min(ends[1][i + 1], last[i] + 1 + reach)) for i in range(len(step))],
    }
    for name, measure, units, (en, zh) in (
        ("temperature", _temperature, "loss", ("noise temperature", "噪声温度")),
        ("diffusion", _diffusion, "parameter2 step-1", ("diffusion coefficient", "扩散系数")),
    ):
        for side, (side_en, side_zh) in (("before", ("before", "之前")), ("after", ("after", "之后"))):
            both = np.array([measure(run, *part) for part in parts[side]], float).reshape(-1, 2)
            value, error = (xr.DataArray(both[:, column], dims="event") for column in (0, 1))
            words = f"{en} {side_en}", f"事件{side_zh}的{zh}"
            results |= errorbar.named(f"{name}_{side}", (value, error, value), units, *words, samples=False)
    return results


def _temperature(run: xr.Dataset, start: int, stop: int) -> tuple[float, float]:
    """Noise temperature of all parameters in steps [start, stop), with its error; NaN where it is not defined."""
    if not is_sgd(run) or "noise_trace" not in run or not run.sizes.get("probe"):
        return float("nan"), float("nan")
    place = run["probe_step"].values
    chosen = np.flatnonzero((place >= start) & (place < stop))
    if len(chosen) < 16:
        return float("nan"), float("nan")
    eta, mu, nu = (data.isel(step=place[chosen]).values for data in hyperparameters(run))
    trace = run["noise_trace"].isel(probe=chosen).values
    value, error, _ = series.mean_and_error(np.sum(eta * (1 - nu) / (2 * (1 - mu)) * trace, axis=0))
    size = int(run["layer_size"].sum())
    return float(value) / size, float(error) / size


def _lag(run: xr.Dataset) -> int:
    """ℓ = 5/(1−μ), by which the velocity is forgotten; 50 where no momentum is known."""
    memory = velocity_memory(run)
    return round(5 * memory) if np.isfinite(memory) else 50


def _diffusion(run: xr.Dataset, start: int, stop: int) -> tuple[float, float]:
    """[M(2ℓ) − M(ℓ)]/(2ℓP) in steps [start, stop), M without drift, with its error; NaN where they are too few."""
    lag = _lag(run)
    whole = any(first <= start and stop <= last for first, last in stretches(run))
    if "parameter_sketch" not in run or not whole or stop - start < 10 * lag:
        return float("nan"), float("nan")
    lags = np.array([lag, 2 * lag])

    def add(_: int, x: np.ndarray) -> tuple[np.ndarray, ...]:
        products = displacements.slope_products(displacements.without_line(x), lag)
        return displacements.drift_free_displacements(x, lags), products

    positions = run["parameter_sketch"].isel(step=slice(start, stop))
    found = over_groups(add, each("both", "products"), [positions])
    both, products = (found[name][0] for name in ("both", "products"))
    value, error, _ = displacements.slope_and_error(both, products, lag, correlated_steps(run))
    (seen,) = displacement_dimensions(run, positions, [lag])
    error = np.hypot(error, value * float(seen["error_without_drift"].sel(group="all")))
    size = 2 * lag * int(run["layer_size"].sum())
    return value / size, float(error) / size


def _sampler_verdicts(run: xr.Dataset) -> list[dict[str, str]]:
    if run.attrs.get("sampling") is not None:
        return []
    return [verdict("event_kind", "caution", "sampler-unknown",
                    "The sampling scheme was not recorded: what comes at ends of epochs is not told from the rest.",
                    "未记录采样方式：无法区分一轮结束处的变化与其他变化。")]  # fmt: skip


def _verdicts(
    kind: np.ndarray, steps: int, width: int, missing: int, profiled: bool, epoch: int | None
) -> list[dict[str, str]]:
    found = []
    if not width:
        why = "the loss is constant, or shorter than 480 integrated times"
        why_zh = "损失为常数，或不足 480 个积分自相关时间"
        if steps < _FEWEST_STEPS:
            why, why_zh = f"it takes {_FEWEST_STEPS} steps", f"至少需要 {_FEWEST_STEPS} 步"
        found.append(verdict("jump", "untrusted", "not-sought",
                             f"Not sought: {why}.", f"未搜索：{why_zh}。"))  # fmt: skip
        return found
    counts = [int((kind == number).sum()) for number in range(len(KINDS))]
    found.append(verdict("", "ok", "sought",
                         f"{counts[0]} candidates, {counts[1]} beside changed settings, {counts[2]} at ends of epochs; "
                         f"half window {width} steps, one to three false alarms in a hundred runs.",
                         f"{counts[0]} 个候选事件，{counts[1]} 个伴随超参数变化，{counts[2]} 个位于一轮结束处；"
                         f"半窗口 {width} 步，每一百次运行误报一至三次。"))  # fmt: skip
    if counts[0]:
        found.append(verdict("event_kind", "caution", "candidates",
                             "A candidate is a sudden change of the loss, not an escape: that takes a quench of "
                             "snapshots from before and after.",
                             "候选事件只是损失的突变，不等于逃逸：后者需要将前后的快照淬火来验证。"))  # fmt: skip
    if 0 < counts[0] < _LAW:
        found.append(verdict("event_step", "caution", "few",
                             f"Too few for a law of waiting times: {counts[0]} of {_LAW}.",
                             f"数量不足以给出等待时间的分布：{counts[0]} 个，至少需要 {_LAW} 个。"))  # fmt: skip
    if missing:
        found.append(verdict("jump", "caution", "gaps", f"{missing} losses are not finite and were bridged by a line.",
                             f"{missing} 个损失值非有限，已用直线补上。"))  # fmt: skip
    if epoch is not None and not profiled:
        found.append(verdict("event_kind", "caution", "few-epochs",
                             "Fewer than sixteen epochs: what repeats in each was not taken off.",
                             "不足十六轮：未扣除每轮重复出现的变化。"))  # fmt: skip
    return found
