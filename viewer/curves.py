"""How curves are drawn of results: over time or lag, by group, layer or direction, of one run or of several.

A `Source` is one run's dataset of the analysis at hand; with two of them every series carries its run's name. Each
function gives a figure, pure data to Altair, or None where the results hold nothing of what it draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from thermodl.record.format import ALL_GROUPS, OTHER_GROUPS

from . import charts, clocks
from .state import ViewState
from .text import COLON, Text, quantity_title, sentence_case

EVENT_KINDS = (
    Text("candidate", "候选"),
    Text("changed setting", "超参数变化"),
    Text("end of an epoch", "轮次结束"),
)
# What a coordinate is called where its own attributes do not say.
_COORDINATES = {
    "window_step": Text("optimizer step", "优化步"),
    "window_sgd_time": Text("SGD time Σ η(1−ν)/(1−μ)", "SGD 时间 Σ η(1−ν)/(1−μ)"),
    "window_epoch": Text("epoch", "轮次"),
    "window_wall_time": Text("wall time since the start of the recording (s)", "自记录开始的时间（s）"),
    "window_noise_time": Text("noise time (parameter²)", "噪声时间（参数²）"),
    "lag": Text("lag (step)", "时间差（步）"),
    "lag_epoch": Text("lag (epoch)", "时间差（轮）"),
    "lag_sgd_time": Text("lag in SGD time", "时间差（SGD 时间）"),
    "frequency": Text("frequency (cycles per step)", "频率（每步周期数）"),
}
_GROUP = Text("group of layers", "层组")
_GROUPS = {ALL_GROUPS: Text("all layers", "全部层"), OTHER_GROUPS: Text("other", "其余层")}
_WAITED = Text("steps waited: {n}", "等待 {n} 步")
_NOWHERE = Text("values without a place on this axis: {n:,}", "{n:,} 个值在此坐标轴上没有位置")
_GREY = Text("grey: the other groups", "灰色：其他层组")
_LACKING = Text("not there for {runs}", "{runs} 没有该量")
_MEASURED, _MARKED = Text("measured", "实测"), Text("measured, marked: not in the fit", "实测，仅标记：不参与拟合")
_NO_PLACE = Text(
    "directions whose curvature is not positive or not known, in the table only: {n}",
    "{n} 个方向的曲率不为正或未知，仅列于表中",
)
_ONE_EPOCH = Text("one epoch", "一轮")
_EVENTS = Text("grey dashes: events ({counts})", "灰色虚线：突变事件（{counts}）")
_NO_EVENTS = Text("no event in the steps on display", "所示步数范围内没有突变事件")
_LIST = Text(", ", "，")


class Source(NamedTuple):
    """One analysis of one run."""

    run: str
    data: xr.Dataset
    path: Path | None = None
    """the run's folder, whose recording knows where the windows lie on clocks that the results do not have"""
    place: int = 0
    """of the run in the palette; where runs stand side by side, colours tell runs apart and dashes quantities"""


@dataclass(frozen=True)
class Figure:
    """A chart with its title."""

    id: str
    title: Text
    chart: alt.LayerChart
    groups: Mapping[str, str] = field(default_factory=dict)
    """groups that a click on the chart chooses, by the name that it draws"""
    quantities: tuple[str, ...] = ()
    """what it draws, as verdicts call it"""
    caption: tuple[str, ...] = ()
    """lines that go with it where it stands alone"""


def present(*figures: Figure | None) -> list[Figure]:
    """The figures that there are."""
    return [figure for figure in figures if figure is not None]


def nowhere(x: np.ndarray, lang: str) -> list[str]:
    """A word about values that the axis has no place for: noise time ends with the analysis that found it."""
    lacking = int((~np.isfinite(x)).sum())
    return [_NOWHERE.fill(n=lacking)(lang)] if lacking else []


