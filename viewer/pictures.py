"""Charts as files: PNG, SVG and PDF by vl-convert without a browser, the Vega-Lite specification, and the rows drawn.

PNG and PDF draw letters with the fonts of this computer. Where these have no Chinese characters, boxes would come out;
therefore each character of the chart is drawn once and compared with one that no font has, and if one of them looks
the same the chart is drawn in English. SVG and Vega-Lite keep the text and leave fonts to the reader's computer.
"""

import json
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
import xarray as xr

from thermodl.analyze.export import check_place, write_file
from thermodl.analyze.results import read_verdicts
from thermodl.record.errors import UserError
from thermodl.record.store import read_attributes

from . import catalog, charts, clocks, recorded, tables
from .catalog import Run, read_run
from .curves import Figure, Source
from .figures import ANALYSES, of_analysis
from .state import ViewState, is_interval
from .text import COLON, MISSING, Text

SUFFIXES = {"png": ".png", "svg": ".svg", "pdf": ".pdf", "vega": ".vl.json"}
DRAWN_HERE = ("png", "pdf")
"""formats for which the fonts of this computer matter"""
TRAINING = "training"
"""the part of a run's charts that comes from the recording itself; the others are named by their analysis"""
IN_ENGLISH = Text(
    "The fonts of this computer have no Chinese characters, so PNG and PDF are drawn in English; SVG and Vega-Lite "
    "keep the Chinese text. A font such as Noto Sans CJK changes that (Debian, Ubuntu: apt install fonts-noto-cjk).",
    "本机字体不含汉字，因此 PNG 和 PDF 以英文输出；SVG 和 Vega-Lite 仍保留中文。"
    "安装 Noto Sans CJK 等字体即可（Debian、Ubuntu：apt install fonts-noto-cjk）。",
)
_SEGMENT = Text("segment: steps {steps}", "区间：第 {steps} 步")
_OF_ALL = Text("of all layers together:", "以下判定针对全部层：")
_WIDE = {"en": 140, "zh": 78}
"""characters of a line that is as wide as a chart"""
_SCALE = 2.0
"""pixels of a PNG per point: sharp on paper and on dense screens"""
_CHINESE = re.compile("[\u3000-\u9fff\uff00-\uffef]")
_IN_NO_FONT = "\U0010fffd"
_LETTER = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"><text x="4" y="26" font-size="24" '
    'font-family="{font}">{letter}</text></svg>'
)


class PictureError(UserError):
    """A chart that there is not, or a view that it cannot be seen in."""


def parts_of(run: Run) -> list[str]:
    """The parts of a run that have charts: the training, and analyses in the order of the pages."""
    return [TRAINING, *(name for name in ANALYSES if name in run.defined)]


def figures_of(run: Run, part: str, data: xr.Dataset | None, state: ViewState) -> dict[str, Figure]:
    """The charts of one part by their ids.

    Args:
        data: the dataset of the analysis; the training has none.

    Raises:
        RunError: if the recording cannot be read.
    """
    if data is None:
        found = recorded.training(run.path, state) if part == TRAINING else []
    else:
        found = of_analysis(part, [Source(run.id, data, run.path)], state)
    return {figure.id: replace(figure, caption=_caption(run, part, data, figure, state)) for figure in found}


def _caption(run: Run, part: str, data: xr.Dataset | None, figure: Figure, state: ViewState) -> tuple[str, ...]:
    """What a page tells around a chart: of which run, results, segment and group, what not to trust, what is stale."""
    if data is None:
        return (run.id,)
    lang, steps, name = state.lang, tables.segment_of(data.attrs), run.results_name
    source = [run.id, *([name] if name not in ("", "default") else [])]
    source += [state.group] if state.group != "all" else []
    source += [_SEGMENT(lang).format(steps=steps)] if steps != MISSING else []
    # In words: fonts that have the signs are not the ones that the words are drawn with.
    doubts = [
        COLON(lang).join([tables.STATUS[status](lang), sentence])
        for status, _, sentence in tables.verdict_lines(data, lang, of=figure.quantities)
        if status != "ok"
    ]
    if doubts and state.group != "all":
        doubts = [_OF_ALL(lang), *doubts]
    return (
        " · ".join(source),
        *doubts,
        *(COLON(lang).join([tables.STALE(lang), one]) for one in tables.stale(run, part, lang)),
    )


