"""Data frames into Altair charts: curves with bands, points with error bars. No Streamlit, no physics.

A tidy frame has the columns `x`, `y`, `low`, `high` and `series`. Every chart names its band, says how many values a
logarithmic axis or a missing estimate keeps off it, and tells its series apart by colour *and* dash or shape.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from .text import Text

# Okabe and Ito's palette, which stays apart for colour-blind readers, without black and yellow: each of the six can
# be seen on white and on dark paper.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 4])
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
FONT = "'Source Sans Pro', 'Noto Sans', 'Noto Sans CJK SC', 'Microsoft YaHei', 'PingFang SC', sans-serif"
MAX_ROWS = 5000
WIDTH = 760
"""of a chart on paper"""
_TITLE_FITS, _LETTERS_ACROSS = 38, 110
"""characters along the lowest chart, and of names side by side below it"""
_SHORTENED = "length(datum.value) > 30 ? slice(datum.value, 0, 8) + '…' + slice(datum.value, -20) : datum.value"
"""a long name without its middle: those of layers differ at their ends"""

STANDARD_ERROR = Text("band: ± 1 standard error", "阴影带：± 1 个标准误")
STANDARD_ERROR_BARS = Text("bars: ± 1 standard error", "误差棒：± 1 个标准误")
EXTREMES = Text(
    "line: mean, band: lowest to highest of {buckets:,} buckets; {count:,} values, {missing:,} not finite or not "
    "measured",
    "曲线：均值；阴影带：{buckets:,} 个分箱内的最小值至最大值；"
    "共 {count:,} 个值，其中 {missing:,} 个不是有限数或未测量",
)
CELLS = Text(
    "colour: mean of each of {buckets:,} buckets of {count:,} values a layer, on a logarithmic scale",
    "颜色（对数标度）：每层 {count:,} 个值分为 {buckets:,} 个分箱后的均值",
)
_BLANK = Text(
    "blank: buckets with a mean ≤ 0: {off:,}; values not finite or not measured at that step: {missing:,}",
    "空白：{off:,} 个分箱的均值 ≤ 0；另有 {missing:,} 个值不是有限数，或该步未测量",
)
_OFF_LOG = Text("values ≤ 0, which a logarithmic axis cannot show: {n}", "{n} 个 ≤ 0 的值无法画在对数轴上")
_MEANS_OFF_LOG = Text(
    "buckets with a mean ≤ 0, which a logarithmic axis cannot show: {n}", "{n} 个分箱的均值 ≤ 0，无法画在对数轴上"
)
_UNRESOLVED = Text("values not defined or not measured, and left out: {n}", "{n} 个值没有定义或未测量，未画出")
_LEVEL = Text("grey dashes: {name}", "灰色虚线：{name}")
_CUT = Text("what reaches below zero ends at the axis", "延伸到零以下的部分在坐标轴处截断")


def curves(
    frame: pd.DataFrame,
    *,
    lang: str,
    x_title: str,
    y_title: str,
    notes: Sequence[str] = (),
    log_x: bool = False,
    log_y: bool = False,
    order: Sequence[str] | None = None,
    level: tuple[float, str] | None = None,
    rule: tuple[float, str] | None = None,
    sequential: bool = False,
    points: bool = True,
    places: Sequence[int] | None = None,
    styles: Sequence[int] | None = None,
    others: pd.DataFrame | None = None,
) -> alt.LayerChart:
    """Lines with bands.

    Args:
        frame: tidy frame; NaN breaks a line.
        notes: the name of the band and what else a reader must know, shown above the chart.
        order: all series in their stable order, which fixes colours and dashes.
        level: a horizontal reference line and its name.
        rule: a vertical reference line and its name.
        sequential: series are steps of one quantity and get a gradual colour scale.
        points: mark the single points, and show their values under the pointer.
        places: for each series its place in the palette, where that must not depend on what else is drawn.
        styles: for each series its place among the dashes, where that is another one.
        others: lines of what was not chosen, thin and grey behind the chosen ones, with the same columns.
    """
    # Buckets bring their own count of missing values.
    notes = [*notes, *_level_note(level, lang), *(_missing(frame, lang) if points else [])]
    # Before a logarithmic axis drops whole series, or colours would go to others than theirs.
    order = list(order or dict.fromkeys(frame["series"]))
    frame, more = _fit_axes(frame, lang, log_x, log_y, _OFF_LOG if points else _MEANS_OFF_LOG)
    x = alt.X("x:Q", title=x_title, scale=_scale(log_x, nice=False), axis=_across(frame["x"].to_numpy(), log_x))
    y, low = (_y(f"{field}:Q", y_title, frame, log_y) for field in ("y", _lower_end(frame)))
    colour = alt.Color(
        "series:N", title=None, scale=_colours(order, sequential, places), legend=_legend(order, "stroke"), sort=order
    )
    dash = alt.StrokeDash(
        "series:N",
        title=None,
        scale=_dashes(order, sequential, styles or places),
        legend=_legend(order, "stroke"),
        sort=order,
    )
    base = alt.Chart()
    layers: list[Any] = []
    if others is not None and len(others):
        behind, _ = _fit_axes(others, lang, log_x, log_y)
        grey = alt.Chart(behind[["x", "y", "series"]]).mark_line(
            strokeWidth=1, color="#888888", opacity=0.45, invalid=_BREAK
        )
        named = {"detail": alt.Detail("series:N"), "tooltip": [alt.Tooltip("series:N", title="·")]}
        layers.append(grey.encode(x, y, **named))
        if len(lone := _without_neighbours(behind)):
            dots = alt.Chart(lone[["x", "y", "series"]]).mark_point(filled=True, size=8, color="#888888", opacity=0.45)
            layers.append(dots.encode(x, y, **named))
    if _has_errors(frame):
        layers.append(base.mark_area(opacity=0.25, invalid=_BREAK).encode(x, y=low, y2=alt.Y2("high:Q"), color=colour))
    line = base.mark_line(strokeWidth=1.8, invalid=_BREAK)
    layers.append(line.encode(x, y, color=colour, strokeDash=dash))
    tooltip = _tooltip(x_title, y_title)
    if not points and len(lone := _without_neighbours(frame)):
        # A line needs two ends.
        dots = alt.Chart(lone[["x", "y", "series"]]).mark_point(filled=True, size=28, opacity=1)
        layers.append(dots.encode(x, y, color=colour))
    if points:
        layers.append(base.mark_point(filled=True, size=28, opacity=1).encode(x, y, color=colour, tooltip=tooltip))
    else:
        layers.append(base.mark_rule(opacity=0, strokeWidth=4).encode(x, tooltip=tooltip))
    layers += _references(level, rule)
    shown = [*notes, *more]
    return _layered(layers, frame, height=350 + _above(order, shown), **_subtitle(shown))


def brush(
    frame: pd.DataFrame,
    *,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    log_y: bool = False,
    chosen: tuple[float, float] | None = None,
) -> alt.LayerChart:
    """A whole series, small; dragging across it chooses an interval (selection `interval`).

    Args:
        frame: tidy frame of one series.
        chosen: the interval that is chosen already, which is shaded.
    """
    frame, _ = _fit_axes(frame, "en", log_x, log_y)
    ends = list(_range(frame["x"].to_numpy(float)))
    scale = _scale(log_x, nice=False, domain=ends)
    x = alt.X("x:Q", title=x_title, scale=scale, axis=_across(frame["x"].to_numpy(), log_x))
    y, low = (_y(f"{field}:Q", y_title, frame, log_y) for field in ("y", _lower_end(frame)))
    base = alt.Chart()
    drag = alt.selection_interval(name="interval", encodings=["x"])
    # Always there, so that a choice changes the data of the chart and not the chart, which would lose the brush.
    left, right = np.clip(chosen, ends[0], ends[1]).tolist() if chosen else (None, None)
    shade = alt.Chart(pd.DataFrame({"left": [left], "right": [right]}))
    shaded = shade.mark_rect(color=PALETTE[4], opacity=0.3, clip=True)
    layers: list[Any] = [shaded.encode(alt.X("left:Q", scale=scale), alt.X2("right:Q"))]
    layers.append(base.mark_area(opacity=0.25, color=PALETTE[0], invalid=_BREAK).encode(x, y=low, y2=alt.Y2("high:Q")))
    line = base.mark_line(strokeWidth=1.2, color=PALETTE[0], invalid=_BREAK)
    layers.append(line.encode(x, y).add_params(drag))
    # A brush of SVG is a picture without a name to a reader of screens; of a canvas it is part of the picture.
    return _layered(layers, frame, height=190, usermeta={"embedOptions": {"renderer": "canvas"}})


def marked(chart: alt.LayerChart, frame: pd.DataFrame) -> alt.LayerChart:
    """The chart with a dashed vertical line at every `x` of a frame, which shows its `series` under the pointer."""
    rules = alt.Chart(pd.DataFrame({"at": frame["x"], "series": frame["series"]})).mark_rule(
        color="#888888", strokeDash=[4, 4], strokeWidth=1.5
    )
    tooltip = [alt.Tooltip("at:Q", title="", format="~g"), alt.Tooltip("series:N", title="·")]
    return chart + rules.encode(alt.X("at:Q"), tooltip=tooltip)


def points(
    frame: pd.DataFrame,
    *,
    lang: str,
    x_title: str,
    y_title: str,
    order: Sequence[str],
    within: np.ndarray,
    log_x: bool = False,
    places: Sequence[int] | None = None,
    styles: Sequence[int] | None = None,
) -> alt.LayerChart:
    """Points with error bars at their places on a continuous axis, which covers other places `within` it as well.

    Args:
        order, places, styles: as for `curves`.
    """
    frame, notes = _fit_axes(frame, lang, log_x, False)
    across = np.concatenate([within, frame["x"].to_numpy(float)])
    scale = _scale(log_x, nice=False, domain=list(_range(across[across > 0] if log_x else across)))
    x = alt.X("x:Q", title=x_title, scale=scale, axis=_across(across, log_x))
    y, low = (_y(f"{field}:Q", y_title, frame, False) for field in ("y", "low"))
    order = list(order)
    colour = alt.Color("series:N", title=None, scale=_colours(order, places=places), legend=_legend(order), sort=order)
    shape = alt.Shape("series:N", title=None, scale=_shapes(order, styles or places), legend=_legend(order), sort=order)
    base = alt.Chart()
    layers = [
        base.mark_rule(strokeWidth=2).encode(x, y=low, y2=alt.Y2("high:Q"), color=colour),
        base.mark_point(filled=True, size=55, opacity=1).encode(
            x, y, color=colour, shape=shape, tooltip=_tooltip(x_title, y_title)
        ),
        *_references((0.0, "0"), None),
    ]
    return _layered(layers, frame, height=300, **_subtitle([STANDARD_ERROR_BARS(lang), *notes]))


def bars(
    frame: pd.DataFrame,
    *,
    lang: str,
    x_title: str,
    y_title: str,
    order: Sequence[str] | None = None,
    level: tuple[float, str] | None = None,
    log_y: bool = False,
    places: Sequence[int] | None = None,
    styles: Sequence[int] | None = None,
    chosen: str | None = None,
    choose: bool = False,
    notes: Sequence[str] = (),
) -> alt.LayerChart:
    """Points with error bars, side by side for each category; `x` of the frame is the category's name.

    Args:
        frame, order, level, places, styles: as for `curves`.
        chosen: the category that stands out, by size and strength; the others fade.
        choose: a click on a point chooses its category (selection `group`).
        notes: what a reader must know, shown above the chart.
    """
    missing = _missing(frame, lang)
    order = list(order or dict.fromkeys(frame["series"]))
    frame, more = _fit_axes(frame, lang, False, log_y)
    notes = [*notes, *more]
    categories = list(dict.fromkeys(frame["x"]))
    # Each has as much room as the widest takes.
    level_labels = len(categories) * max(map(_width, categories), default=0) <= _LETTERS_ACROSS
    axis = alt.Axis(labelAngle=0) if level_labels else alt.Axis(labelAngle=-50, labelLimit=200, labelExpr=_SHORTENED)
    x = alt.X("x:N", title=x_title, sort=categories, axis=axis)
    # A series that is alone in its category stands in its middle.
    pairs = set(zip(frame["x"], frame["series"], strict=True))
    aside: dict[str, Any] = {"xOffset": alt.XOffset("series:N", sort=order)} if len(pairs) > len(categories) else {}
    y, low = (_y(f"{field}:Q", y_title, frame, log_y) for field in ("y", _lower_end(frame)))
    colour = alt.Color("series:N", title=None, scale=_colours(order, places=places), legend=_legend(order), sort=order)
    shape = alt.Shape("series:N", title=None, scale=_shapes(order, styles or places), legend=_legend(order), sort=order)
    frame = frame.assign(chosen=True if chosen is None else frame["x"] == chosen)
    base = alt.Chart()
    # Names may hold anything, and stay data.
    strength = alt.OpacityValue(0.3, condition={"test": "datum.chosen", "value": 1})
    size = alt.SizeValue(45, condition={"test": "datum.chosen", "value": 45 if chosen is None else 110})
    layers: list[Any] = []
    if _has_errors(frame):
        notes.insert(0, STANDARD_ERROR_BARS(lang))
        layers.append(
            base.mark_rule(strokeWidth=2).encode(x, y=low, y2=alt.Y2("high:Q"), color=colour, opacity=strength, **aside)
        )
    marks = base.mark_point(filled=True)
    tooltip = [alt.Tooltip("x:N", title=x_title), *_tooltip("", y_title)[1:]]
    points = marks.encode(x, y, color=colour, shape=shape, tooltip=tooltip, opacity=strength, size=size, **aside)
    layers.append(points.add_params(alt.selection_point(name="group", fields=["x"], on="click")) if choose else points)
    layers += _references(level, None)
    shown = [*notes, *_level_note(level, lang), *missing]
    return _layered(layers, frame, height=310 + _above(order, shown), **_subtitle(shown))


def scatter(
    frame: pd.DataFrame,
    *,
    lang: str,
    x_title: str,
    y_title: str,
    notes: Sequence[str] = (),
    order: Sequence[str] | None = None,
    places: Sequence[int] | None = None,
    styles: Sequence[int] | None = None,
) -> alt.LayerChart:
    """Points with error bars in both coordinates on logarithmic axes.

    Args:
        frame: tidy frame with `left` and `right` besides, the ends of the bars of `x`.
        notes: what a reader must know, shown above the chart.
        order, places, styles: as for `curves`.
    """
    order = list(order or dict.fromkeys(frame["series"]))
    frame, more = _fit_axes(frame, lang, True, True)
    x_values = frame["x"].to_numpy(float)
    frame = frame.assign(start=np.maximum(frame["left"].to_numpy(float), x_values.min(initial=np.inf) / 2))
    place = {"scale": _scale(True, nice=False, padding=12), "axis": _axis(x_values, True)}
    x, left = (alt.X(f"{field}:Q", title=x_title, **place) for field in ("x", "start"))
    y, low = (_y(f"{field}:Q", y_title, frame, True) for field in ("y", _lower_end(frame)))
    colour = alt.Color("series:N", title=None, scale=_colours(order, places=places), legend=_legend(order), sort=order)
    shape = alt.Shape("series:N", title=None, scale=_shapes(order, styles or places), legend=_legend(order), sort=order)
    base = alt.Chart()
    layers: list[Any] = []
    if _has_errors(frame):
        notes = [STANDARD_ERROR_BARS(lang), *notes]
        layers.append(base.mark_rule(strokeWidth=1.5).encode(x, y=low, y2=alt.Y2("high:Q"), color=colour))
        layers.append(base.mark_rule(strokeWidth=1.5).encode(left, y, x2=alt.X2("right:Q"), color=colour))
    points = base.mark_point(filled=True, size=45, opacity=1)
    layers.append(points.encode(x, y, color=colour, shape=shape, tooltip=_tooltip(x_title, y_title)))
    shown = [*notes, *more]
    return _layered(layers, frame, height=350 + _above(order, shown), **_subtitle(shown))


def heatmap(
    frame: pd.DataFrame,
    *,
    lang: str,
    x_title: str,
    y_title: str,
    colour_title: str,
    notes: Sequence[str] = (),
    order: Sequence[str],
    chosen: str = "",
) -> alt.LayerChart:
    """Cells of layer and time on a logarithmic colour scale; a click chooses a layer (selection `layer`).

    Args:
        frame: cells with the columns `layer`, `left`, `right`, `mean`, `low`, `high`, `missing`. A cell whose mean is
            not positive has no colour and is counted.
        order: all layers from top to bottom.
        chosen: the layer whose row has a frame.
    """
    mean = frame["mean"].to_numpy(float)
    drawn = pd.DataFrame(frame.loc[mean > 0].reset_index(drop=True))
    off, missing = int((mean <= 0).sum()), int(frame["missing"].to_numpy().sum())
    blank = [_BLANK(lang).format(off=off, missing=missing)] if off or missing else []
    least, most = _range(mean[mean > 0])
    colour = alt.Color(
        "mean:Q",
        title=colour_title,
        # Evenly rising in lightness, and so the same for colour-blind readers and in grey.
        scale=alt.Scale(
            type="log",
            scheme="viridis",
            # A scale of no width has no colours.
            domain=[least, most] if least < most else [least / 2, most * 2],
            nice=False,
        ),
        legend=alt.Legend(orient="top", gradientLength=360, format="~g", titleLimit=600, tickCount=4),
    )
    left, right = frame["left"].to_numpy(float), frame["right"].to_numpy(float)
    first, last = float(left.min()), float(right.max())
    x = alt.X("left:Q", title=x_title, scale=alt.Scale(domain=[first, last], nice=False), axis=_across(right, False))
    rows = alt.Axis(labelLimit=220, labelOverlap=True)
    y = alt.Y("layer:N", title=y_title, sort=list(order), scale=alt.Scale(domain=list(order)), axis=rows)
    tooltip = [
        alt.Tooltip("layer:N", title=y_title),
        alt.Tooltip("left:Q", title=x_title, format="~g"),
        alt.Tooltip("mean:Q", title=colour_title, format=".4g"),
        alt.Tooltip("low:Q", title="↓", format=".4g"),
        alt.Tooltip("high:Q", title="↑", format=".4g"),
    ]
    # Seams between cells that touch would show as lines.
    cells = alt.Chart(drawn).mark_rect(strokeWidth=0, clip=True)
    cells = cells.encode(x, alt.X2("right:Q"), y, colour, tooltip=tooltip)
    clicked = cells.add_params(alt.selection_point(name="layer", fields=["layer"], on="click"))
    row = alt.Chart(pd.DataFrame({"layer": [chosen], "left": [first], "right": [last]}))
    frame_of_row = row.mark_rect(filled=False, stroke=PALETTE[1], strokeWidth=3).encode(x, alt.X2("right:Q"), y)
    chart: Any = alt.layer(clicked, frame_of_row) if chosen in order else alt.layer(clicked)
    # In the app the height holds the titles and the scale of colours too.
    height = 190 + int(np.clip(22 * len(order), 60, 900))
    # Thousands of cells are one picture to a reader of screens, not thousands of marks.
    canvas = {"embedOptions": {"renderer": "canvas"}}
    return chart.properties(height=height, usermeta=canvas, **_subtitle([*notes, *blank]))


def _layered(layers: Sequence[Any], frame: pd.DataFrame, **properties: Any) -> alt.LayerChart:
    """Layers that draw a frame, where they have no other.

    Were each given the frame, and the whole its properties afterwards, Altair would take twice as long: it prints every
    frame to tell whether they are the same, and copies all again. So it does for channels that are given as text.
    """
    chart: Any = alt.layer(*layers, data=frame, **properties)
    return chart


def _range(values: np.ndarray) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (1.0, 1.0)


def themed(chart: alt.LayerChart) -> dict[str, Any]:
    """The Vega-Lite specification for paper: fixed width, white ground, fonts with Chinese characters.

    Put into the specification: Altair copies a chart with its layers at every property, and checks it against the
    schema, which takes four times as long as all else.
    """
    spec = chart.to_dict(validate=False)
    paper = {
        "font": FONT,
        "background": "#ffffff",
        "axis": {"labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal"},
        "legend": {"labelFontSize": 12},
    }
    return spec | {"width": WIDTH, "config": spec.get("config", {}) | paper}


def version_of(spec: Mapping[str, Any]) -> str:
    """The version of Vega-Lite that a specification was made for, `6.1`."""
    return ".".join(spec["$schema"].split("/v")[-1].split(".")[:2])


_BREAK = "break-paths-show-domains"


def _fit_axes(
    frame: pd.DataFrame, lang: str, log_x: bool, log_y: bool, off_log: Text = _OFF_LOG
) -> tuple[pd.DataFrame, list[str]]:
    """Keep off a logarithmic axis what it cannot show, and say, in the words of `off_log`, how much that is.

    Where it cuts what reaches below zero, `bottom` is where the bar ends, and `low` stays what it is.
    """
    notes = []
    off = np.zeros(len(frame), bool)
    if log_x:
        off |= frame["x"].to_numpy(float) <= 0
    if log_y:
        off |= frame["y"].to_numpy(float) <= 0
    if off.any():
        notes.append(off_log.fill(n=off.sum())(lang))
    frame = pd.DataFrame(frame.loc[~off].reset_index(drop=True))
    low, y = frame["low"].to_numpy(float), frame["y"].to_numpy(float)
    if log_y and (low <= 0).any():
        smallest = np.concatenate([y, low[low > 0]]).min(initial=np.inf, where=np.isfinite(np.r_[y, low[low > 0]]))
        frame = frame.assign(bottom=np.where(low <= 0, smallest / 2, low))
        notes.append(_CUT(lang))
    return frame, notes


def _lower_end(frame: pd.DataFrame) -> str:
    """What bars and bands are drawn down to: `low`, but where a logarithmic axis cuts it off."""
    return "bottom" if "bottom" in frame else "low"


def _without_neighbours(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of known `y` that stand alone in their series, between unknown ones."""
    known = pd.Series(np.isfinite(frame["y"].to_numpy(float)), frame.index)
    beside = known.groupby(frame["series"], sort=False)
    return pd.DataFrame(frame[known & ~beside.shift(1, fill_value=False) & ~beside.shift(-1, fill_value=False)])