def overlay(
    sources: Sequence[Source], name: str, labels: Sequence[str], places: Sequence[int], state: ViewState
) -> Figure | None:
    """One curve of several runs, over time or over the lag.

    Args:
        sources: the runs that have it.
        labels: what to call each of them.
        places: the place of each in the palette.
    """
    if not sources:
        return None
    lagged = "lag" in sources[0].data[name].dims
    x = _lag_axis(sources, state) if lagged else _time_axis(sources, state)
    parts = [_curve(source, name, x, state, False) for source in sources]
    frame = pd.concat([part.assign(series=label) for part, label in zip(parts, labels, strict=True)])
    chart = charts.curves(
        frame,
        lang=state.lang,
        x_title=_coordinate_title(sources[0].data, x, state.lang),
        y_title=quantity_title(sources[0].data[name].attrs, state.lang),
        notes=[*charts.name_band(frame, state.lang), *nowhere(frame["x"].to_numpy(float), state.lang)],
        order=labels,
        places=places,
        log_x=lagged or "x" in state.scale,
        log_y="y" in state.scale or _spans_decades(frame),
        rule=_one_epoch(sources[0].data, x, state.lang) if lagged and len(sources) == 1 else None,
    )
    return Figure("compare-curve", _long_name(sources[0].data[name].attrs), chart, quantities=(name,))


def by_run(
    sources: Sequence[Source],
    name: str,
    labels: Sequence[str],
    categories: Sequence[str],
    x_title: str,
    places: Sequence[int],
    state: ViewState,
) -> Figure | None:
    """One number of several runs with its error bars, in the chosen group; runs of one category side by side."""
    parts = []
    for source, label, category in zip(sources, labels, categories, strict=True):
        values, stderr = source.data[name], _stderr(source.data, name)
        if "group" in values.dims:
            at = _chosen(source.data, state)
            values, stderr = values.isel(at), stderr.isel(at)
        parts.append(frame_of([category], np.atleast_1d(values.values), np.atleast_1d(stderr.values), label))
    if not parts:
        return None
    frame = pd.concat(parts, ignore_index=True)
    chart = charts.bars(
        frame,
        lang=state.lang,
        x_title=x_title,
        y_title=quantity_title(sources[0].data[name].attrs, state.lang),
        log_y=_spans_decades(frame),
        order=labels,
        places=places,
    )
    return Figure("compare-number", _long_name(sources[0].data[name].attrs), chart, quantities=(name,))


def _spans_decades(frame: pd.DataFrame) -> bool:
    """Whether values are all positive and so different that one axis shows them only as powers of ten."""
    y = frame["y"].to_numpy(float)
    y = y[np.isfinite(y)]
    return bool(len(y)) and bool(y.min() > 0 and y.max() > 100 * y.min())


def _long_name(attrs: Mapping[Any, Any]) -> Text:
    en, zh = (quantity_title({**attrs, "units": "1"}, lang) for lang in ("en", "zh"))
    return Text(sentence_case(en), zh)


def over_time(
    sources: Sequence[Source],
    names: list[str],
    state: ViewState,
    figure_id: str,
    title: Text,
    y: Text | None = None,
    level: tuple[float, str] | None = None,
    notes: Sequence[str] = (),
) -> Figure | None:
    """Estimates of windows along the chosen time axis, in the chosen group; `notes` are shown above them."""
    found = [(source, f"{name}_over_time") for source in sources for name in names]
    found = [(source, name) for source, name in found if name in source.data]
    if not found:
        return None
    x = _time_axis([source for source, _ in found], state)
    frame = pd.concat([_curve(source, name, x, state, len(sources) > 1) for source, name in found])
    if not _any_known(frame):
        return None
    others = _other_groups(*found[0], x, state) if len(found) == 1 else None
    chart = charts.curves(
        frame,
        lang=state.lang,
        x_title=_coordinate_title(found[0][0].data, x, state.lang),
        y_title=_y_title(found[0], y, state.lang),
        notes=[
            *charts.name_band(frame, state.lang),
            *nowhere(frame["x"].to_numpy(float), state.lang),
            _GREY(state.lang) if others is not None else "",
            *notes,
        ],
        log_x="x" in state.scale,
        log_y="y" in state.scale,
        level=level,
        others=others,
        **_looks(found, names),
    )
    drawn = dict.fromkeys(name.removesuffix("_over_time") for _, name in found)
    return Figure(figure_id, title, chart, quantities=tuple(drawn))


