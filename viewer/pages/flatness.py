"""The page of the analysis `flatness`."""

import streamlit as st

from thermodl.viewer import tables
from thermodl.viewer.curves import of_group
from thermodl.viewer.pages.layout import Context, analysis_page, note, table
from thermodl.viewer.text import Text

TITLE = Text("Flatness", "平坦度")
QUESTION = Text(
    "Do the parameters spread least where the loss is flattest, and would a plain quadratic loss do the same?",
    "损失越平坦，参数的散布反而越小吗？单纯的二次损失是否也会如此？",
)
_DIRECTIONS = Text("Principal directions", "主方向")
_DIRECTIONS_NOTE = Text(
    "Directions come from the first half of the segment, everything but the cosine content and the fractions is "
    "measured in the second. A cosine content above 0.7 means a drift. Compare the fractions with those of a random "
    "walk.",
    "方向由区间前一半选出；除余弦含量与方差比例外，其余均在后一半测量。余弦含量高于 0.7 表示漂移。"
    "方差比例应与随机行走对照。",
)


def page(context: Context) -> None:
    """Draw the page."""
    data = analysis_page(context, "flatness", TITLE, QUESTION)
    if data is None:
        return
    directions = tables.directions(of_group(data, context.state), context.lang)
    if len(directions):
        st.subheader(_DIRECTIONS(context.lang), anchor=False)
        table(directions)
        note(_DIRECTIONS_NOTE(context.lang))
