"""The page of the analysis `dissipation`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Dissipation", "耗散率")
QUESTION = Text(
    "How much of the gradient's power goes downhill, and how much is spent on noise?",
    "梯度的功率有多少用于下降，又有多少耗散在噪声上？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "dissipation", TITLE, QUESTION)
