"""Several runs side by side: what they have in common to draw, their order, and tables. No Streamlit, no physics.

A run keeps its colour and dash wherever it is drawn. Estimates stand beside each other with their errors and are not
subtracted: the error of a difference is the business of an analysis. What was recorded once for each evaluation, such
as the test loss, has no error bar, and its difference from the baseline is given as it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import lcm

import numpy as np
import pandas as pd
import xarray as xr

from . import charts, clocks, tables
from .catalog import Run
from .curves import Figure, Source, nowhere
from .figures import ANALYSES
from .recorded import DAMAGED
from .series import band, read_series
from .state import ViewState
from .text import MISSING, Text, number, quantity_title, sentence_case, with_error

MOST = 10
Results = Mapping[str, Mapping[str, xr.Dataset]]
"""of each run, the dataset of each analysis"""
RECORDED = {
    "loss": Text("mini-batch loss", "小批量损失"),
    "train_loss": Text("training loss", "训练损失"),
    "test_loss": Text("test loss", "测试损失"),
    "train_accuracy": Text("training accuracy", "训练准确率"),
    "test_accuracy": Text("test accuracy", "测试准确率"),
}
_EVALUATED = ("test_loss", "test_accuracy", "train_loss", "train_accuracy")
_BASELINE = Text("{run} (baseline)", "{run}（基准）")
_LAST = Text("last evaluated step", "最后评估步")
_DIFFERENCE = Text("{value} (Δ {difference})", "{value}（差值 {difference}）")
_DIFFERENCE_AT = Text("{value} (Δ {difference} at step {step})", "{value}（第 {step} 步差值 {difference}）")
_PAIRS = lcm(len(charts.PALETTE), len(charts.DASHES))


def places(chosen: Iterable[str], known: Iterable[Run]) -> dict[str, int]:
    """The place of each chosen run in the palette: that of its start among all runs of the folder.

    No choice changes it, and no run that is recorded later. Of two that would look alike, the later one gives way.
    """
    taken: dict[str, int] = {}
    by_start = sorted(known, key=lambda run: (_start(run), run.id))
    position = {run.id: place for place, run in enumerate(by_start)}
    for name in sorted(chosen, key=position.__getitem__):
        place = position[name]
        while place % _PAIRS in {other % _PAIRS for other in taken.values()}:
            place += 1
        taken[name] = place
    return taken


def _start(run: Run) -> float:
    started = run.attributes.get("started")
    return float(started) if isinstance(started, int | float) else float("inf")


def curves_on_offer(runs: Sequence[Run], results: Results, lang: str) -> dict[str, str]:
    """Ids and names of what can be drawn over time or lag: first what was recorded, then what was estimated."""
    there = [name for name in RECORDED if any((run.path / "run.zarr" / name / "zarr.json").exists() for run in runs)]
    estimated = _variables(results, lang, [{"window"}, {"group", "window"}, {"lag"}, {"group", "lag"}])
    return {**{name: RECORDED[name](lang) for name in there}, **estimated}


def numbers_on_offer(results: Results, lang: str) -> dict[str, str]:
    """Ids and names of the estimates that are one number for each group, or for the run."""
    return _variables(results, lang, [set(), {"group"}])


def _variables(results: Results, lang: str, dims: Sequence[set[str]]) -> dict[str, str]:
    """In the order of the pages and of their tables: on disk they have none."""
    found = {}
    for analysis in ANALYSES:
        rank = {name: place for place, name in enumerate(tables.NUMBERS[analysis])}
        for data in (analyses[analysis] for analyses in results.values() if analysis in analyses):
            names = sorted(map(str, data.data_vars))
            for name in sorted(names, key=lambda name: rank.get(name.removesuffix("_over_time"), len(rank))):
                values = data[name]
                if set(values.dims) in dims and f"{name}_stderr" in data:
                    title = quantity_title({**values.attrs, "units": "1"}, lang)
                    found[f"{analysis}/{name}"] = f"{tables.analysis_name(analysis, lang)} · {title}"
    return found


def sources_of(results: Results, chosen: str, known: Mapping[str, Run]) -> list[Source]:
    """The runs that have the estimate `analysis/variable`."""
    analysis, _, name = chosen.partition("/")
    having = [(run, analyses[analysis]) for run, analyses in results.items() if analysis in analyses]
    found = [Source(run, data, known[run].path) for run, data in having]
    return [source for source in found if name in source.data]


def recorded_overlay(
    runs: Sequence[Run], name: str, labels: Mapping[str, str], at: Mapping[str, int], state: ViewState
) -> Figure | None:
    """One recorded series of several runs; None if none of them has it.

    Raises:
        RunError: if a recording cannot be read.
    """
    buckets = max(150, charts.MAX_ROWS // (3 * len(runs)))
    log_x = "x" in state.scale
    found, titles, lost = [], ("", ""), 0
    for run in runs:
        series, clock = read_series(run.path, name), clocks.clock_of(run.path, name, state.axis)
        if series is None or clock is None or not len(series.values):
            continue
        n = min(len(clock.x), len(series.values))
        inside = clock.inside(state)[:n]
        found.append((run.id, clock.x[:n][inside], series.values[:n][inside]))
        lost += max(series.unreadable, clock.unreadable)
        titles = quantity_title(clock.attributes, state.lang), quantity_title(series.attributes, state.lang)
    if not found:
        return None
    # More points than that hide each other, and of a long run they are more than Altair takes.
    banded = name == "loss" or any(len(x) > buckets for _, x, _ in found)
    parts = [
        (band(x, y, buckets, log=log_x) if banded else _points(x, y)).assign(series=labels[run]) for run, x, y in found
    ]
    columns = ["x", "y", "low", "high", "series"]
    frame = pd.DataFrame(pd.concat(parts).rename(columns={"mean": "y"}), columns=columns)
    x = np.concatenate([places for _, places, _ in found])
    notes = nowhere(x, state.lang)
    if banded:
        missing = sum(int(part["missing"].to_numpy().sum()) for part in parts)
        notes = [
            _BAND.fill(buckets=buckets, missing=missing)(state.lang),
            *(charts.off_log_axis(x, state.lang) if log_x else []),
            *notes,
        ]
    if lost:
        notes.append(DAMAGED.fill(n=lost)(state.lang))
    chart = charts.curves(
        frame,
        lang=state.lang,
        x_title=titles[0],
        y_title=titles[1],
        notes=notes,
        order=[labels[run] for run, *_ in found],
        places=[at[run] for run, *_ in found],
        log_x=log_x,
        log_y="y" in state.scale,
        points=not banded,
    )
    return Figure("compare-curve", Text(sentence_case(RECORDED[name].en), RECORDED[name].zh), chart)


_BAND = Text(
    "line: mean, band: lowest to highest, of at most {buckets} buckets for each run; values not finite or not "
    "measured: {missing:,}",
    "曲线：均值；阴影带：最小值至最大值；每个实验至多 {buckets} 个分箱；{missing:,} 个值不是有限数或未测量",
)


def _points(x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"x": x, "mean": y, "low": np.nan, "high": np.nan})


def values_by_setting(runs: Sequence[Run], lang: str) -> dict[str, list[str]]:
    """The settings that differ, each with its value for every run, as text."""
    table = tables.comparison(runs, lang)
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in table.itertuples(index=False, name=None)}


def sort_by(runs: Sequence[Run], values: Sequence[str]) -> list[Run]:
    """Runs in the order of a setting: by size where the values are numbers, else by name."""
    pairs = sorted(zip(values, runs, strict=True), key=lambda pair: (_size(pair[0]), pair[0]))
    return [run for _, run in pairs]


def _size(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.inf


def estimates(runs: Sequence[Run], results: Results, baseline: str, lang: str) -> pd.DataFrame:
    """One row per run, one column per quantity that stands for a run, cells like `1.23(4) ✓`.

    The steps that most of a run's analyses used are a column, those of others stand in their cells.
    """
    rows = []
    for run in runs:
        row = {tables.RUN(lang): _name(run, baseline, lang)}
        segments = [tables.segment_of(data.attrs) for data in results[run.id].values()]
        usual = max(segments, key=segments.count, default=MISSING)
        row[tables.ESTIMATED_FROM(lang)] = usual
        for analysis, name in tables.HEADLINES:
            data = results[run.id].get(analysis)
            if data is None or name not in data:
                continue
            sign = tables.STATUS_SIGNS[tables.worst_status(data, name)]
            old = f" {tables.STALE_SIGN}" if tables.stale(run, analysis, lang) else ""
            own = tables.segment_of(data.attrs)
            elsewhere = f" [{own}]" if own != usual else ""
            row[quantity_title(data[name].attrs, lang)] = f"{_headline(data, name, lang)} {sign}{old}{elsewhere}"
        rows.append(row)
    return pd.DataFrame(rows).fillna(MISSING)


def _headline(data: xr.Dataset, name: str, lang: str) -> str:
    """The value for all layers together, with its error where it has one."""
    value = float(np.atleast_1d(data[name].values)[0])
    error = f"{name}_stderr"
    return with_error(value, float(np.atleast_1d(data[error].values)[0]) if error in data else None, lang)


def evaluations(runs: Sequence[Run], baseline: Run, lang: str) -> pd.DataFrame:
    """One row per run: losses and accuracies of its last evaluation, and their plain differences from the baseline's.

    The difference is taken at the last step that both have evaluated.

    Raises:
        RunError: if a recording cannot be read.
    """
    of = {run.id: _evaluations(run) for run in runs}
    if not any(len(steps) for steps, _ in of.values()):
        return pd.DataFrame()
    rows = []
    for run in runs:
        steps, values = of[run.id]
        row = {tables.RUN(lang): _name(run, baseline.id, lang)}
        row[_LAST(lang)] = number(steps[-1], 9) if len(steps) else MISSING
        for name in values:
            row[RECORDED[name](lang)] = _difference(steps, values[name], *of[baseline.id], name, run is baseline, lang)
        rows.append(row)
    return pd.DataFrame(rows).fillna(MISSING)


def _evaluations(run: Run) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    steps = read_series(run.path, "evaluation_step")
    found = {name: read_series(run.path, name) for name in _EVALUATED} if steps is not None else {}
    values = {name: series.values for name, series in found.items() if series is not None}
    n = min([len(steps.values) if steps is not None else 0, *map(len, values.values())])
    return steps.values[:n] if steps is not None else np.empty(0), {name: own[:n] for name, own in values.items()}


def _difference(
    steps: np.ndarray, own: np.ndarray, base_steps: np.ndarray, base: Mapping[str, np.ndarray], name: str, same: bool,
    lang: str,
) -> str:  # fmt: skip
    if not len(own):
        return MISSING
    shown = number(float(own[-1]))
    common, here, there = np.intersect1d(steps, base_steps, return_indices=True)
    if same or name not in base or not len(common):
        return shown
    difference = float(own[here[-1]] - base[name][there[-1]])
    text = _DIFFERENCE if common[-1] == steps[-1] == base_steps[-1] else _DIFFERENCE_AT
    words = f"{difference:+.3g}" if np.isfinite(difference) else MISSING
    return text(lang).format(value=shown, difference=words, step=f"{common[-1]:,.0f}")


def _name(run: Run, baseline: str, lang: str) -> str:
    return _BASELINE(lang).format(run=run.id) if run.id == baseline else run.id
