"""The page of the analysis `response`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("FDT", "涨落耗散定理")
QUESTION = Text(
    "Do the weights answer a push as their own fluctuations say they should?",
    "权重对外力的响应，是否与其自身涨落的预言一致？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "response", TITLE, QUESTION)
