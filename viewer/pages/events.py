"""The page of the analysis `events`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Events", "突变事件")
QUESTION = Text(
    "When did the loss change suddenly, and does a setting or the end of an epoch explain it?",
    "损失何时发生突变？能否由超参数变化或轮次结束来解释？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "events", TITLE, QUESTION)