def off_log_axis(x: np.ndarray, lang: str) -> list[str]:
    """A word about places ≤ 0, which were left out before values were put into buckets."""
    off = int((x <= 0).sum())
    return [_OFF_LOG.fill(n=off)(lang)] if off else []


def _missing(frame: pd.DataFrame, lang: str) -> list[str]:
    """A word about estimates that are not defined."""
    missing = int((~np.isfinite(frame["y"].to_numpy(float))).sum())
    return [_UNRESOLVED.fill(n=missing)(lang)] if missing else []


def name_band(frame: pd.DataFrame, lang: str) -> list[str]:
    """What the band of a curve is, if it has one."""
    return [STANDARD_ERROR(lang)] if _has_errors(frame) else []


def _has_errors(frame: pd.DataFrame) -> bool:
    return bool(np.isfinite(frame[["low", "high"]].to_numpy(float)).any())


def _scale(log: bool, **options: Any) -> alt.Scale:
    return alt.Scale(type="log", **options) if log else alt.Scale(**options)


def _axis(values: np.ndarray, log: bool, few: float = 100, **options: Any) -> alt.Axis:
    """Labels that stay short: plain numbers, or powers of ten where plain ones would be strings of zeros.

    Args:
        values: what the axis shows.
        log: logarithmic, with labels at 1, 2 and 5 where its ends differ by a factor of `few` at most.
        options: of the axis besides.
    """
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    extreme = len(sizes) > 0 and (sizes.max() < 1e-3 or sizes.max() >= 1e6 or (log and sizes.min() < 1e-3))
    style = "~e" if extreme else "~g" if log else ",~f"
    if not log or not len(sizes):
        # Zero in powers of ten would read 0e+0.
        return alt.Axis(format=style, labelOverlap=True, labelExpr="datum.value === 0 ? '0' : datum.label", **options)
    # Lines at powers of ten, or at 1, 2, 5 of each where there are few: ten for each decade are a carpet.
    first, last = (int(np.floor(np.log10(size))) for size in (sizes.min(), sizes.max()))
    factors = (1,) if sizes.max() > few * sizes.min() else (1, 2, 5)
    places = [float(f"{factor}e{power}") for power in range(first, last + 2) for factor in factors]
    return alt.Axis(format=style, labelOverlap=True, values=places, **options)


