"""The page of the analysis `noise`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Gradient noise", "梯度噪声")
QUESTION = Text(
    "How strong is the gradient's noise beside its mean, and how many directions does it fill?",
    "梯度噪声相对其平均值有多强，占据多少个方向？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "noise", TITLE, QUESTION)
