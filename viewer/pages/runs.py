"""The page that lists all runs and compares their settings."""

from functools import partial
from typing import Any

import streamlit as st

from thermodl.viewer import tables
from thermodl.viewer.pages import layout
from thermodl.viewer.pages.layout import Context
from thermodl.viewer.text import Text, escape_markdown

TITLE = Text("Runs", "实验列表")
QUESTION = Text("Which trainings were recorded, and how do they differ?", "记录了哪些训练？它们有何不同？")
_SELECT = Text("Tick a row to choose the run that the other pages show.", "勾选一行，即可在其他页面查看该实验。")
_CHOSEN = Text("Chosen run: {run}", "当前实验：{run}")
_PROBLEM = Text("{run} cannot be read: {why}", "无法读取 {run}：{why}")
_EQUAL = Text("Show equal settings too", "同时显示相同的设置")
_FIRST = Text("The first {n} runs are compared.", "只比较前 {n} 个实验。")
_MOST_COLUMNS = 8
_MOST_ROWS = 25


def page(context: Context) -> None:
    """Draw the page."""
    layout.heading(context, TITLE, QUESTION)
    if not context.runs:
        layout.readable_run(context)
        return
    table = tables.runs(context.runs.values(), context.lang)
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        height="content" if len(table) <= _MOST_ROWS else 35 * _MOST_ROWS,
        key="table-of-runs",
        on_select=partial(_choose, list(context.runs)),
        selection_mode="single-row",
    )
    layout.note(_SELECT(context.lang))
    if context.run is not None:
        st.text(_CHOSEN(context.lang).format(run=context.run.id))
    for run in context.runs.values():
        if run.problem:
            st.warning(_PROBLEM(context.lang).format(run=escape_markdown(run.id), why=escape_markdown(run.problem)))
    _compare(context)


def _choose(ids: list[str]) -> None:
    """Make the ticked run the one that all pages show."""
    selected: Any = st.session_state["table-of-runs"]
    for row in selected["selection"]["rows"]:
        st.session_state["run"] = ids[row]


def _compare(context: Context) -> None:
    chosen = [run for run in (context.run, context.other) if run] if context.other else list(context.runs.values())
    readable = [run for run in chosen if not run.broken]
    if len(readable) < 2:
        return
    st.subheader(tables.DIFFERING(context.lang), anchor=False)
    every = st.toggle(_EQUAL(context.lang), key="equal-settings")
    comparison = tables.comparison(readable[:_MOST_COLUMNS], context.lang, only_differences=not every)
    layout.table(comparison)
    if not len(comparison):
        layout.note(tables.EQUAL(context.lang))
    if len(readable) > _MOST_COLUMNS:
        layout.note(_FIRST(context.lang).format(n=_MOST_COLUMNS))
