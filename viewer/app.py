"""One rerun of the app: language, run, axis and group in the sidebar, the pages, and the address bar.

The address is read into the session and written back at the end of every rerun; nothing else is remembered.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import streamlit as st

from thermodl.record.store import UserError
from thermodl.viewer import catalog
from thermodl.viewer.catalog import Run
from thermodl.viewer.cli import LANG, ROOT
from thermodl.viewer.figures import ALL
from thermodl.viewer.pages import PAGES
from thermodl.viewer.pages.layout import Context
from thermodl.viewer.state import AXES, LANGUAGES, ViewState
from thermodl.viewer.text import Text, escape_markdown

_LANGUAGE_NAMES = {"en": "English", "zh": "中文"}
_AXIS_NAMES = {"step": Text("optimizer step", "优化步"), "sgd_time": Text("SGD time", "SGD 时间")}
_NONE = Text("none", "无")
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
    context = Context(state, root, runs, *chosen)
    pages = [
        st.Page(partial(module.page, context), title=module.TITLE(state.lang), url_path=module.__name__.split(".")[-1])
        for module in PAGES
    ]
    # All of them: a list that ends in "view more" hides what there is.
    st.navigation(pages, expanded=True).run()
    _write_address(state)


def _read_address() -> None:
    """Take a new address (first visit, a link, the back button) into the session; widgets keep it from there."""
    query = st.query_params.to_dict()
    if "lang" in st.session_state and (not query or query == st.session_state.get("written")):
        return
    first = os.environ.get(LANG) or ("zh" if str(st.context.locale or "").startswith("zh") else "en")
    st.session_state.update(asdict(ViewState.from_query(query, first)))


def _write_address(state: ViewState) -> None:
    query = state.to_query()
    st.session_state["written"] = query
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


def _sidebar(runs: dict[str, Run]) -> ViewState:
    """The selectors; whatever the address asked for and does not exist becomes the first choice."""
    _select("Language · 语言", "lang", LANGUAGES, _LANGUAGE_NAMES.__getitem__)
    lang = st.session_state["lang"]
    _select(Text("Run", "实验")(lang), "run", list(runs) or [""], lambda run: run)
    others = ["", *(run for run in runs if run != st.session_state["run"])]
    _select(Text("Compare with", "对比实验")(lang), "other", others, lambda run: run or _NONE(lang))
    _select(Text("Time axis", "时间轴")(lang), "axis", AXES, lambda axis: _AXIS_NAMES[axis](lang))
    run = runs.get(st.session_state["run"])
    groups = ["all", *(str(group) for group in (run.attributes.get("groups") or [] if run else []))]
    if run and len(run.results_names) > 1:
        _select(Text("Results", "分析结果")(lang), "results", run.results_names, lambda name: name)
    else:
        st.session_state["results"] = ""
    _select(Text("Group of layers", "层组")(lang), "group", groups, lambda name: ALL(lang) if name == "all" else name)
    return ViewState(**{field.name: st.session_state[field.name] for field in fields(ViewState)})


def _select(label: str, key: str, options: Sequence[str], name: Callable[[str], str]) -> None:
    if st.session_state.get(key) not in options:
        st.session_state[key] = options[0]
    st.sidebar.selectbox(label, options, format_func=name, key=key)
