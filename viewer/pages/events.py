"""The page of the analysis `events`."""

import streamlit as st

from thermodl.viewer import tables
from thermodl.viewer.pages.layout import Context, analysis_page, note, table
from thermodl.viewer.text import Text

TITLE = Text("Events", "突变事件")
QUESTION = Text(
    "When did the loss change suddenly, and does a setting or the end of an epoch explain it?",
    "损失何时发生突变？能否由超参数变化或轮次结束来解释？",
)
_EVENTS = Text("Events in the order of time", "按时间顺序的事件")
_NONE = Text("No sudden change of the loss was found.", "没有发现损失的突变。")


def page(context: Context) -> None:
    """Draw the page."""
    data = analysis_page(context, "events", TITLE, QUESTION)
    if data is None:
        return
    st.subheader(_EVENTS(context.lang), anchor=False)
    events = tables.events(data, context.lang)
    if len(events):
        table(events)
    else:
        note(_NONE(context.lang))
