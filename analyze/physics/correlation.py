"""Correlation: autocorrelation of the loss, the parameters and the gradients, with integrated times.

    ρ(τ) = ⟨δx(t)·δx(t+τ)⟩ / ⟨δx·δx⟩,   δx = x − ⟨x⟩ over the segment

For parameters and gradients x is the sketch of a group, so that ρ is that of the trace (physics.md 1.7); a linear
sketch keeps it without bias. Centring by the sample mean lowers every autocovariance by 2τ_int Γ(0)/N, which is added
back. Lags go up to a tenth of the segment. The integrated time is τ_int = ½ + Σ ρ(t), summed up to Wolff's window;
some tools return twice this; its error falls with the independent coordinates that the sketch holds. N/(2τ_int) samples
are effectively independent, and below fifty integrated times the estimate is marked. The window follows the memory
that the sum has seen, and misses what is small but much longer: means over long blocks, whose variance is 2τ_int Γ(0)/w
over w steps at most, are held against it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .. import errorbar, series
from ..blocks import labelled, over_groups
from ..dimensions import dimensions_of_squares
from ..quantities import correlated_steps, finite_loss, require, sgd_time_per_step
from ..segments import choose_segment, within
from ..settings import AnalysisSettings
from ..verdicts import segment_verdict, verdict

USES = ("segment", "lags_per_decade")
TITLE = "Correlation"
TITLE_ZH = "相关"
FORMULA = (
    r"\rho(\tau)=\frac{\langle\delta x_t\cdot\delta x_{t+\tau}\rangle}{\langle\|\delta x\|^2\rangle}"
    r"\qquad\tau_\mathrm{int}=\tfrac12+\sum_{\tau\ge1}\rho(\tau)"
)
EXPLANATION = (
    "How long the loss, the parameters and the gradients remember themselves, as normalized autocorrelations over the "
    "segment with their integrated times. "
    "Do not trust a time of which the segment holds fewer than fifty, and read a slow drift as non-stationarity, not "
    "as a correlation time."
)
EXPLANATION_ZH = (
    "损失、参数和梯度对自身的记忆时间：区间内的归一化自相关及其积分自相关时间。"
    "区间长度不足五十个积分时间时不要相信该时间；缓慢漂移应视为不平稳，而不是相关时间。"
)
METHOD = (
    "Averages over all origins with the error of the joint fluctuation of numerator and denominator (Γ-method); "
    "integrated time with Wolff's automatic window, its error for as many independent coordinates as ‖δx‖² tells of, "
    "held against the variance of means over long blocks."
)
METHOD_ZH = (
    "对所有起点平均，误差取分子与分母的联合涨落（Γ 方法）；积分时间用 Wolff 自动窗口，"
    "其误差按由 ‖δx‖² 估计的独立坐标数计算，并与长区块均值的方差相比较。"
)
REFERENCE = "Wolff 2004, hep-lat/0306017; Sokal 1997."
_BLOCKS = 32
"""least blocks whose squares tell how many slow coordinates there are"""
_FAR = 3
"""joint standard errors by which the time of blocks must exceed that of the sum: of 200 motions with one memory it did
in none in 14 of 15 settings, and in 8 of a heavy ball of eight coordinates in 2,000 steps"""
_NAMES = {
    "loss": ("loss", "损失"),
    "parameter": ("parameter", "参数"),
    "gradient": ("gradient", "梯度"),
}


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Autocorrelations and integrated times.

    Returns:
        `loss_autocorrelation` (lag,), `parameter_autocorrelation`, `gradient_autocorrelation` (group, lag),
        dimensionless; `…_integrated_time` in steps, scalar or (group,); all with errors.

    Raises:
        NotDefinedError: if it was recorded without sketches.
        AnalysisError: if the run is too short.
    """
    require(run, "parameter_sketch", "gradient_sketch")
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    lags = series.log_lags(max(1, part.sizes["step"] // 10), settings.lags_per_decade)
    results: dict[str, xr.DataArray] = {}
    memory = correlated_steps(run)
    still, of_blocks = [], {}
    for name in ("parameter", "gradient"):
        found = _measure(part[f"{name}_sketch"], lags, memory)
        still += [] if found["moving"][0] else [name]
        of_blocks[name] = tuple(found["time_of_blocks"][0])
        results |= _named(name, found, run)
    if (losses := finite_loss(part)) is not None:
        loss = _measure(losses.expand_dims(["group", "sketch"]).chunk(), lags, memory)
        of_blocks["loss"] = tuple(loss["time_of_blocks"][0])
        alone = run.isel(group=slice(1))
        results |= {key: value.isel(group=0, drop=True) for key, value in _named("loss", loss, alone).items()}
    clock = {"lag": lags, "lag_sgd_time": ("lag", lags * sgd_time_per_step(part))}
    dataset = xr.Dataset(results, coords=clock).compute()
    verdicts = [segment_verdict(segment), *_verdicts(dataset, part.sizes["step"], still, of_blocks)]
    return dataset.assign_attrs(
        segment=[segment.start, segment.stop], segment_stationary=segment.stationary, verdicts=verdicts
    )


def _measure(positions: xr.DataArray, lags: np.ndarray, memory: int) -> dict[str, np.ndarray]:
    """ρ at some lags, the integrated time and its least by block means, with errors, of all groups and of each."""
    with_zero = np.concatenate([[0], lags])
    steps = positions.sizes["step"]
    widths = [2**power for power in range(2, int(np.log2(max(steps // _BLOCKS, 1))) + 1)]

    def add(_: int, x: np.ndarray) -> tuple[np.ndarray, ...]:
        centred = x - x.mean(-1, keepdims=True, dtype=float)
        # By their mean alone, which is rounded, numbers that stay would seem to fluctuate.
        moving = np.array(np.count_nonzero(np.ptp(x, axis=-1)))
        products, covariance = series.lagged_products(centred, with_zero), series.autocovariance(centred, trace=True)
        return products, covariance, moving, *(_squares_of_blocks(centred, width) for width in widths)

    def finish(_: int, products: np.ndarray, covariance: np.ndarray, moving: np.ndarray, *slow: Any) -> dict[str, Any]:
        none = (np.nan, np.nan)
        if not moving:
            nothing = tuple(np.full((2, len(lags)), np.nan))
            return {"autocorrelation": nothing, "integrated_time": none, "time_of_blocks": none, "moving": moving}
        dimensions = dimensions_of_squares(products[0], int(moving))
        tau = series.integrated_time(covariance, oscillating=True, dimensions=dimensions)[0]
        # The slow coordinates, of which there may be fewer, make the time.
        widest = int(np.searchsorted(widths, max(tau, 1.0), side="right")) - 1
        if widest >= 0:
            dimensions = min(dimensions, dimensions_of_squares(slow[widest], int(moving)))
        variance_of_mean = 2 * float(series.integrated_time(covariance)[0]) * covariance[0] / len(covariance)
        return {
            "autocorrelation": series.autocorrelation(products, lags, variance_of_mean, memory=memory),
            "integrated_time": series.integrated_time(covariance, oscillating=True, dimensions=dimensions),
            "time_of_blocks": _time_of_blocks(slow[-1], widths[-1], covariance[0], int(moving)) if widths else none,
            "moving": moving,
        }

    return over_groups(add, finish, [positions])


def _squares_of_blocks(x: np.ndarray, width: int) -> np.ndarray:
    """Σ_c of the squared means of x (coordinate, N) over blocks of so many steps, (block,)."""
    blocks = x.shape[-1] // width
    return np.sum(x[:, : blocks * width].reshape(len(x), blocks, width).mean(-1) ** 2, axis=0)


def _time_of_blocks(squares: np.ndarray, width: int, variance: float, most: int) -> tuple[float, float]:
    """What τ_int is at least, w⟨‖block mean‖²⟩/2Γ(0), with its error; squares as of `_squares_of_blocks`."""
    count = len(squares)
    # Block means scatter about the mean of them all.
    time = width * squares.mean() / (2 * variance) * count / (count - 1)
    return float(time), float(time * np.sqrt(2 / (count * dimensions_of_squares(squares, most))))


def _named(name: str, found: dict[str, np.ndarray], run: xr.Dataset) -> dict[str, xr.DataArray]:
    en, zh = _NAMES[name]
    results: dict[str, xr.DataArray] = {}
    for quantity, units, long_name, long_name_zh in (
        ("autocorrelation", "1", f"{en} autocorrelation", f"{zh}自相关"),
        ("integrated_time", "step", f"integrated autocorrelation time of the {en}", f"{zh}的积分自相关时间"),
    ):
        value, error = (labelled(found[quantity][:, part], run, "lag") for part in range(2))
        of = value, error, value
        results |= errorbar.named(f"{name}_{quantity}", of, units, long_name, long_name_zh, samples=False)
    return results


def _verdicts(
    results: xr.Dataset,
    steps: int,
    still: Sequence[str] = (),
    of_blocks: Mapping[str, tuple[float, float]] | None = None,
) -> list[dict[str, str]]:
    """How far each integrated time can be trusted; of what stands `still` there is none.

    Args:
        of_blocks: what block means say that each is at least, with its error, in steps.
    """
    found = []
    for name, (en, zh) in _NAMES.items():
        if f"{name}_integrated_time" not in results:
            continue
        time, error = (
            float(values.sel(group="all") if "group" in values.dims else values)
            for values in (results[f"{name}_integrated_time"], results[f"{name}_integrated_time_stderr"])
        )
        held = steps / max(time, 0.5)
        least, of_least = (of_blocks or {}).get(name, (np.nan, np.nan))
        if name in still:
            status, code = "untrusted", "not-defined"
            en_text = f"Not defined: the {en} does not change in the segment."
            zh_text = f"没有定义：{zh}在区间内没有变化。"
        elif not error <= max(time, 0.5) / 2:
            status, code = "untrusted", "unresolved"
            en_text = f"Unresolved: the integrated time of the {en} is not known to half of itself."
            zh_text = f"未分辨：{zh}的积分自相关时间的误差超过其一半。"
        elif time + 2 * error < 0.5:
            # Gradients of a stationary segment cancel to the last, since the parameters that they move stay.
            status, code = "untrusted" if name == "gradient" else "caution", "anticorrelated"
            en_text = (
                f"The {en} is anti-correlated (τ_int below ½): its fluctuations cancel, and no memory is measured. "
                "Where they cancel on beyond the window of the sum τ_int is lower, down to 0, and the error bar does "
                "not hold that."
            )
            zh_text = (
                f"{zh}反相关（τ_int 小于 ½）：其涨落相互抵消，测得的不是记忆时间。"
                "若在求和窗口之外仍相互抵消，τ_int 更小（可低至 0），误差棒不含此项。"
            )
        elif name != "gradient" and least - time > _FAR * np.hypot(error, of_least):
            status, code = "untrusted", "slow-part"
            en_text = (
                f"A slow part: by means over long blocks the integrated time is at least {least:.3g} ± {of_least:.2g} "
                f"steps, where the sum over the first memory of the {en} gives {time:.3g} ± {error:.2g}."
            )
            zh_text = (
                f"存在慢成分：由长区块均值得到的积分自相关时间至少为 {least:.3g} ± {of_least:.2g} 步，"
                f"而对{zh}最初记忆求和只得到 {time:.3g} ± {error:.2g} 步。"
            )
        elif held >= 50 and name == "gradient":
            status, code = "caution", "within-window"
            en_text = (
                "What the gradient remembers at first: a force that holds the motion back cancels its fluctuations "
                "later on, in a stationary motion to the last, which the window of the sum does not see."
            )
            zh_text = "这是梯度最初的记忆：约束运动的力随后会抵消其涨落（平稳运动中完全抵消），求和窗口看不到这一点。"
        elif held >= 50:
            status, code = "ok", "long-enough"
            en_text = f"The segment holds {held:.0f} integrated times of the {en}."
            zh_text = f"区间包含 {held:.0f} 个{zh}积分自相关时间。"
        else:
            status, code = "untrusted" if held < 10 else "caution", "too-short"
            en_text = f"The segment holds {held:.0f} integrated times of the {en}; fifty are needed."
            zh_text = f"区间只包含 {held:.0f} 个{zh}积分自相关时间，至少需要五十个。"
        found.append(verdict(f"{name}_integrated_time", status, code, en_text, zh_text))
    return found
