"""Curves of a recording itself, as means and bands of what every step measured: the training, and the whole run."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from . import charts, clocks
from .curves import Figure, frame_of, nowhere, present
from .series import band, read_series
from .state import ViewState
from .text import Text, quantity_title

_LOSS = Text("loss", "损失")
_FEW_BUCKETS = 400
"""of the chart that an interval is chosen from, and of evaluated numbers"""
_GREY_LAYERS = Text("grey: means of {n} of the {of} other layers", "灰色：其余 {of} 层中 {n} 层的均值")
DAMAGED = Text(
    "values in damaged pieces of the file, which cannot be read: {n:,}", "{n:,} 个值位于损坏的数据块中，无法读取"
)


def training(run: Path, state: ViewState) -> list[Figure]:
    """The training itself, from the recording: loss, evaluations, learning rate; what was not recorded is left out.

    Raises:
        RunError: if the recording cannot be read.
    """
    if clocks.read_axis(run, state.axis) is None:
        return []
    names = {
        "loss": (["train_loss", "test_loss"], Text("Evaluated loss", "评估损失"), Text("loss", "损失")),
        "accuracy": (["train_accuracy", "test_accuracy"], Text("Accuracy", "准确率"), Text("accuracy", "准确率")),
    }
    return present(
        recorded_curve(run, "loss", None, Text("Mini-batch loss", "小批量损失"), state),
        *(_evaluations(run, key, *parts, state) for key, parts in names.items()),
        recorded_curve(run, "learning_rate", 0, _learning_rate(run), state),
    )


def _learning_rate(run: Path) -> Text:
    rates = read_series(run, "learning_rate")
    several = rates is not None and rates.values.ndim > 1 and len(rates.values) > 1
    if several:
        return Text("Learning rate of the first optimizer group", "第一个优化器组的学习率")
    return Text("Learning rate", "学习率")


def whole_run(run: Path, state: ViewState) -> Figure | None:
    """The loss of the whole run to choose an interval from, which is shaded; None if there are no two values of it.

    Raises:
        RunError: if the recording cannot be read.
    """
    series, clock = read_series(run, "loss"), clocks.clock_of(run, "loss", state.axis)
    if series is None or clock is None or len(series.values) < 2:
        return None
    n, log_x = min(len(clock.x), len(series.values)), "x" in state.scale
    frame = band(clock.x[:n], series.values[:n], _FEW_BUCKETS, log=log_x).rename(columns={"mean": "y"})
    if np.isfinite(frame["y"]).sum() < 2:
        return None
    ends = clocks.places(run, state.axis, np.array(state.interval)) if state.interval else None
    chart = charts.brush(
        frame,
        x_title=quantity_title(clock.attributes, state.lang),
        y_title=_LOSS(state.lang),
        log_x=log_x,
        log_y="y" in state.scale,
        chosen=(float(ends[0]), float(ends[1])) if ends is not None else None,
    )
    return Figure("whole-run", Text("The whole run", "整个实验"), chart)


def recorded_curve(
    run: Path,
    name: str,
    row: int | None,
    title: Text,
    state: ViewState,
    log_y: bool = False,
    rest: Mapping[int, str] | None = None,
    of: int | None = None,
) -> Figure | None:
    """One recorded series as mean and band, of the interval on display; None if it is not there.

    Args:
        run, name: the recording and the array in it.
        row: the index of the array's first dimension.
        title: what is drawn.
        state: axis, interval and language.
        log_y: a logarithmic axis of values whatever the view.
        rest: rows and names of lines drawn in grey behind. of: how many there are of them, where these are some.

    Raises:
        RunError: if the recording cannot be read.
    """
    series, clock = read_series(run, name, row), clocks.clock_of(run, name, state.axis)
    if series is None or clock is None:
        return None
    n = min(len(clock.x), len(series.values))
    shown = clock.inside(state)[:n]
    x, y, log_x = clock.x[:n][shown], series.values[:n][shown], "x" in state.scale
    buckets = band(x, y, log=log_x)
    if not len(buckets):
        return None
    frame = _of_buckets(buckets, title(state.lang))
    others = []
    for other, label in (rest or {}).items():
        behind = read_series(run, name, other)
        if behind is not None:
            cells = band(x, behind.values[:n][shown], charts.MAX_ROWS // 4 // len(rest or {}), log=log_x)
            others.append(_of_buckets(cells, label))
    note = charts.EXTREMES.fill(buckets=len(buckets), count=len(y), missing=int(buckets["missing"].to_numpy().sum()))
    notes = [note(state.lang)] if len(buckets) < len(y) or not np.isfinite(y).all() else []
    notes += [_GREY_LAYERS.fill(n=len(others), of=of or len(others))(state.lang)] if others else []
    notes += charts.off_log_axis(x, state.lang) if log_x else []
    notes += nowhere(x, state.lang)
    if series.unreadable or clock.unreadable:
        notes.append(DAMAGED.fill(n=max(series.unreadable, clock.unreadable))(state.lang))
    chart = charts.curves(
        frame,
        lang=state.lang,
        x_title=quantity_title(clock.attributes, state.lang),
        y_title=quantity_title(series.attributes, state.lang),
        notes=notes,
        log_x=log_x,
        log_y=log_y or "y" in state.scale,
        points=False,
        others=pd.concat(others) if others else None,
    )
    return Figure(f"training-{name}", title, chart)


def _evaluations(run: Path, key: str, names: list[str], title: Text, y: Text, state: ViewState) -> Figure | None:
    """Evaluated numbers on one chart: point by point, or as means and bands where points would hide each other."""
    clock = clocks.clock_of(run, names[0], state.axis)
    if clock is None or not len(clock.x):
        return None
    shown = clock.inside(state)
    few, log_x = int(shown.sum()) <= _FEW_BUCKETS, "x" in state.scale
    parts, missing = [], 0
    for name in names:
        series = read_series(run, name)
        if series is not None:
            label = quantity_title({**series.attributes, "units": "1"}, state.lang)
            here = shown[: len(series.values)]
            x, values = clock.x[: len(here)][here], series.values[: len(here)][here]
            if few:
                parts.append(frame_of(x, values, np.full(len(values), np.nan), label))
            else:
                buckets = band(x, values, _FEW_BUCKETS, log=log_x)
                missing += int(buckets["missing"].to_numpy().sum())
                parts.append(_of_buckets(buckets, label))
    if not any(map(len, parts)):
        return None
    notes = nowhere(clock.x[shown], state.lang)
    if not few:
        counts = {"buckets": max(map(len, parts)), "count": int(shown.sum()), "missing": missing}
        notes += [
            charts.EXTREMES.fill(**counts)(state.lang),
            *(charts.off_log_axis(clock.x[shown], state.lang) if log_x else []),
        ]
    chart = charts.curves(
        pd.concat(parts),
        lang=state.lang,
        x_title=quantity_title(clock.attributes, state.lang),
        y_title=y(state.lang),
        notes=notes,
        log_x=log_x,
        log_y="y" in state.scale,
        points=few,
    )
    return Figure(f"training-evaluated-{key}", title, chart)


def _of_buckets(buckets: pd.DataFrame, series: str) -> pd.DataFrame:
    """Means and bands as a tidy frame."""
    return buckets.rename(columns={"mean": "y"}).assign(series=series).drop(columns=["count", "missing"])
