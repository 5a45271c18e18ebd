"""The page of the analysis `temperature`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Temperature", "有效温度")
QUESTION = Text(
    "How strongly does the noise of mini-batches shake the weights, and do different thermometers agree?",
    "小批量噪声对权重的扰动有多强？不同的温度计是否一致？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "temperature", TITLE, QUESTION)
