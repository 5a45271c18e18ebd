"""The page of the analysis `diffusion`."""

from thermodl.viewer.pages.layout import Context, analysis_page
from thermodl.viewer.text import Text

TITLE = Text("Diffusion", "扩散")
QUESTION = Text(
    "How fast do the weights wander, and is it free diffusion?",
    "权重游走得有多快？是自由扩散吗？",
)


def page(context: Context) -> None:
    """Draw the page."""
    analysis_page(context, "diffusion", TITLE, QUESTION)
