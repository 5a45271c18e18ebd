"""One rerun of the app: language, run, axis and group in the sidebar, the pages, and the address bar.

The address is read into the session and written back at the end of every rerun; nothing else is remembered but the
address and the view that were the last, so that a click made while a page is being drawn is not taken back.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import streamlit as st

from thermodl.record.errors import RunError, UserError
from thermodl.record.format import ALL_GROUPS
from thermodl.viewer import catalog, clocks
from thermodl.viewer.catalog import Run
from thermodl.viewer.cli import LANG, PACKED, ROOT
from thermodl.viewer.curves import shown_group
from thermodl.viewer.pages import PAGES
from thermodl.viewer.pages.layout import Context
from thermodl.viewer.state import AXES, LANGUAGES, SCALES, ViewState
from thermodl.viewer.text import COLON, Text, escape_markdown

_LANGUAGE_NAMES = {"en": "English", "zh": "中文"}
_SCALE_NAMES = {
    "": Text("as the chart needs", "默认"),
    "x": Text("time logarithmic", "时间轴取对数"),
    "y": Text("values logarithmic", "纵轴取对数"),
    "xy": Text("both logarithmic", "两轴均取对数"),
}
_WHERE_COMPARED = Text(
    "The pages of analyses draw it over the chosen run, and the pages Runs and Compare set the two side by side; all "
    "others are about the chosen run alone.",
    "各分析页将它与当前实验叠加绘制，实验列表页和实验对比页将两者并列；其余页面只显示当前实验。",
)
_AXIS_LACKING = Text("Not on offer here:", "此处不可选：")
_FIRST = Text("First step", "起始步")
_LAST = Text("Last step", "末步")
_ALL_STEPS = Text("Show all steps", "显示全部步")
_NONE = Text("none", "无")
_LOOK_AGAIN_SECONDS = 60
_NO_FOLDER = Text("The folder of runs cannot be read:", "无法读取实验文件夹：")


def main() -> None:
    """One rerun."""
    st.set_page_config(page_title="ThermoDL", layout="wide")
    _read_address()
    try:
        root = Path(os.environ.get(ROOT, "runs"))
        runs = catalog.scan(root)
    except (UserError, OSError) as error:
        st.error(f"{_NO_FOLDER(st.session_state['lang'])} {escape_markdown(str(error))}")
        return
    state = _sidebar(runs)
    chosen = (catalog.with_results(catalog.find(runs, run), state.results) for run in (state.run, state.other))
    packed = os.environ.get(PACKED, "")
    # The folder that a zip was unpacked into for the viewer goes with it: commands name the one that lasts.
    context = Context(state, Path("runs") if packed else root, runs, *chosen, packed=packed)
    pages = [
        st.Page(partial(module.page, context), title=module.TITLE(state.lang), url_path=module.__name__.split(".")[-1])
        for module in PAGES
    ]
    # All of them: a list that ends in "view more" hides what there is.
    st.navigation(pages, expanded=True).run()
    _write_address(state)


def _read_address() -> None:
    """Take a new address (first visit, a link, the back button) into the session; widgets keep it from there.

    A click ends the rerun that it falls into, which then does not write the address, and it may be faster than the
    browser, whose address is then still the one before: either way an address that is known, or that comes with a
    view that a widget has changed, is not a new one.
    """
    query, session = st.query_params.to_dict(), st.session_state
    if "lang" in session and (not query or query == session["known"] or _view() != session["drawn"]):
        return
    first = os.environ.get(LANG) or ("zh" if str(st.context.locale or "").startswith("zh") else "en")
    state = ViewState.from_query(query, first)
    session.update(asdict(state), known=query, drawn=state)


def _view() -> ViewState:
    return ViewState(**{field.name: st.session_state.get(field.name, field.default) for field in fields(ViewState)})


def _write_address(state: ViewState) -> None:
    query = state.to_query()
    st.session_state["known"] = query
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


def _sidebar(runs: dict[str, Run]) -> ViewState:
    """The selectors; whatever the address asked for and does not exist becomes the first choice."""
    _select("Language · 语言", "lang", LANGUAGES, _LANGUAGE_NAMES.__getitem__)
    lang = st.session_state["lang"]
    _select(Text("Run", "实验")(lang), "run", list(runs) or [""], lambda run: run)
    others = ["", *(run for run in runs if run != st.session_state["run"])]
    beside = Text("Compare with", "对比实验")(lang)
    _select(beside, "other", others, lambda run: run or _NONE(lang), _WHERE_COMPARED(lang))
    run = runs.get(st.session_state["run"])
    _axis(run, lang)
    scale = Text("Scales of charts over time", "时间曲线的坐标刻度")(lang)
    _select(scale, "scale", SCALES, lambda scale: _SCALE_NAMES[scale](lang))
    _interval(run, lang)
    groups = [ALL_GROUPS, *(run.attributes.get("groups", []) if run else [])]
    if run and len(run.results_names) > 1:
        _select(Text("Results", "分析结果")(lang), "results", run.results_names, lambda name: name)
    else:
        st.session_state["results"] = ""
    _select(Text("Group of layers", "层组")(lang), "group", groups, lambda name: shown_group(name, lang))
    st.session_state["drawn"] = _view()
    return st.session_state["drawn"]


def _select(
    label: str, key: str, options: Sequence[str], name: Callable[[str], str], explanation: str | None = None
) -> None:
    if st.session_state.get(key) not in options:
        st.session_state[key] = options[0]
    st.sidebar.selectbox(label, options, format_func=name, key=key, help=explanation)


def _axis(run: Run | None, lang: str) -> None:
    """The axes that the run has recorded; why the others are not among them stands beside the box."""
    offered = ("step",) if run is None or run.broken else _axes(str(run.path), run.version)
    lacking = "\n".join(
        f"- {clocks.NAMES[axis](lang)}{COLON(lang)}{why(lang)}"
        for axis in AXES
        if axis not in offered and (why := clocks.NO_NOISE_TIME if axis == "noise_time" else clocks.NOT_RECORDED)
    )
    _select(
        Text("Time axis", "时间轴")(lang),
        "axis",
        offered,
        lambda axis: clocks.NAMES[axis](lang),
        f"{_AXIS_LACKING(lang)}\n\n{lacking}" if lacking else None,
    )


# What could not be read at one look, such as a file that was being written, is looked at again.
@st.cache_data(max_entries=200, ttl=_LOOK_AGAIN_SECONDS, show_spinner=False)
def _axes(path: str, version: str) -> tuple[str, ...]:  # noqa: ARG001 - the cache key
    try:
        return clocks.on_offer(Path(path))
    except RunError:
        return ("step",)


def _interval(run: Run | None, lang: str) -> None:
    """First and last step on display, for the keyboard what the brush of the overview is for the pointer."""
    if run is None or run.steps < 2:
        return
    most = run.steps - 1
    first, last = replace(ViewState(), steps=st.session_state["steps"]).interval or (0, most)
    # An interval from another run may lie beyond the end of this one.
    if first >= most:
        first, last, st.session_state["steps"] = 0, most, ""
    last = min(last, most)
    # Boxes start again from the view, which the brush changes, too.
    st.session_state["first-step"], st.session_state["last-step"] = first, last
    left, right = st.sidebar.columns(2)
    for column, key, label in ((left, "first-step", _FIRST), (right, "last-step", _LAST)):
        column.number_input(
            label(lang), min_value=0, max_value=most, step=1, key=key, on_change=_keep_interval, args=(most,)
        )
    if st.session_state["steps"]:
        st.sidebar.button(_ALL_STEPS(lang), key="all-steps", on_click=_show_all_steps, width="stretch")


def _keep_interval(most: int) -> None:
    first, last = sorted((st.session_state["first-step"], st.session_state["last-step"]))
    st.session_state["steps"] = f"{first}-{last}" if first < last and (first, last) != (0, most) else ""


def _show_all_steps() -> None:
    st.session_state["steps"] = ""
