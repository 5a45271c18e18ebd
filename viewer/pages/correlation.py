"""The page of the analysis `correlation`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Correlation", "自相关")
QUESTION = Text(
    "For how many steps does the training remember where it was?",
    "训练对自身状态的记忆能维持多少步？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "correlation", TITLE, QUESTION)
