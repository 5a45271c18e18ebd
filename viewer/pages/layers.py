"""The page about single layers: a map of layer and time, and the line of the layer that was clicked."""

from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from thermodl.record.errors import RunError
from thermodl.viewer import layers
from thermodl.viewer.catalog import Run
from thermodl.viewer.curves import Figure
from thermodl.viewer.pages import layout
from thermodl.viewer.pages.layout import Context
from thermodl.viewer.state import ViewState
from thermodl.viewer.text import Text, escape_markdown

TITLE = Text("Layers", "各层")
QUESTION = Text("Which layers move, which are shaken, and when?", "哪些层在移动？哪些层受噪声扰动？发生在何时？")
EXPLANATION = Text(
    "Each row is a layer, each cell the mean of what was recorded in a stretch of time; a click on a row draws its "
    "line, with the lowest and the highest value of each stretch as a band. The values are sums over the parameters of "
    "a layer, so a large layer may stand out by its size alone; the band is the spread of the record, no error bar.",
    "每行是一层，每格是一段时间内记录值的均值；点击某一行，下方即画出该层的曲线，阴影带为每段内的最小值至最大值。"
    "数值是对该层全部参数求和，因此大的层可能只是因为参数多而显眼；阴影带是记录值的涨落范围，不是误差。",
)
_QUANTITY = Text("Quantity", "物理量")
_NOTHING = Text("This run has recorded nothing of its single layers yet.", "这个实验还没有各层的记录。")
_NAMELESS = Text(
    "The layers of this run do not have names of their own, so that they cannot be told apart.",
    "这个实验的各层没有各自的名称，无法区分。",
)
_NONE_HERE = Text("Nothing of this quantity can be shown for these steps.", "在这些步上没有可显示的该物理量。")


def page(context: Context) -> None:
    """Draw the page."""
    layout.live(context, _page)


def _page(context: Context) -> None:
    layout.heading(context, TITLE, QUESTION, EXPLANATION)
    run = layout.readable_run(context)
    if run is None:
        return
    quantities = layers.recorded(run.path)
    if not quantities or not run.steps:
        st.info(_NOTHING(context.lang))
        return
    name = layout.choose(context, _QUANTITY, "quantity", quantities, lambda name: layers.QUANTITIES[name](context.lang))
    try:
        _draw(context, run, name)
    except RunError as error:
        layout.say_unreadable(error, run.path, context.lang)


def _draw(context: Context, run: Run, name: str) -> None:
    lang = context.lang
    names = layers.names_of(run.attributes)
    if not names:
        st.info(_NAMELESS(lang))
        return
    chosen = context.state.layer if context.state.layer in names else names[0]
    view = ViewState(axis=context.state.axis, steps=context.state.steps, layer=chosen, lang=lang)
    figure = _map(str(run.path), run.version, name, view, run)
    if figure is None:
        st.info(_NONE_HERE(lang))
        return
    st.subheader(escape_markdown(figure.title(lang)), anchor=False)
    key = f"chart-{figure.id}"
    st.altair_chart(
        figure.chart,
        width="stretch",
        key=key,
        alt=figure.title(lang),
        on_select=partial(_choose, key),
        selection_mode="layer",
    )
    layer = layout.choose(context, layers.LAYER, "layer", names, str)
    line = layers.layer_line(run.path, names, layer, name, context.state)
    layout.draw_figures([line] if line else [], lang)


def _choose(key: str) -> None:
    """Keep the layer that was clicked."""
    event: Any = st.session_state[key]
    for point in event["selection"].get("layer", []):
        st.session_state["layer"] = point["layer"]


@st.cache_data(max_entries=64, show_spinner=False)
def _map(path: str, version: str, name: str, view: ViewState, _run: Run) -> Figure | None:  # noqa: ARG001
    """The map is made of all layers at all steps: read once for each version of the run."""
    return layers.layer_map(Path(path), _run.attributes, name, view)