def find_figure(run: Run, name: str, results: Mapping[str, xr.Dataset], state: ViewState) -> Figure:
    """The chart of that id, of whatever part.

    Raises:
        PictureError: if there is none, naming those that there are.
        RunError: if the recording cannot be read.
    """
    offered: list[str] = []
    # Ids begin with the first word of their part.
    for part in sorted(parts_of(run), key=lambda part: not name.startswith(part.split("_")[0])):
        found = figures_of(run, part, results.get(part), state)
        if name in found:
            return found[name]
        offered += found
    why = "".join(
        f"; {part}: {verdict['en']}"
        for part, data in results.items()
        for verdict in read_verdicts(data)
        if verdict["code"] == "not-defined" and name.startswith(part.split("_")[0])
    )
    whole = replace(state, steps="") if state.steps else None
    if whole and any(name in figures_of(run, part, results.get(part), whole) for part in parts_of(run)):
        raise PictureError(
            f"{run.id} has nothing to draw of {name!r} in the steps {state.steps}; without --steps it has"
        )
    raise PictureError(f"{run.id} has no chart {name!r}; it has {', '.join(offered)}{why}")


def draw(make: Callable[[str], Figure], to: str, lang: str) -> tuple[bytes, str]:
    """A chart as the bytes of a file, and the language that it is in.

    Args:
        make: gives the chart in a language.
        to: `png`, `svg`, `pdf` or `vega`.
        lang: the language asked for; PNG and PDF fall back to English where the fonts lack a character.
    """
    figure = make(lang)
    spec = titled(figure, lang)
    if to in DRAWN_HERE and lacks_letters(spec):
        lang, spec = "en", titled(make("en"), "en")
    if to == "vega":
        return json.dumps(spec, ensure_ascii=False, indent=1).encode(), lang
    version = charts.version_of(spec)
    if to == "svg":
        return vl_convert.vegalite_to_svg(spec, vl_version=version).encode(), lang
    if to == "pdf":
        return vl_convert.vegalite_to_pdf(spec, vl_version=version), lang
    return vl_convert.vegalite_to_png(spec, vl_version=version, scale=_SCALE), lang


def write_picture(
    folder: Path, name: str, to: str, out: Path | None, view: Mapping[str, str], *, overwrite: bool = False
) -> Path:
    """Write one chart of a run to a file, and say on the terminal if it is not in the language asked for.

    Args:
        folder: the run folder.
        name: id of the chart.
        out: the file; by default named after run and chart, in the working directory.
        view: fields of the view that are not at their defaults.

    Raises:
        UserError: if the run cannot be read, has no such chart, or the file cannot or must not be written.
    """
    read_attributes(folder)  # says what is wrong, with the path
    state = ViewState(**view)
    run = read_run(folder.resolve(), state.results)
    if state.results not in ("default", run.results_name):
        raise PictureError(f"{folder} has no results of the name {state.results!r}")
    if state.group not in ("all", *(run.attributes.get("groups") or [])):
        groups = ", ".join(map(str, run.attributes.get("groups") or []))
        raise PictureError(f"{folder} has no group {state.group!r}; it has all, {groups}")
    if state.axis not in (offered := clocks.on_offer(run.path)):
        raise PictureError(f"{folder} has no axis {state.axis!r}; it has {', '.join(offered)}")
    if state.steps and not is_interval(state.steps):
        raise PictureError(f"steps {state.steps!r}: expected the first and the last, such as 1000-2000")
    if state.steps and int(state.steps.split("-")[0]) >= run.steps:
        raise PictureError(f"steps {state.steps!r}: {folder} has the steps 0 to {run.steps - 1}")
    parts = [run.id, *([run.results_name] if run.results_name != "default" else []), name]
    path = out or Path(f"{'-'.join(parts)}{SUFFIXES[to]}")
    check_place(path, overwrite)
    results = catalog.read_results(run)
    for option in _without_effect(run, name, results, state):
        print(f"thermodl: --{option} {view[option]} changes nothing in {name}", file=sys.stderr)
    picture, lang = draw(lambda lang: find_figure(run, name, results, replace(state, lang=lang)), to, state.lang)
    if lang != state.lang:
        print(f"thermodl: {IN_ENGLISH.en}", file=sys.stderr)

    def write(beside: Path) -> None:
        beside.write_bytes(picture)

    return write_file(path, write)


