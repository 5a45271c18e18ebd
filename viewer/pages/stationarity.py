"""The page of the analysis `stationarity`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Stationarity", "平稳性")
QUESTION = Text(
    "Has the training settled into a steady state, so that averages over time mean something?",
    "训练是否已进入稳态，使得时间平均有意义？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "stationarity", TITLE, QUESTION)