def _event_places(source: Source, step: np.ndarray, x: str) -> np.ndarray:
    """Where events stand on an axis: exactly where the recording tells, else between the middles of windows."""
    axis = x.removeprefix("window_")
    if axis == "step":
        return step
    exact = None if source.path is None else clocks.places(source.path, axis, step)
    if exact is not None:
        return exact
    windows = _places(source, x)
    assert windows is not None, "the axis was chosen among those that all have"
    return np.interp(step, source.data["window_step"].values, windows)


def _events(sources: Sequence[Source], state: ViewState) -> pd.DataFrame:
    """One row per event of the interval on display: its place on the axis, its jump with error, its run and kind.

    Its looks are those of `_looks`: of several runs the colour is that of the run, and the kind has its shape.
    """
    sources = _with_events(sources)
    several = len(sources) > 1
    rows, x = [], _time_axis(sources, state)
    for source in sources:
        data = source.data
        step = data["event_step"].values.astype(float)
        place = _event_places(source, step, x)
        inside = clocks.inside(step, state)
        for at, kind, jump, error in zip(
            place[inside],
            data["event_kind"].values[inside],
            data["jump"].values[inside],
            data["jump_stderr"].values[inside],
            strict=True,
        ):
            name = EVENT_KINDS[int(kind)](state.lang) if int(kind) in range(len(EVENT_KINDS)) else str(kind)
            series = f"{source.run} · {name}" if several else name
            looks = (source.place if several else int(kind), int(kind))
            rows.append((float(at), float(jump), float(jump - error), float(jump + error), series, *looks))
    return pd.DataFrame(rows, columns=["x", "y", "low", "high", "series", "place", "style"])


def _with_events(sources: Sequence[Source]) -> list[Source]:
    needed = {"event_step", "event_kind", "jump", "jump_stderr", "loss_over_time", "window_step"}
    return [source for source in sources if needed <= set(source.data.variables)]


def count_events(sources: Sequence[Source], state: ViewState) -> list[str]:
    """What the lines of `mark_events` are, by kind, or that there are none; nothing where they were not sought."""
    if all(source.data.attrs.get("window") == 0 for source in sources):
        return []
    found = _events(sources, state)["style"].to_numpy()
    counts = {kind(state.lang): int((found == at).sum()) for at, kind in enumerate(EVENT_KINDS)}
    parts = [f"{kind}{COLON(state.lang)}{count}" for kind, count in counts.items() if count]
    return [_EVENTS.fill(counts=_LIST(state.lang).join(parts))(state.lang) if parts else _NO_EVENTS(state.lang)]


def mark_events(figure: Figure | None, sources: Sequence[Source], state: ViewState) -> Figure | None:
    """The same with a line at every event."""
    frame = _events(sources, state)
    if figure is None or frame.empty:
        return figure
    return replace(figure, chart=charts.marked(figure.chart, frame))