def _without_effect(run: Run, name: str, results: Mapping[str, xr.Dataset], state: ViewState) -> list[str]:
    """Options of the view that were given and without which the chart would be the same."""
    first = ViewState()
    given = [
        option for option in ("axis", "steps", "scale", "group") if getattr(state, option) != getattr(first, option)
    ]
    if not given:
        return []
    drawn, alike = find_figure(run, name, results, state).chart.to_dict(validate=False), []
    for option in given:
        # Where another view has no such chart, this option makes the difference.
        with suppress(PictureError):
            other = find_figure(run, name, results, replace(state, **{option: getattr(first, option)}))
            if other.chart.to_dict(validate=False) == drawn:
                alike.append(option)
    return alike


def lacks_letters(spec: Mapping[str, Any]) -> bool:
    """Whether a chart has a Chinese character that no font of this computer can draw."""
    letters = set(_CHINESE.findall(json.dumps(spec, ensure_ascii=False, default=str)))
    # Full-width spaces are blank in any font.
    return any(_letter(letter) == _letter(_IN_NO_FONT) for letter in sorted(letters - {"\u3000"}))


@cache
def _letter(letter: str) -> bytes:
    return vl_convert.svg_to_png(_LETTER.format(font=charts.FONT, letter=letter))


def rows(figure: Figure) -> pd.DataFrame:
    """What a chart shows, a row for each mark: its id, the titles of its axes, its series, and the values."""
    chart: Any = figure.chart
    layers = [chart, *getattr(chart, "layer", [])]
    frames = [layer.data for layer in layers if isinstance(layer.data, pd.DataFrame)]
    # Reference lines, events and what is grey behind have no errors; all others share one frame, of which some draw a
    # part.
    shown = max((frame for frame in frames if {"low", "high"} <= set(frame.columns)), key=len, default=pd.DataFrame())
    encodings = [layer["encoding"] for layer in chart.to_dict()["layer"]]
    titled = {axis: entry[axis] for entry in reversed(encodings) for axis in ("x", "y") if axis in entry}
    lines = {axis: entry.get("title") or "" for axis, entry in titled.items()}
    titles = {f"{axis}_title": " ".join(title) if isinstance(title, list) else title for axis, title in lines.items()}
    names = {"chart": figure.id, **titles}
    # Where a bar is cut off is drawn, and nothing that was found.
    values = [column for column in shown.columns if column not in ("bottom", "start")]
    return pd.DataFrame(shown.assign(**names), columns=[*names, *values])


def titled(figure: Figure, lang: str) -> dict[str, Any]:
    """The specification for paper, under its title: a file has no page around it that says what it is."""
    spec = charts.themed(figure.chart)
    # In the app the notes above a chart are its title, for the heading stands on the page.
    notes = spec.get("title", {}).get("text", [])
    about = [line for text in figure.caption for line in textwrap.wrap(text, _WIDE[lang])]
    title = {"text": figure.title(lang), "fontSize": 15, "anchor": "start", "offset": 6}
    return {
        **spec,
        "title": {**title, "subtitle": [*notes, *about], "subtitleColor": "#606060", "subtitleFontSize": 12},
    }
