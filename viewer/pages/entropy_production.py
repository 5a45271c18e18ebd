"""The page of the analysis `entropy_production`."""

import streamlit as st

from thermodl.viewer import tables
from thermodl.viewer.curves import of_group
from thermodl.viewer.pages.layout import Context, analysis_page, note, table
from thermodl.viewer.text import Text

TITLE = Text("Entropy production", "熵产生")
QUESTION = Text(
    "Which groups give off heat and which take it up, and does the motion look different when played backwards?",
    "哪些层组放出热量，哪些吸收热量？把运动倒放，看起来是否不同？",
)
_CURRENTS = Text("Circulation between principal directions", "主方向之间的环流")
_CURRENTS_NOTE = Text(
    "Positive: the motion turns from the first direction towards the second. Per step, over the standard deviations of "
    "both; 0 in equilibrium.",
    "为正表示运动由第一个方向转向第二个方向。以每步计，并除以两个方向的标准差；平衡态下为 0。",
)


def page(context: Context) -> None:
    """Draw the page."""
    data = analysis_page(context, "entropy_production", TITLE, QUESTION)
    if data is None or "circulation" not in data:
        return
    currents = tables.currents(of_group(data, context.state), context.lang)
    if len(currents):
        st.subheader(_CURRENTS(context.lang), anchor=False)
        table(currents)
        note(_CURRENTS_NOTE(context.lang))
