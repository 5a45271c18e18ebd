"""What was recorded of each layer, as a map of layer and time, and as the line of one layer. No Streamlit, no physics.

Only quantities that cannot be negative are on offer, for the colours are logarithmic, and only as they were recorded:
a ratio of two of them would be noise divided by noise, and is the business of an analysis with its error bar.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import charts, clocks
from .curves import Figure
from .recorded import DAMAGED, recorded_curve
from .series import grid, read_series
from .state import ViewState
from .text import Text, quantity_title

QUANTITIES = {
    "gradient_squared": Text("squared gradient norm ‖g‖²", "梯度范数平方 ‖g‖²"),
    "displacement_squared": Text("squared displacement ‖θ−θ_ref‖²", "位移平方 ‖θ−θ_ref‖²"),
    "update_squared": Text("squared update ‖Δθ‖²", "更新量平方 ‖Δθ‖²"),
    "velocity_squared": Text("squared velocity ‖v‖² before the step", "步前速度平方 ‖v‖²"),
    "parameter_squared": Text("squared parameter norm ‖θ‖²", "参数范数平方 ‖θ‖²"),
    "noise_trace": Text("gradient noise ½‖g−g′‖² at probes", "探针处的梯度噪声 ½‖g−g′‖²"),
    "chunk_noise_trace": Text("gradient noise tr C from micro-batches", "由微批次得到的梯度噪声 tr C"),
    "per_sample_noise_trace": Text("gradient noise of single samples", "单样本梯度噪声"),
}
LAYER = Text("layer", "层")
_MAP = Text("All layers over time: {quantity}", "各层随时间的变化：{quantity}")
_LINE = Text("Layer {layer}: {quantity}", "层 {layer}：{quantity}")
_MOST_OTHERS = 30
"""layers in grey behind the chosen one, evenly chosen; each is read in full"""
_FEWEST, _MOST = 20, 200
"""buckets of a map; between them as many as give `charts.MAX_ROWS` cells"""


def recorded(run: Path) -> list[str]:
    """The quantities that a run has of each layer."""
    return [name for name in QUANTITIES if (run / "run.zarr" / name / "zarr.json").exists()]


def names_of(attributes: Mapping[str, Any]) -> list[str]:
    """The names of the layers; [] if the run does not tell them apart."""
    names = [layer["name"] for layer in attributes.get("layers", [])]
    return names if len(set(names)) == len(names) else []


def layer_map(run: Path, attributes: Mapping[str, Any], name: str, state: ViewState) -> Figure | None:
    """Layer × time of one quantity; None if there is nothing to draw.

    Raises:
        RunError: if the recording cannot be read.
    """
    series, clock = read_series(run, name), clocks.clock_of(run, name, state.axis)
    names, lang = names_of(attributes), state.lang
    if series is None or clock is None or not names or series.values.shape[:-1] != (len(names),):
        return None
    n = min(len(clock.x), series.values.shape[-1])
    shown = clock.inside(state)[:n]
    buckets = int(np.clip(charts.MAX_ROWS // len(names), _FEWEST, _MOST))
    cells = grid(clock.x[:n][shown], series.values[:, :n][:, shown], buckets)
    cells = cells.assign(layer=[names[row] for row in cells["row"]]).drop(columns=["row", "x", "count"])
    if not len(cells):
        return None
    notes = [charts.CELLS(lang).format(buckets=cells["left"].nunique(), count=int(shown.sum()))]
    if lost := max(series.unreadable, clock.unreadable):
        notes.append(DAMAGED.fill(n=lost)(lang))
    chart = charts.heatmap(
        cells,
        lang=lang,
        x_title=quantity_title(clock.attributes, lang),
        y_title=LAYER(lang),
        colour_title=quantity_title(series.attributes, lang),
        notes=notes,
        order=names,
        chosen=state.layer,
    )
    return Figure("layers-map", _filled(_MAP, quantity=QUANTITIES[name]), chart)


def layer_line(run: Path, names: list[str], layer: str, name: str, state: ViewState) -> Figure | None:
    """Mean and band of one layer.

    Raises:
        RunError: if the recording cannot be read.
    """
    if layer not in names:
        return None
    title = _filled(_LINE, layer=Text(layer, layer), quantity=QUANTITIES[name])
    rest = [(row, other) for row, other in enumerate(names) if other != layer]
    some = np.unique(np.linspace(0, len(rest) - 1, min(len(rest), _MOST_OTHERS)).round().astype(int))
    behind = dict(rest[place] for place in some)
    return recorded_curve(run, name, names.index(layer), title, state, log_y=True, rest=behind, of=len(rest))


def _filled(text: Text, **parts: Text) -> Text:
    """A text with its placeholders filled in, each language with its own words."""
    return Text(*(text(lang).format(**{key: part(lang) for key, part in parts.items()}) for lang in ("en", "zh")))
