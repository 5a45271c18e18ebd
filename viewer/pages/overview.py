"""The page about one run as a whole: how it trained, what came out, where it comes from."""

import streamlit as st

from thermodl.record.errors import RunError
from thermodl.viewer import catalog, recorded, tables
from thermodl.viewer.catalog import Run
from thermodl.viewer.pages import layout
from thermodl.viewer.pages.layout import Context
from thermodl.viewer.text import Text

TITLE = Text("Overview", "概览")
QUESTION = Text("How did this training go, and what do its numbers say?", "这次训练进行得如何？得到了哪些数值？")
_SETTINGS = Text("Settings", "设置")
_PROVENANCE = Text("Provenance", "来源")
_NO_PROVENANCE = Text("The recording does not say where it comes from.", "记录中没有来源信息。")


def page(context: Context) -> None:
    """Draw the page."""
    layout.live(context, _page)


def _page(context: Context) -> None:
    layout.heading(context, TITLE, QUESTION)
    run = layout.readable_run(context)
    if run is None:
        return
    _headlines(context, run)
    try:
        layout.draw_brush(run, context)
        layout.draw_figures(recorded.training(run.path, context.state), context.lang)
    except RunError as error:
        layout.say_unreadable(error, run.path, context.lang)
    _origin(run, context.lang)


def _headlines(context: Context, run: Run) -> None:
    results = layout.results_of(run, context.lang, [analysis for analysis, _ in tables.HEADLINES])
    headlines = tables.headlines(run, results, context.lang)
    if len(headlines):
        st.subheader(tables.FOR_ALL_LAYERS(context.lang), anchor=False)
        layout.table(headlines)
    elif not run.analyzed:
        layout.missing_results(context, run)


def _origin(run: Run, lang: str) -> None:
    with st.expander(_SETTINGS(lang)):
        layout.table(tables.settings(catalog.settings_of(run.attributes), lang))
    with st.expander(_PROVENANCE(lang)):
        provenance = catalog.provenance_of(run.attributes)
        if provenance:
            layout.table(tables.settings(provenance, lang))
        else:
            layout.note(_NO_PROVENANCE(lang))
