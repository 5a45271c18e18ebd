"""The page of the analysis `stationarity`."""

import streamlit as st

from thermodl.viewer import tables
from thermodl.viewer.pages.layout import Context, analysis_page, note, table
from thermodl.viewer.text import Text

TITLE = Text("Stationarity", "平稳性")
QUESTION = Text(
    "Has the training settled into a steady state, so that averages over time mean something?",
    "训练是否已进入稳态，使得时间平均有意义？",
)
_SEGMENTS = Text("Segments of constant settings", "超参数不变的区间")
_SEGMENTS_NOTE = Text(
    "The z scores compare the two halves of a segment; beyond 3 in either direction they are taken to differ.",
    "z 值比较一段的前后两半；绝对值超过 3 即认为两半不同。",
)


def page(context: Context) -> None:
    """Draw the page."""
    data = analysis_page(context, "stationarity", TITLE, QUESTION)
    if data is None:
        return
    segments = tables.segments(data, context.lang)
    if len(segments):
        st.subheader(_SEGMENTS(context.lang), anchor=False)
        table(segments)
        note(_SEGMENTS_NOTE(context.lang))
