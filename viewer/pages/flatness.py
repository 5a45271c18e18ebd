"""The page of the analysis `flatness`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Flatness", "平坦度")
QUESTION = Text(
    "Do the parameters spread least where the loss is flattest, and would a plain quadratic loss do the same?",
    "损失越平坦，参数的散布反而越小吗？单纯的二次损失是否也会如此？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "flatness", TITLE, QUESTION)
