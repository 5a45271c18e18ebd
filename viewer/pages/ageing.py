"""The page of the analysis `ageing`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Ageing", "老化")
QUESTION = Text(
    "Do the weights move less the longer they have been trained, and does the schedule explain it?",
    "训练得越久，权重移动得越慢吗？这能否由学习率等的调度来解释？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "ageing", TITLE, QUESTION)