def _across(values: np.ndarray, log: bool) -> alt.Axis:
    """A horizontal axis: as many labels as fit without leaving out every other."""
    return _axis(values, log, few=1000) if log else _axis(values, log, tickCount=10)


def _in_lines(title: str) -> str | list[str]:
    """A title along a chart's height, where a long one would be cut: in lines, with its unit in the last."""
    if (width := _width(title)) <= _TITLE_FITS:
        return title
    name, bracket, units = title.rpartition(" (")
    lines = textwrap.wrap(name if bracket else title, _TITLE_FITS * len(title) // width)
    return [*lines, f"({units}"] if bracket else lines


def _width(text: str) -> int:
    """In Latin letters, of which a Chinese one takes the room of two."""
    return sum(1 + (letter > "\u2e80") for letter in text)


def _y(field: str, title: str, frame: pd.DataFrame, log: bool) -> alt.Y:
    # A logarithmic scale has no zero to leave out, and rounds its ends to whole decades unless told not to.
    scale = _scale(log, nice=False, padding=12) if log else _scale(log, zero=False)
    values = frame[["y", "low", "high"]].to_numpy(float)
    return alt.Y(field, title=_in_lines(title), scale=scale, axis=_axis(values[values > 0] if log else values, log))


def _colours(order: list[str], sequential: bool = False, places: Sequence[int] | None = None) -> alt.Scale:
    if sequential:
        return alt.Scale(domain=order, scheme="viridis")
    return alt.Scale(domain=order, range=[PALETTE[i % len(PALETTE)] for i in places or range(len(order))])


def _dashes(order: list[str], sequential: bool, places: Sequence[int] | None = None) -> alt.Scale:
    dashes = [[1, 0] if sequential else DASHES[i % len(DASHES)] for i in places or range(len(order))]
    return alt.Scale(domain=order, range=dashes)


def _shapes(order: list[str], places: Sequence[int] | None = None) -> alt.Scale:
    return alt.Scale(domain=order, range=[SHAPES[i % len(SHAPES)] for i in places or range(len(order))])


def _above(order: Sequence[str], notes: Sequence[str]) -> int:
    """The height of the notes and the legend above a chart, which in the app comes off that of the drawing."""
    legend = _legend(list(order))
    rows = -(-len(order) // legend["columns"]) if legend else 0
    return 14 * sum(map(bool, notes)) + (20 + 24 * rows if rows else 0)


def _legend(order: list[str], symbol: str | None = None) -> alt.Legend | None:
    """None for one series: the axis title names it already."""
    if len(order) < 2:
        return None
    longest = max(map(_width, order))
    columns = 1 if longest > 48 else 2 if longest > 24 else 3
    options = {"symbolType": symbol, "symbolSize": 500, "symbolStrokeWidth": 2} if symbol else {}
    limit = 640 if columns == 1 else 420
    return alt.Legend(orient="top", columns=columns, labelLimit=limit, symbolOpacity=1, **options)


def _tooltip(x_title: str, y_title: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("x:Q", title=x_title, format="~g"),
        alt.Tooltip("series:N", title="·"),
        alt.Tooltip("y:Q", title=y_title, format=".4g"),
        alt.Tooltip("low:Q", title="↓", format=".4g"),
        alt.Tooltip("high:Q", title="↑", format=".4g"),
    ]


def _references(level: tuple[float, str] | None, rule: tuple[float, str] | None) -> list[Any]:
    """A horizontal and a vertical line; the vertical one has its name beside it."""
    layers: list[Any] = []
    grey = "#888888"
    for channel, reference in ((alt.Y, level), (alt.X, rule)):
        if reference is None:
            continue
        base = alt.Chart(pd.DataFrame({"at": [reference[0]], "name": [reference[1]]}))
        layers.append(base.mark_rule(color=grey, strokeDash=[4, 4]).encode(channel("at:Q")))
        if channel is alt.X:
            # Beside its top, where curves seldom are; data cross a level everywhere, so that stands above the chart.
            label = base.mark_text(color=grey, align="left", dx=4).encode(y=alt.YValue(10))
            layers.append(label.encode(alt.X("at:Q"), alt.Text("name:N")))
    return layers


def _level_note(level: tuple[float, str] | None, lang: str) -> list[str]:
    """What a level stands for, unless its name is the number that the axis has."""
    return [_LEVEL.fill(name=level[1])(lang)] if level and level[1] != f"{level[0]:g}" else []


def _subtitle(notes: Sequence[str]) -> dict[str, alt.TitleParams]:
    """What a reader must know about the drawing, above it in small letters; without notes no title takes up room."""
    shown = [note for note in notes if note]
    if not shown:
        return {}
    title = alt.TitleParams(text=shown, anchor="start", color="#808080", fontSize=12, fontWeight="normal", offset=2)
    return {"title": title}
