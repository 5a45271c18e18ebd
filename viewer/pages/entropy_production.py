"""The page of the analysis `entropy_production`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Entropy production", "熵产生")
QUESTION = Text(
    "Which groups give off heat and which take it up, and does the motion look different when played backwards?",
    "哪些层组放出热量，哪些吸收热量？把运动倒放，看起来是否不同？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "entropy_production", TITLE, QUESTION)
