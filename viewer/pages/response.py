"""The page of the analysis `response`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Response and dissipation", "响应与涨落耗散")
QUESTION = Text(
    "Do the weights answer a push as their own fluctuations say they should?",
    "权重对推力的响应与其自身涨落的预言一致吗？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "response", TITLE, QUESTION)
