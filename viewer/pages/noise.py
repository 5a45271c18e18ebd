"""The page of the analysis `noise`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Gradient noise", "梯度噪声")
QUESTION = Text(
    "How strong is the gradient's noise beside its mean, how many directions does it fill, and is it white and normal?",
    "梯度噪声相对于平均梯度有多强，占据多少个方向，是否为白噪声、是否服从高斯分布？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "noise", TITLE, QUESTION)
