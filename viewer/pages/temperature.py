"""The page of the analysis `temperature`."""

from thermodl.viewer.figures import fdt_thermometer
from thermodl.viewer.pages.layout import (
    Context,
    analysis_page,
    draw_figures,
    draw_verdicts,
    overlaid,
    results_of,
    say_stale,
)
from thermodl.viewer.text import Text

TITLE = Text("Temperature", "有效温度")
QUESTION = Text(
    "How strongly does the noise of mini-batches shake the weights, and do different thermometers agree?",
    "小批量噪声对权重的扰动有多强？不同的温度计是否一致？",
)


def page(context: Context) -> None:
    """Draw the page, with the thermometer of the analysis `response` where there is one."""
    if analysis_page(context, "temperature", TITLE, QUESTION) is None or context.run is None:
        return
    response = results_of(context.run, context.lang, ["response"]).get("response")
    if response is not None and "fdt_temperature" in response:
        draw_verdicts(response, context.lang, of=["fdt_temperature"])
        say_stale(context.run, "response", context.lang)
        sources = overlaid(context, context.run, "response", response)
        draw_figures(fdt_thermometer(sources, context.state), context.lang)
