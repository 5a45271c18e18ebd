"""Ageing: displacement by waiting time, and the clock on which all waiting times look alike.

    Δ(t_w, t_w+τ) = ‖θ(t_w+τ) − θ(t_w)‖²/P

of single origins, seen through the sketch (physics.md 1.8). One displacement is one sample of a sum of squares: with d
effective dimensions, those of displacements at its lag, ln Δ has the variance ψ′(d/2), and no average over parameters
makes it less. They are the fewer of what (tr C)²/tr C² of displacements gives and of what their sizes scatter by, which
rare hops make larger than normal motion of the same C. Below the memory of the velocity, 5/(1−μ) steps, nothing is
compared.

The noise of shuffled epochs adds up to nothing over each epoch, so that Δ depends on the places of both ends in theirs:
waiting times, lags and doubled ages are whole epochs there, and lags of fewer than two are left out.

A training may age for no other reason than its schedule. Three clocks are tried,

    step,   SGD time Σ η(1−ν)/(1−μ),   noise time Σ η²(1−ν)² tr C/((1−μ)² P),

the last with tr C from probes, averaged over five of them; free motion driven by the noise alone has Δ equal to the
lapse of noise time. At lags of that clock a factor of two apart, of each lag only waiting times whose intervals do not
overlap,

    χ² = Σ (ln Δ − mean over t_w at that lag)²/ψ′(d/2)

is compared with what equal curves give: displacements of one origin at different lags, and any that overlap, are
correlated by the squared cosine between them, which is measured; from this follow the mean of χ², its variance and, as
that of a scaled χ² (Satterthwaite 1946), its significance. The score is χ² over its mean: 1 ± its error where the
curves collapse. The exponent beside it is the common slope d ln Δ/d ln t_w at equal lag: −0.5, say, if four times the
age halves the displacement.

Two more tests are free of any clock. For scaled Brownian motion, ⟨x²⟩ = t^α with independent increments, Δ(t, 2t) grows
as t^α and Δ(t, 2t)/Δ(0, t) = 2^α − 1, where stationary increments, fractional ones as well, give 1.

Not a proof of glassy dynamics: a descent that is still under way ages, and confined motion under a schedule follows the
temperature, which no clock takes off.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from dask.base import compute
from scipy import special, stats

from .. import series
from ..blocks import over_groups
from ..dimensions import dimensions_of_pairs
from ..quantities import (
    dimensions_at,
    group_hyperparameters,
    group_names,
    group_sizes,
    hyperparameters,
    is_sgd,
    require,
    shuffled_epoch,
    velocity_memory,
)
from ..segments import choose_segment, stretches, within
from ..settings import AnalysisSettings
from ..verdicts import probe_verdicts, verdict

USES = ("segment", "lags_per_decade", "waiting_times")
TITLE = "Ageing"
TITLE_ZH = "老化"
FORMULA = (
    r"\Delta(t_w,t_w+\tau)=\frac1P\|\theta_{t_w+\tau}-\theta_{t_w}\|^2"
    r"\qquad \chi^2=\sum_{\tau,t_w}\frac{(\ln\Delta-\overline{\ln\Delta}_\tau)^2}{\psi'(d/2)}"
)
EXPLANATION = (
    "How far the parameters move within a lag, by the time already trained, and whether the curves of all waiting "
    "times fall onto one when time is counted in steps, in SGD time or in noise time: if so, the ageing is that of the "
    "schedule or of the noise. Do not take ageing on every clock for glassy dynamics: a descent under way and confined "
    "motion of changing temperature do the same, and one run gives one displacement for each pair of times."
)
EXPLANATION_ZH = (
    "参数在给定时间差内移动多远，如何随已训练的时间而变；"
    "以及按步数、SGD 时间或噪声时间计时后，不同等待时间的曲线是否重合：若重合，老化只来自训练计划或噪声的变化。"
    "不要把在所有时钟上都出现的老化当作玻璃态动力学：仍在下降的训练、温度变化的受限运动同样如此；"
    "而且一次训练对每一对时刻只给出一个位移。"
)
METHOD = (
    "Single origins through the sketch, errors from the effective dimension of displacements at each lag, the smaller "
    "of those by their covariance and by the scatter of their sizes. Spread of ln Δ at equal lag over waiting times "
    "whose intervals do not overlap, against what equal curves give with the measured correlation between lags. Under "
    "shuffled epochs both are whole epochs."
)
METHOD_ZH = (
    "由随机投影得到单个起点的位移，误差来自该时间差下位移的有效维数（由协方差与位移大小的涨落估计，取较小者）。"
    "在相等时间差下、区间互不重叠的等待时间之间 ln Δ 的离散，与曲线相同时的预期（含实测的时间差间相关）相比。"
    "按轮次打乱采样时，等待时间与时间差均取整轮。"
)
REFERENCE = (
    "Baity-Jesi et al. 2018, PMLR 80:314; Jeon, Chechkin & Metzler 2014 (scaled Brownian motion), Phys. Chem. Chem. "
    "Phys. 16, 15811; Satterthwaite 1946, Biometrics Bull. 2, 110."
)
CLOCKS = {
    "steps": ("steps", "步数", "step"),
    "sgd_time": ("SGD time", "SGD 时间", "parameter2 loss-1"),
    "noise_time": ("noise time", "噪声时间", "parameter2"),
}
SIGNIFICANCE = 0.01
"""below which curves do not collapse"""
RESOLVED = 0.1
"""error of the exponent from which on a collapse says something"""
_SMOOTHED = 5
"""probes in the running mean of tr C"""
_LEAST_PROBES = 8
_OCTAVES = 12
_LAGS = 200
"""at which the dimension of displacements is worked out, and between which it is taken on straight lines"""
_LEAST_PAIRS = 16
"""pairs of displacements that do not overlap, which fit into the steps from which the scatter of sizes is taken; half
of them may lie across a change of the schedule"""
_ORIGINS = 2048
"""steps at which such pairs begin at most"""
_PLACES = 1000
"""steps at which noise time is kept, evenly chosen"""


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """The two-time displacement, its collapse on three clocks, and the tests by doubled age, per group.

    The whole run is used, or the steps of the setting `segment`; waiting times count from its start.

    Returns:
        `two_time_displacement` (group, waiting_time, lag); for each clock that the run has and that differs from
        counting steps `displacement_on_…` (group, waiting_time, octave) at `lag_on_…` (group, octave), `collapse_…`
        (1 where curves collapse), `collapse_…_p` and `ageing_exponent_…` (group,); `ageing_exponent` (group, octave) of
        each lag in steps; `doubling_displacement` Δ(t, 2t) (group, doubling), its exponent and `doubling_ratio`
        Δ(t, 2t)/Δ(0, t) (group,); with errors. `noise_time` (clock_step,) of all layers where it is a clock, which is
        close to straight between these steps.

    Raises:
        NotDefinedError: if it was recorded without sketches.
        AnalysisError: if the run is too short or diverged.
    """
    require(run, "parameter_sketch")
    segment = choose_segment(run, settings.segment)
    whole = settings.segment == "auto"
    if whole:
        segment = replace(segment, start=0, stop=run.sizes["step"])
    part = within(run, segment)
    steps = part.sizes["step"]
    known = np.concatenate([np.arange(*stretch) for stretch in stretches(run)])
    known = known[(known >= segment.start) & (known < segment.stop)] - segment.start
    motion = _Motion(run, part, known)
    waiting = np.unique(np.geomspace(max(1, steps // 64), steps // 2, settings.waiting_times).astype(int))
    waiting = np.unique(known[np.clip(np.searchsorted(known, waiting), 0, len(known) - 1)])
    lags = series.log_lags(steps - 1 - int(waiting[0]), settings.lags_per_decade)

    clocks, verdicts = _clocks(run, part)
    grid = _grid(motion, waiting, lags)
    equal = {name: [_equal_lags(motion, row, waiting) for row in clock] for name, (clock, _) in clocks.items()}
    ages, doubled = _ages(motion)
    shared = (grid[1:], doubled)
    on_clocks = zip(*equal.values(), strict=True)
    motion.read([[*shared, *((one.begin, one.end) for one in of_group)] for of_group in on_clocks])
    results = _map(motion, grid, len(waiting), lags)
    for name, (_, scatter) in clocks.items():
        results |= _collapse(motion, name, equal[name], scatter, waiting)
    results |= _doubling(motion, ages, doubled)
    coordinates = {"lag": lags, "waiting_time": waiting, "group": group_names(run)}
    if "noise_time" in clocks:
        places = np.unique(np.linspace(0, steps - 1, _PLACES).astype(int))
        en, zh, unit = CLOCKS["noise_time"]
        results |= _labelled("noise_time", ("clock_step",), clocks["noise_time"][0][0, places], None, unit, en, zh)
        coordinates["clock_step"] = segment.start + places
    dataset = xr.Dataset(results, coords=coordinates)
    verdicts = [_judge(dataset, clocks), *verdicts]
    # Of the whole run there is no segment that others would have to share.
    own = {} if whole else {"segment": [segment.start, segment.stop]}
    return dataset.assign_attrs(own | {"segment_stationary": verdicts[0]["code"] == "not-ageing", "verdicts": verdicts})


class _Motion:
    """Displacements of a run between any two steps that have sketches, and how many directions they fill."""

    def __init__(self, run: xr.Dataset, part: xr.Dataset, known: np.ndarray):
        self.positions, self.known = part["parameter_sketch"], known
        self.names, self.sizes = group_names(run), group_sizes(run).values
        memory = velocity_memory(part)
        self.shortest = max(4, int(np.ceil(5 * memory)) if np.isfinite(memory) else 50)
        first, last = max(np.split(known, np.flatnonzero(np.diff(known) > 1) + 1), key=len)[[0, -1]]
        stretch = self.positions.isel(step=slice(first, last + 1))
        self.epoch = shuffled_epoch(run)
        rates = np.concatenate([part[name].values for name in ("learning_rate", "momentum")])
        self.lags = np.unique(np.geomspace(1, part.sizes["step"], _LAGS).astype(int))
        of_covariance = dimensions_at(run, stretch, self.lags)["of_sketch"].values
        of_sizes = _dimensions_of_sizes(stretch, self.lags, self.epoch or 1, rates[:, first : last + 1])
        self.dimensions_at = np.clip(of_sizes, 1.0, of_covariance)

    def dimensions(self, group: int, lag: np.ndarray) -> np.ndarray:
        """Effective dimension of displacements at some lags, in steps."""
        return np.interp(np.log(np.maximum(lag, 1)), np.log(self.lags), self.dimensions_at[group])

    def read(self, intervals: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]]) -> None:
        """Read the positions at both ends of intervals, all at once, since a step lies in as many blocks as a series.

        Args:
            intervals: of all groups together and of each, begin and end in steps as in `vectors`.
        """
        steps = [np.unique(np.concatenate([np.concatenate(self._steps(*one)) for one in own])) for own in intervals]
        self.steps = [np.union1d(steps[0], own) for own in steps[1:]]
        read = [self.positions.isel(group=group, step=own).transpose("step", "sketch").data
                for group, own in enumerate(self.steps)]  # fmt: skip
        self.at_steps = [values.astype(float, copy=False) for values in compute(*read)]

    def vectors(self, group: int, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Displacements of one group, or with 0 of all, per root of a parameter: (cell, coordinate).

        Args:
            end: steps, or places between two of them, where the position is taken on the line between.
        """
        start, early, late = self._steps(begin, end)
        share = np.where(late > early, np.clip((end - early) / np.maximum(late - early, 1), 0, 1), 1.0)[:, None]
        moved = []
        for member in range(len(self.steps)) if group == 0 else (group - 1,):
            x, places = self.at_steps[member], np.searchsorted(self.steps[member], [start, early, late])
            low, high = x[places[1]], x[places[2]]
            moved.append(low + share * (high - low) - x[places[0]])
        return np.concatenate(moved, axis=1) / np.sqrt(self.sizes[group])

    def _steps(self, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The steps at which intervals begin, and those with sketches before and after their end."""
        index = np.clip(np.searchsorted(self.known, end), 0, len(self.known) - 1)
        late, early = self.known[index], self.known[np.maximum(index - 1, 0)]
        return begin, np.where(late > end, early, late), late


def _dimensions_of_sizes(positions: xr.DataArray, lags: np.ndarray, unit: int, rates: np.ndarray) -> np.ndarray:
    """d by which squared displacements scatter, (group, lag), from pairs of them that lie one lag apart.

    At lags that leave too few pairs it is that of the longest that does not, and ∞ if there is none.

    Args:
        positions: (group, sketch, step). lags: (lag,) in steps.
        unit: all intervals are multiples of so many steps. rates: (…, step); pairs over which one changes by more than
            a tenth are left out, as a schedule is no scatter.
    """
    steps, groups = positions.sizes["step"], positions.sizes["group"]
    stride, longest = unit * -(-steps // (unit * _ORIGINS)), steps / (3 * _LEAST_PAIRS * unit)
    begins = {}
    for lag in unit * 2 ** np.arange(int(np.log2(longest)) + 1 if longest >= 1 else 0):
        begin = np.arange(0, steps - 3 * lag, stride)
        begin = begin[np.isclose(rates[:, begin], rates[:, begin + 3 * lag], rtol=0.1, equal_nan=True).all(0)]
        if 2 * len(begin) * stride >= 3 * lag * _LEAST_PAIRS:
            begins[int(lag)] = begin
    if not begins:
        return np.full((1 + groups, len(lags)), np.inf)

    def add(_: int, x: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(
            np.stack([np.sum((x[:, at + lag] - x[:, at]) ** 2, axis=0, dtype=float) for at in (begin, begin + 2 * lag)])
            for lag, begin in begins.items()
        )

    def finish(_: int, *squares: np.ndarray) -> dict[str, np.ndarray]:
        return {"dimensions": np.array([dimensions_of_pairs(*pairs) for pairs in squares])}

    found = over_groups(add, finish, [positions])["dimensions"]
    # Infinite ones have no line to the next; fewer than one direction is none.
    inverse = [np.interp(np.log(lags), np.log([*begins]), 1 / np.maximum(row, 1.0)) for row in found]
    with np.errstate(divide="ignore"):
        return 1 / np.stack(inverse)


def _grid(motion: _Motion, waiting: np.ndarray, lags: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All waiting times and lags in steps: which have sketches at both ends, and of these begin and end."""
    begin, end = np.repeat(waiting, len(lags)), (waiting[:, None] + lags).ravel()
    there = np.isin(end, motion.known)
    return there, begin[there], end[there]


def _map(
    motion: _Motion, grid: tuple[np.ndarray, np.ndarray, np.ndarray], waiting_times: int, lags: np.ndarray
) -> dict[str, xr.DataArray]:
    """Δ on all waiting times and lags in steps whose ends have sketches; NaN elsewhere."""
    there, begin, end = grid
    value, error = np.full((2, len(motion.names), waiting_times, len(lags)), np.nan)
    relative = series.single_square_error(
        np.array([motion.dimensions(group, lags) for group in range(len(motion.names))])
    )
    for group in range(len(motion.names)):
        flat = value[group].reshape(-1)
        flat[there] = np.sum(motion.vectors(group, begin, end) ** 2, axis=1)
        error[group] = value[group] * relative[group]
    return _labelled(
        "two_time_displacement",
        ("group", "waiting_time", "lag"),
        value,
        error,
        "parameter2",
        "displacement after waiting",
        "等待之后的位移",
    )


class _EqualLags(NamedTuple):
    """Intervals of equal lags on a clock, as far as they fit into the run."""

    lags: np.ndarray
    """(octave,), NaN if the clock stands still"""
    begin: np.ndarray
    """(cell,), in steps"""
    end: np.ndarray
    waiting_time: np.ndarray
    """which of them each is of, (cell,)"""
    octave: np.ndarray


def _equal_lags(motion: _Motion, clock: np.ndarray, waiting: np.ndarray) -> _EqualLags:
    """Intervals of equal lags on a clock (step,), which does not fall."""
    steps, lapse = len(clock), clock[-1]
    octaves = int(np.clip(np.log2(max(2.0, steps / motion.shortest)) - 1, 1, _OCTAVES))
    if not lapse > 0:
        none = np.empty(0, int)
        return _EqualLags(np.full(octaves, np.nan), none, none, none, none)
    lags = lapse / 2.0 ** np.arange(octaves, 0, -1)
    target = clock[waiting][:, None] + lags
    end = np.interp(target, clock, np.arange(steps))
    taken = end - waiting[:, None]
    index = np.clip(np.searchsorted(motion.known, end), 1, len(motion.known) - 1)
    gap = motion.known[index] - motion.known[index - 1]
    begin, shortest, inside = np.broadcast_to(waiting[:, None], end.shape), motion.shortest, target <= lapse
    # The waiting time keeps its name, from which it is less than an epoch away.
    if motion.epoch:
        begin = begin // motion.epoch * motion.epoch
        end = begin + np.rint(taken / motion.epoch) * motion.epoch
        shortest, inside = max(shortest, 2 * motion.epoch), inside & np.isin(begin, motion.known)
    i, j = np.nonzero(inside & (taken >= shortest) & (end <= motion.known[-1]) & (gap <= taken / 4))
    return _EqualLags(lags, begin[i, j], end[i, j], i, j)


def _collapse(
    motion: _Motion,
    name: str,
    equal: Sequence[_EqualLags],
    scatter: np.ndarray,
    waiting: np.ndarray,
) -> dict[str, xr.DataArray]:
    """Displacements at equal lags of a clock, how far their curves spread, and the slope over the waiting time.

    Args:
        equal: from `_equal_lags`, of all groups together and of each. scatter: (group, 2), relative variance of one
            sample of the clock's rate, and samples in a step; zeros where it is exact.
    """
    lag_on = np.stack([intervals.lags for intervals in equal])
    groups, octaves = lag_on.shape
    value, error = np.full((2, groups, len(waiting), octaves), np.nan)
    score, score_error, significance, slope, slope_error = np.full((5, groups), np.nan)
    of_lag, of_lag_error = np.full((2, groups, octaves), np.nan)
    for group, (_, begin, end, i, j) in enumerate(equal):
        if not len(begin):
            continue
        moved = motion.vectors(group, begin, end)
        squares = np.sum(moved**2, axis=1)
        freedom = motion.dimensions(group, end - begin)
        value[group, i, j] = squares
        error[group, i, j] = squares * series.single_square_error(freedom)
        chosen = _without_overlap(begin, end, j) & (squares > 0)
        cells = _Cells(moved[chosen], begin[chosen], end[chosen], freedom[chosen], scatter[group])
        score[group], score_error[group], significance[group] = cells.spread(j[chosen])
        slope[group], slope_error[group] = cells.slope(j[chosen])
        for octave in range(octaves):
            here = chosen & (j == octave)
            if here.sum() > 1:
                cells = _Cells(moved[here], begin[here], end[here], freedom[here], scatter[group])
                of_lag[group, octave], of_lag_error[group, octave] = cells.slope(j[here])
    en, zh, unit = CLOCKS[name]
    curves = ("group", "octave")
    results = _labelled(f"collapse_{name}", ("group",), score, score_error, "1",
                        f"spread of the curves in {en}", f"按{zh}计时的曲线离散")  # fmt: skip
    results |= _labelled(f"collapse_{name}_p", ("group",), significance, None, "1",
                         f"significance of the spread in {en}", f"按{zh}计时的离散的显著性 p 值")  # fmt: skip
    results |= _labelled(f"ageing_exponent_{name}", ("group",), slope, slope_error, "1",
                         f"ageing exponent in {en}", f"按{zh}计时的老化指数")  # fmt: skip
    results |= _labelled(f"lag_on_{name}", curves, lag_on, None, unit, f"lag in {en}", f"时间差（{zh}）")
    results |= _labelled(f"displacement_on_{name}", ("group", "waiting_time", "octave"), value, error, "parameter2",
                         f"displacement at equal lags in {en}", f"按{zh}等时间差的位移")  # fmt: skip
    if name == "steps":
        results |= _labelled("ageing_exponent", curves, of_lag, of_lag_error, "1",
                             "ageing exponent d ln Δ/d ln t_w", "老化指数 d ln Δ/d ln t_w")  # fmt: skip
    return results


def _without_overlap(begin: np.ndarray, end: np.ndarray, lag: np.ndarray) -> np.ndarray:
    """Of every lag as many intervals as there are that do not touch: always the one that ends first."""
    chosen, last = np.zeros(len(begin), bool), {}
    for cell in np.argsort(end, kind="stable"):
        if begin[cell] > last.get(lag[cell], -1):
            chosen[cell], last[lag[cell]] = True, end[cell]
    return chosen


class _Cells:
    """Logarithms of squared displacements between times, and their covariance.

    Args:
        moved: (cell, coordinate). begin, end: (cell,), in steps. freedom: effective dimensions d of each.
        scatter: (2,) of the clock, as in `_collapse`; its rate is a mean of five samples at least.
    """

    def __init__(self, moved: np.ndarray, begin: np.ndarray, end: np.ndarray, freedom: np.ndarray, scatter: np.ndarray):
        squares = np.sum(moved**2, axis=1)
        # The mean of ln(χ²/d) is not 0, and differs where d does.
        self.logarithm = np.log(squares) - special.digamma(freedom / 2) + np.log(freedom / 2)
        samples = np.maximum((end - begin) * scatter[1], _SMOOTHED)
        self.error = np.sqrt(special.polygamma(1, freedom / 2) + scatter[0] / samples)
        self.age = np.log(begin.clip(1))
        cosine = (moved @ moved.T) ** 2 / np.outer(squares, squares)
        by_chance = 1 / np.maximum(np.sqrt(np.outer(freedom, freedom)), 1.001)
        overlap = np.minimum.outer(end, end) >= np.maximum.outer(begin, begin)
        shared = np.where(overlap, np.clip((cosine - by_chance) / (1 - by_chance), 0, 1), 0.0)
        np.fill_diagonal(shared, 1.0)
        self.shared = shared

    def _residues(self, lag: np.ndarray) -> np.ndarray:
        """Projection off the weighted mean at each lag, of values in units of their errors."""
        columns = (lag[:, None] == np.unique(lag)) / self.error[:, None]
        unit = columns / np.linalg.norm(columns, axis=0)
        return np.eye(len(lag)) - unit @ unit.T

    def spread(self, lag: np.ndarray) -> tuple[float, float, float]:
        """χ² over its mean, the error of that where curves are equal, and its significance."""
        off = self._residues(lag)
        turned = off @ self.shared @ off
        mean, variance = np.trace(turned), 2 * np.sum(turned**2)
        if not mean > 0.5:
            return np.nan, np.nan, np.nan
        score = np.sum((off @ (self.logarithm / self.error)) ** 2) / mean
        freedom = 2 * mean**2 / variance
        return score, np.sqrt(2 / freedom), float(stats.chi2.sf(score * freedom, freedom))

    def slope(self, lag: np.ndarray) -> tuple[float, float]:
        """The common slope over the logarithm of the waiting time, and its error."""
        off = self._residues(lag)
        pull = off @ (self.age / self.error)
        square = pull @ pull
        if not square > 1e-9:
            return np.nan, np.nan
        return pull @ (self.logarithm / self.error) / square, np.sqrt(pull @ self.shared @ pull) / square

    def combine(self, factors: np.ndarray) -> tuple[float, float]:
        """A linear combination of the logarithms, and its error."""
        scaled = factors * self.error
        return float(factors @ self.logarithm), float(np.sqrt(max(scaled @ self.shared @ scaled, 0.0)))


def _ages(motion: _Motion) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Ages t a factor of two apart, back from half the run; of those with sketches the intervals t–2t, then 0–t."""
    last = int(motion.known[-1])
    count = max(1, min(_OCTAVES, int(np.log2(max(1, last / (2 * motion.shortest)))) + 1))
    age = last // 2 // 2 ** np.arange(count - 1, -1, -1)
    if motion.epoch:
        age = np.unique(age // motion.epoch * motion.epoch)
        age = age[age > 0]
    there = age[np.isin(age, motion.known) & np.isin(2 * age, motion.known)]
    if motion.known[0] != 0:
        there = there[:0]
    return age, (np.concatenate([there, np.zeros_like(there)]), np.concatenate([2 * there, there]))


def _doubling(motion: _Motion, age: np.ndarray, intervals: tuple[np.ndarray, np.ndarray]) -> dict[str, xr.DataArray]:
    """Δ(t, 2t) and Δ(0, t), of what `_ages` gives."""
    (begin, end), groups = intervals, len(motion.names)
    used = begin[: len(begin) // 2]
    there = np.isin(age, used)
    value, error = np.full((2, groups, len(age)), np.nan)
    exponent, exponent_error, ratio, ratio_error = np.full((4, groups), np.nan)
    for group in range(groups) if len(used) else ():
        moved, freedom = motion.vectors(group, begin, end), motion.dimensions(group, end - begin)
        squares = np.sum(moved**2, axis=1)
        value[group, there] = squares[: len(used)]
        error[group, there] = value[group, there] * series.single_square_error(freedom[: len(used)])
        if len(used) < 3 or not np.all(squares > 0):
            continue
        cells = _Cells(moved, begin, end, freedom, np.zeros(2))
        x, weight = np.log(used), 1 / cells.error[: len(used)] ** 2
        x = (x - np.average(x, weights=weight)) * weight
        none = np.zeros(len(x))
        exponent[group], exponent_error[group] = cells.combine(np.concatenate([x / (x @ np.log(used)), none]))
        share = weight / weight.sum()
        logarithm, of_logarithm = cells.combine(np.concatenate([share, -share]))
        ratio[group], ratio_error[group] = np.exp(logarithm), np.exp(logarithm) * of_logarithm
    results = _labelled("doubling_displacement", ("group", "doubling"), value, error, "parameter2",
                        "displacement from age t to 2t", "从 t 到 2t 的位移")  # fmt: skip
    results |= _labelled("doubling_exponent", ("group",), exponent, exponent_error, "1",
                         "exponent of Δ(t, 2t)", "Δ(t, 2t) 的指数")  # fmt: skip
    results |= _labelled("doubling_ratio", ("group",), ratio, ratio_error, "1",
                         "Δ(t, 2t)/Δ(0, t), 1 if increments are stationary",
                         "后期与前期位移之比 Δ(t, 2t)/Δ(0, t)，增量平稳时为 1")  # fmt: skip
    results["doubling_age"] = xr.DataArray(
        age, dims="doubling", attrs={"units": "step", "long_name": "age", "long_name_zh": "已训练步数"}
    )
    return results


def _labelled(
    name: str, dims: tuple[str, ...], value: np.ndarray, error: np.ndarray | None, units: str, en: str, zh: str
) -> dict[str, xr.DataArray]:
    text = {"units": units, "long_name": en, "long_name_zh": zh}
    if error is None:
        return {name: xr.DataArray(value, dims=dims, attrs=text)}
    of_error = {"units": units, "long_name": f"standard error of {en}", "long_name_zh": f"{zh}的标准误差"}
    return {
        name: xr.DataArray(value, dims=dims, attrs=text | {"ancillary_variables": f"{name}_stderr"}),
        f"{name}_stderr": xr.DataArray(error, dims=dims, attrs=of_error),
    }


def _clocks(run: xr.Dataset, part: xr.Dataset) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Clocks that the run has, each (group, step), and its scatter as in `_collapse`; and why others are missing."""
    steps, groups = part.sizes["step"], len(group_names(run))
    exact = np.zeros((groups, 2))
    found: dict[str, Any] = {"steps": (np.tile(np.arange(float(steps)), (groups, 1)), exact)}
    if not is_sgd(run):
        kind = run.attrs["optimizer"]["class"]
        return found, [
            verdict(
                "",
                "caution",
                "not-defined",
                f"SGD time and noise time are not defined for {kind}; only steps are tried.",
                f"{kind} 没有定义 SGD 时间与噪声时间；只按步数比较。",
            )
        ]
    verdicts = []
    eta, mu, nu = group_hyperparameters(part)
    rate = (eta * (1 - nu) / (1 - mu)).values
    shared = np.where(np.all(rate == rate[:1], axis=0), rate[0], np.nan)
    rate = np.concatenate([shared[None], rate])
    if not np.any(np.fmax.reduce(rate, axis=1) > 1.05 * np.fmin.reduce(rate, axis=1)):
        verdicts.append(
            verdict(
                "",
                "ok",
                "steady-schedule",
                "The schedule is constant: SGD time runs as the steps do.",
                "训练计划不变：SGD 时间与步数成正比。",
            )
        )
    else:
        found["sgd_time"] = (_cumulated(rate), exact)
    reasons = probe_verdicts(run, part, "collapse_noise_time")
    if part.sizes.get("probe", 0) >= _LEAST_PROBES:
        found["noise_time"] = _noise_time(run, part)
    elif not reasons:
        reasons = [
            verdict(
                "collapse_noise_time",
                "untrusted",
                "no-probe",
                f"No noise time: {part.sizes['probe']} probes; at least {_LEAST_PROBES} are needed.",
                f"没有噪声时间：只有 {part.sizes['probe']} 个探针，至少需要 {_LEAST_PROBES} 个。",
            )
        ]
    return found, [*verdicts, *reasons]


def _cumulated(rate: np.ndarray) -> np.ndarray:
    """The clock at each step, 0 at the first, of its rate in each (group, step)."""
    return np.concatenate([np.zeros((len(rate), 1)), np.cumsum(rate[:, :-1], axis=1)], axis=1)


def _noise_time(run: xr.Dataset, part: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Σ η²(1−ν)² tr C/((1−μ)² P) with tr C of the probes, and the scatter of a single one."""
    steps = np.arange(part.sizes["step"])
    at = part["probe_step"].values - int(part["step"].values[0])
    eta, mu, nu = hyperparameters(part)
    factor = ((eta * (1 - nu) / (1 - mu)) ** 2).transpose("layer", "step")
    trace = part["noise_trace"].transpose("layer", "probe").values.astype(float)
    kinds = part["layer_optimizer_group"].values
    names, of_layer = group_names(run), run["layer_group"].values
    rate, known = np.zeros((len(names), len(steps))), np.zeros((len(names), 2))
    window = np.ones(_SMOOTHED)
    counts = np.convolve(np.ones(len(at)), window, "same")
    for row, name in enumerate(names):
        mine = np.full(len(kinds), True) if row == 0 else of_layer == name
        total = np.zeros(len(at))
        for kind in np.unique(kinds[mine]):
            members = mine & (kinds == kind)
            here, samples = factor.isel(layer=int(np.flatnonzero(members)[0])).values, trace[members].sum(0)
            rate[row] += here * np.interp(steps, at, np.convolve(samples, window, "same") / counts)
            total += samples
        level = (total[1:] + total[:-1]) / 2
        if np.all(level > 0):
            # Neighbours differ by the noise of both, and hardly by what they measure.
            known[row] = np.mean((np.diff(total) / level) ** 2) / 2, len(at) / len(steps)
    return _cumulated(rate / group_sizes(run).values[:, None]), known


def _judge(results: xr.Dataset, clocks: dict[str, Any]) -> dict[str, str]:
    """Which kind of ageing all layers together show."""
    of_all = results.isel(group=0)
    p = {name: float(of_all[f"collapse_{name}_p"]) for name in clocks}
    # Where groups keep different times there is none for all of them.
    clocks = {name: clocks[name] for name in clocks if name == "steps" or np.isfinite(p[name])}
    score = {name: f"{float(of_all[f'collapse_{name}']):.2f}" for name in clocks}
    # A collapse that could hide a slope of ±0.2 is none.
    sharp = {name: float(of_all[f"ageing_exponent_{name}_stderr"]) <= RESOLVED for name in clocks}
    falls = {name: sharp[name] and p[name] >= SIGNIFICANCE for name in clocks}
    spreads = {name: p[name] < SIGNIFICANCE for name in clocks}
    exponent = f"{float(of_all['ageing_exponent_steps']):.2f} ± {float(of_all['ageing_exponent_steps_stderr']):.2f}"
    listed = ", ".join(f"{CLOCKS[name][0]} {score[name]}" for name in clocks)
    listed_zh = "、".join(f"{CLOCKS[name][1]} {score[name]}" for name in clocks)
    if falls["steps"]:
        return verdict(
            "collapse_steps",
            "ok",
            "not-ageing",
            f"Not ageing: the curves of all waiting times agree in steps (spread {score['steps']} of the expected; "
            f"d ln Δ/d ln t_w = {exponent}).",
            f"没有老化：按步数计时，各等待时间的曲线一致（离散为预期的 {score['steps']} 倍；"
            f"d ln Δ/d ln t_w = {exponent}）。",
        )
    collapsed = [name for name in clocks if name != "steps" and falls[name]]
    if spreads["steps"] and collapsed:
        best = max(collapsed, key=lambda name: p[name])
        return verdict(
            f"collapse_{best}",
            "ok",
            "trivial-ageing",
            f"Trivial ageing: the curves differ in steps and agree in {CLOCKS[best][0]} (spread over the expected: "
            f"{listed}); the schedule or the strength of the noise explains it.",
            f"平凡老化：按步数计时曲线不同，按{CLOCKS[best][1]}计时则一致（离散与预期之比：{listed_zh}）；"
            "训练计划或噪声强度的变化足以解释。",
        )
    if all(spreads.values()) and "noise_time" in clocks:
        return verdict(
            "collapse_steps",
            "caution",
            "genuine-ageing",
            f"Ageing beyond the schedule: the curves agree on no clock (spread over the expected: {listed}; "
            f"d ln Δ/d ln t_w = {exponent} in steps). A descent under way, or confined motion whose temperature "
            "changes, does the same.",
            f"真实老化（超出训练计划）：在任何时钟上曲线都不一致（离散与预期之比：{listed_zh}；"
            f"按步数 d ln Δ/d ln t_w = {exponent}）。仍在下降的训练、或温度变化的受限运动也会如此。",
        )
    if spreads["steps"]:
        lacking, lacking_zh = "noise time is missing", "缺少噪声时间"
        if "noise_time" in clocks:
            lacking = "on another they agree only because their exponent is not known well enough"
            lacking_zh = "在其他时钟上，曲线之所以一致，只是因为其指数尚未充分分辨"
        return verdict(
            "collapse_steps",
            "untrusted",
            "unresolved",
            f"Unresolved: the curves differ in steps (d ln Δ/d ln t_w = {exponent}), but whether on every clock "
            f"cannot be told: {lacking}.",
            f"未分辨：按步数计时曲线不同（d ln Δ/d ln t_w = {exponent}），但无法判断其他时钟是否也如此：{lacking_zh}。",
        )
    unsharp = unsharp_zh = ""
    if np.isfinite(of_all["ageing_exponent_steps_stderr"]):
        unsharp = f"; d ln Δ/d ln t_w = {exponent} is not known to ±{RESOLVED:g}"
        unsharp_zh = f"；d ln Δ/d ln t_w = {exponent}，误差大于 {RESOLVED:g}"
    return verdict(
        "collapse_steps",
        "untrusted",
        "unresolved",
        f"Unresolved: too few independent displacements{unsharp}.",
        f"未分辨：独立位移太少{unsharp_zh}。",
    )