def jumps(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """The size of each event at its place; nothing without events."""
    frame = _events(sources, state)
    if frame.empty:
        return []
    sources = _with_events(sources)
    first, x = sources[0], _time_axis(sources, state)
    # The ends of the chart above.
    shown = [_curve(source, "loss_over_time", x, state, False)["x"].to_numpy(float) for source in sources]
    kinds = frame.drop_duplicates("series").sort_values(["place", "style"])
    chart = charts.points(
        frame.drop(columns=["place", "style"]),
        lang=state.lang,
        x_title=_coordinate_title(first.data, x, state.lang),
        y_title=quantity_title(first.data["jump"].attrs, state.lang),
        order=kinds["series"].tolist(),
        places=kinds["place"].tolist(),
        styles=kinds["style"].tolist(),
        within=np.concatenate(shown),
        log_x="x" in state.scale,
    )
    return [Figure("events-jumps", Text("Jumps of the loss", "损失的跳变"), chart, quantities=("jump",))]


def over_lag(
    sources: Sequence[Source],
    names: list[str],
    state: ViewState,
    figure_id: str,
    title: Text,
    log_y: bool = False,
    level: tuple[float, str] | None = None,
    y: Text | None = None,
    x: str = "",
) -> Figure | None:
    """Curves over the lag, or over another coordinate of the results."""
    found = [(source, name) for source in sources for name in names if name in source.data]
    if not found:
        return None
    x = x or _lag_axis([source for source, _ in found], state)
    frame = pd.concat([_curve(source, name, x, state, len(sources) > 1) for source, name in found])
    if not _any_known(frame):
        return None
    chart = charts.curves(
        frame,
        lang=state.lang,
        x_title=_coordinate_title(found[0][0].data, x, state.lang),
        y_title=_y_title(found[0], y, state.lang),
        notes=charts.name_band(frame, state.lang),
        log_x=True,
        log_y=log_y,
        level=level,
        **_looks(found, names),
        rule=_one_epoch(found[0][0].data, x, state.lang) if x.startswith("lag") else None,
    )
    return Figure(figure_id, title, chart, quantities=tuple(dict.fromkeys(name for _, name in found)))


def parametric(
    sources: Sequence[Source],
    axis: str,
    line: str,
    state: ViewState,
    figure_id: str,
    title: Text,
    log: bool = False,
) -> Figure | None:
    """χ over one of its axes, lag by lag, and the straight line of one temperature on it."""
    found = [(source, name) for source in sources for name in ("integrated_response", line) if axis in source.data]
    if not found:
        return None
    parts = []
    for source, name in found:
        place = _curve(source, axis, "lag", state, False)["y"]
        parts.append(_curve(source, name, "lag", state, len(sources) > 1).assign(x=place))
    order = list(dict.fromkeys(label for part in parts for label in part["series"]))
    frame = pd.concat(parts).dropna(subset=["x"])
    chart = charts.curves(
        frame,
        lang=state.lang,
        x_title=quantity_title(found[0][0].data[axis].attrs, state.lang),
        y_title=_y_title(found[0], None, state.lang),
        notes=charts.name_band(frame, state.lang),
        order=order,
        log_x=log,
        log_y=log,
        **_looks(found, ["integrated_response", line]),
    )
    return Figure(figure_id, title, chart, quantities=("integrated_response", axis, line))


def two_time(sources: Sequence[Source], state: ViewState) -> Figure | None:
    """One curve per waiting time, of the first run only: two families of curves on one chart say nothing."""
    name = "two_time_mean_squared_displacement"
    if not sources or name not in sources[0].data:
        return None
    data = sources[0].data
    x = _lag_axis(sources[:1], state)
    parts = []
    for i, waited in enumerate(data["waiting_time"].values):
        one = Source("", data.isel(waiting_time=i))
        label = _WAITED.fill(n=f"{waited:g}")(state.lang)
        parts.append(_curve(one, name, x, state, False).assign(series=label))
    frame = pd.concat(parts)
    chart = charts.curves(
        frame,
        lang=state.lang,
        x_title=_coordinate_title(data, x, state.lang),
        y_title=quantity_title(data[name].attrs, state.lang),
        notes=charts.name_band(frame, state.lang),
        log_x=True,
        log_y=True,
        sequential=True,
    )
    title = Text("Does it age? Displacement by waiting time", "是否老化？不同等待时间的位移")
    return Figure("diffusion-two-time", title, chart, quantities=(name,))


def on_clock(sources: Sequence[Source], clock: str, state: ViewState) -> Figure | None:
    """Displacement at equal lags of a clock, one curve per waiting time, of the first run only."""
    name, lag = f"displacement_on_{clock}", f"lag_on_{clock}"
    if not sources or name not in sources[0].data:
        return None
    data = sources[0].data
    lags = data[lag].isel(_chosen(data, state))
    if not np.isfinite(lags).any():
        # Layers of different clocks share none.
        return None
    parts = []
    for i, waited in enumerate(data["waiting_time"].values):
        one = data[[name, f"{name}_stderr"]].isel(waiting_time=i).assign_coords(place=("octave", lags.values))
        label = _WAITED.fill(n=f"{waited:g}")(state.lang)
        parts.append(_curve(Source("", one), name, "place", state, False).assign(series=label))
    title = quantity_title(data[lag].attrs, state.lang)
    frame = pd.concat(parts)
    chart = charts.curves(
        frame,
        lang=state.lang,
        x_title=title,
        y_title=quantity_title(data[name].attrs, state.lang),
        notes=charts.name_band(frame, state.lang),
        log_x=True,
        log_y=True,
        sequential=True,
    )
    names = (sentence_case(str(data[name].attrs[key])) for key in ("long_name", "long_name_zh"))
    return Figure(f"ageing-{clock}", Text(*names), chart, quantities=(name,))


def by_direction(
    sources: Sequence[Source],
    x: str,
    y: str,
    expected: Sequence[str],
    state: ViewState,
    figure_id: str,
    title: Text,
) -> Figure | None:
    """One number against another, a point for each direction of the chosen group, and what was expected of the first
    run's."""
    needed = {x, f"{x}_stderr", y, "mode_used"}
    sources = [source for source in sources if needed <= set(source.data.variables)]
    if not any(bool(np.isfinite(source.data[y]).any()) for source in sources):
        return None
    parts, lost = [], 0
    looks: dict[str, tuple[int, int]] = {}
    for source in sources:
        data = of_group(source.data, state)
        place, spread = data[x].values, data[f"{x}_stderr"].values
        known = np.isfinite(place) & (place > 0)
        lost += int((~known & np.isfinite(data[y].values)).sum())
        used = data["mode_used"].values > 0
        several = f" · {source.run}" if len(sources) > 1 else ""
        shown = [(y, known & used, _MEASURED(state.lang)), (y, known & ~used, _MARKED(state.lang))]
        if source is sources[0]:
            shown += [
                (name, known, quantity_title({**data[name].attrs, "units": "1"}, state.lang))
                for name in expected
                if name in data
            ]
        for style, (name, chosen, label) in enumerate(shown):
            values, stderr = data[name].values, _stderr(data, name).values
            frame = frame_of(place[chosen], values[chosen], stderr[chosen], label + several)
            ends = {"left": place[chosen], "right": place[chosen]}
            if name == y:
                ends = {"left": (place - spread)[chosen], "right": (place + spread)[chosen]}
            frame = frame.assign(**ends).dropna(subset=["y"])
            if len(frame):
                parts.append(frame)
                looks[label + several] = source.place, style
    if not parts:
        return None
    places, styles = zip(*looks.values(), strict=True)
    chart = charts.scatter(
        pd.concat(parts),
        lang=state.lang,
        x_title=quantity_title(sources[0].data[x].attrs, state.lang),
        y_title=quantity_title(sources[0].data[y].attrs, state.lang),
        notes=[_NO_PLACE.fill(n=lost)(state.lang)] if lost else [],
        order=list(looks),
        **({"places": places, "styles": styles} if len(sources) > 1 else {}),
    )
    return Figure(figure_id, title, chart, quantities=(x, y, *expected))


def of_group(data: xr.Dataset, state: ViewState) -> xr.Dataset:
    """What belongs to the chosen group."""
    return data.isel(_chosen(data, state))


def _chosen(data: xr.Dataset, state: ViewState) -> dict[str, int]:
    """Where the chosen group stands; all layers together, if these results do not have it."""
    groups = group_names(data)
    return {"group": groups.index(state.group) if state.group in groups else 0}


def by_group(
    sources: Sequence[Source],
    names: list[str],
    state: ViewState,
    figure_id: str,
    title: Text,
    y: Text | None = None,
    level: tuple[float, str] | None = None,
    log_y: bool = False,
) -> Figure | None:
    """Estimates of each group side by side; a click on one chooses it."""
    found = [(source, name) for source in sources for name in names if name in source.data]
    if not found:
        return None
    parts, labels = [], [_label(source, name, state.lang, len(sources) > 1) for source, name in found]
    common = _common_start(labels, state.lang)
    for (source, name), label in zip(found, labels, strict=True):
        values, stderr = source.data[name], _stderr(source.data, name)
        places = _shown_groups(source.data, state.lang)
        parts.append(frame_of(places, values.values, stderr.values, label.removeprefix(common)))
    frame = pd.concat(parts)
    if not _any_known(frame):
        return None
    own = common.removesuffix(COLON(state.lang))
    chart = charts.bars(
        frame,
        lang=state.lang,
        x_title=_GROUP(state.lang),
        y_title=_y_title(found[0], y or (Text(own, own) if common else None), state.lang),
        level=level,
        log_y=log_y,
        chosen=state.group if state.group != "all" else None,
        choose=True,
        notes=_lacking(sources, found, state.lang),
        **_looks(found, names),
    )
    data = found[0][0].data
    groups = dict(zip(_shown_groups(data, state.lang), group_names(data), strict=True))
    return Figure(figure_id, title, chart, groups, tuple(dict.fromkeys(name for _, name in found)))


def by_part(
    sources: Sequence[Source], name: str, dim: str, state: ViewState, figure_id: str, title: Text, x_title: Text
) -> Figure | None:
    """One quantity for each layer, or for each direction of the chosen group."""
    found = [(source, name) for source in sources if name in source.data]
    if not found:
        return None
    parts = []
    for source, _ in found:
        data = of_group(source.data, state)
        labels = [str(label) for label in data[dim].values]
        values, stderr = data[name].values, _stderr(data, name).values
        # A group of fewer directions than others is filled up at the end: those are not lost.
        end = np.flatnonzero(np.isfinite(values)).max(initial=-1) + 1 if dim == "mode" else len(values)
        label = _label(source, name, state.lang, len(sources) > 1)
        parts.append(frame_of(labels[:end], values[:end], stderr[:end], label))
    frame = pd.concat(parts)
    if not _any_known(frame):
        return None
    chart = charts.bars(
        frame,
        lang=state.lang,
        x_title=x_title(state.lang),
        y_title=_y_title(found[0], None, state.lang),
        level=(0.0, "0"),
        notes=_lacking(sources, found, state.lang),
        **_looks(found, [name]),
    )
    return Figure(figure_id, title, chart, quantities=(name,))


def _lacking(sources: Sequence[Source], found: Sequence[tuple[Source, str]], lang: str) -> list[str]:
    """A word about runs that a chart of several leaves out, since they have none of it."""
    having = {source.run for source, _ in found}
    left_out = [source.run for source in sources if source.run not in having]
    return [_LACKING(lang).format(runs=_LIST(lang).join(left_out))] if left_out else []


def _any_known(frame: pd.DataFrame) -> bool:
    """Whether there is anything to draw: an empty chart says no more than the dashes of the table below it."""
    return bool(np.isfinite(frame["y"].to_numpy(float)).any())


def _common_start(labels: Sequence[str], lang: str) -> str:
    """What all names of a chart have before their colon, which then names its axis."""
    starts = {label.partition(COLON(lang))[0] + COLON(lang) for label in labels if COLON(lang) in label}
    common = starts.pop() if len(starts) == 1 else ""
    return common if len(labels) > 1 and all(label.startswith(common) for label in labels) else ""


def _looks(found: Sequence[tuple[Source, str]], names: Sequence[str]) -> dict[str, Any]:
    """Colours of several runs by run, dashes and shapes by quantity; of one run, all by quantity."""
    if len({source.run for source, _ in found}) < 2:
        return {}
    order = [name.removesuffix("_over_time") for name in names]
    styles = [order.index(name.removesuffix("_over_time")) for _, name in found]
    return {"places": [source.place for source, _ in found], "styles": styles}


def _other_groups(source: Source, name: str, x: str, state: ViewState) -> pd.DataFrame | None:
    """The lines of all groups but the chosen one, once one is chosen."""
    if state.group == "all" or "group" not in source.data[name].dims:
        return None
    rest = [group for group in group_names(source.data) if group not in ("all", state.group)]
    parts = [_curve(source, name, x, replace(state, group=group), False).assign(series=group) for group in rest]
    return pd.concat(parts) if parts else None


def _curve(source: Source, name: str, x: str, state: ViewState, several: bool) -> pd.DataFrame:
    """One variable of the chosen group as a tidy frame; over time, of the interval on display."""
    data = source.data
    values, stderr = data[name], _stderr(data, name)
    if "group" in values.dims:
        at = _chosen(data, state)
        values, stderr = values.isel(at), stderr.isel(at)
    places = _places(source, x)
    assert places is not None, "the axis was chosen among those that this source has"
    frame = frame_of(places, values.values, stderr.values, _label(source, name, state.lang, several))
    if x.startswith("window"):
        frame = pd.DataFrame(frame.loc[clocks.inside(data["window_step"].values, state)])
    return frame


def _time_axis(sources: Sequence[Source], state: ViewState) -> str:
    """The coordinate of windows on the chosen axis, if every source has a place for them there, else their steps."""
    name = f"window_{state.axis}"
    return name if all(_places(source, name) is not None for source in sources) else "window_step"


def _lag_axis(sources: Sequence[Source], state: ViewState) -> str:
    """The coordinate of lags on the chosen axis; steps, where a lag there depends on when it begins."""
    name = f"lag_{state.axis}"
    return name if all(_places(source, name) is not None for source in sources) else "lag"


def _places(source: Source, name: str) -> np.ndarray | None:
    """Values of a coordinate: that of the results, else looked up in the recording of the run; None if neither has it.

    Raises:
        RunError: if the recording cannot be read.
    """
    data = source.data
    if name in data.coords:
        # What has no such clock has no place on it anywhere.
        return data[name].values if np.isfinite(data[name].values).any() else None
    if name == "lag_epoch":
        steps = _steps_per_epoch(data)
        return data["lag"].values / steps if np.isfinite(steps) else None
    if source.path is None or not name.startswith("window_"):
        return None
    return clocks.places(source.path, name.removeprefix("window_"), data["window_step"].values)


def _stderr(data: xr.Dataset, name: str) -> xr.DataArray:
    return data[f"{name}_stderr"] if f"{name}_stderr" in data else xr.full_like(data[name], np.nan, dtype=float)


def frame_of(x: Sequence[str] | np.ndarray, y: np.ndarray, stderr: np.ndarray, series: str) -> pd.DataFrame:
    """Values with one standard error to either side as a tidy frame of one series."""
    y, stderr = np.asarray(y, float), np.asarray(stderr, float)
    return pd.DataFrame({"x": x, "y": y, "low": y - stderr, "high": y + stderr, "series": series})


def group_names(data: xr.Dataset) -> list[str]:
    """Names of the groups; zarr hands them back in a string type that numpy cannot convert as a whole."""
    return [str(name) for name in data["group"].values]


def shown_group(name: str, lang: str) -> str:
    """What a group is called: those of the format in words, others as the model has them."""
    return _GROUPS[name](lang) if name in _GROUPS else name


def _shown_groups(data: xr.Dataset, lang: str) -> list[str]:
    return [shown_group(name, lang) for name in group_names(data)]


def _label(source: Source, name: str, lang: str, several: bool) -> str:
    label = quantity_title({**source.data[name].attrs, "units": "1"}, lang)
    return f"{label} · {source.run}" if several else label


def _y_title(found: tuple[Source, str], y: Text | None, lang: str) -> str:
    attrs = found[0].data[found[1]].attrs
    own = {**attrs, "long_name": y.en, "long_name_zh": y.zh} if y else attrs
    return quantity_title(own, lang)


def _coordinate_title(data: xr.Dataset, name: str, lang: str) -> str:
    attrs = data[name].attrs if name in data.coords else {}
    return quantity_title(attrs, lang) if attrs.get("long_name") else _COORDINATES[name](lang)


def _one_epoch(data: xr.Dataset, x: str, lang: str) -> tuple[float, str] | None:
    """Where one epoch lies on the axis of lags; nothing if batches are drawn with replacement."""
    steps = _steps_per_epoch(data)
    if not np.isfinite(steps) or not len(data["lag"]):
        return None
    if x == "lag_epoch":
        return 1.0, _ONE_EPOCH(lang)
    lags = data["lag"].values
    per_step = float(data[x].values[-1] / lags[-1]) if x in data.coords and lags[-1] else 1.0
    return steps * per_step, _ONE_EPOCH(lang)


def _steps_per_epoch(data: xr.Dataset) -> float:
    """Not finite if batches are drawn with replacement, or the results do not say."""
    return float(data["steps_per_epoch"]) if "steps_per_epoch" in data else float("nan")
