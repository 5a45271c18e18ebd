"""One HTML file about a run: text, numbers and live charts that need neither a server nor a network.

The charts are drawn by one copy of Vega inside the file; each has a still picture for paper and for readers without
scripts. The content policy of the file forbids every request.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import vl_convert
import xarray as xr
from markupsafe import Markup

from thermodl.analyze.export import write_file
from thermodl.record.errors import UserError
from thermodl.record.store import read_attributes
from thermodl.record.words import command_line

from . import charts, recorded, tables
from .catalog import Run, provenance_of, read_results, read_run, settings_of
from .curves import Figure, Source
from .figures import ANALYSES, of_analysis
from .state import ViewState
from .text import COLON, Text, attribute

_DIGITS, _DIGITS_OF_PLACES = 5, 9
_PLACES = ("x", "at", "left", "right")
WORDS = {
    "report": Text("ThermoDL report", "ThermoDL 报告"),
    "colon": COLON,
    "recorded": Text("recorded", "记录于"),
    "state": Text("state", "状态"),
    "steps": Text("steps", "步数"),
    "results": tables.FOR_ALL_LAYERS,
    "training": Text("Training", "训练过程"),
    "numbers": Text("Numbers", "数值"),
    "note": tables.NOTE,
    "stale": tables.STALE,
    "named": Text("results", "分析结果"),
    "methods": Text("Methods and references", "方法与参考文献"),
    "settings": Text("Settings", "设置"),
    "provenance": Text("Provenance", "来源"),
    "setting": tables.SETTING,
    "value": tables.VALUE,
    "actions": Text("Save this chart", "保存此图"),
    "svg": Text("Save as SVG", "保存为 SVG"),
    "png": Text("Save as PNG", "保存为 PNG"),
    "formula": Text("Formula (LaTeX)", "公式（LaTeX）"),
    "made": Text(
        "Made by thermodl {version}. Charts by Vega, Vega-Lite and Vega-Embed (BSD-3-Clause).",
        "由 thermodl {version} 生成。图表由 Vega、Vega-Lite 和 Vega-Embed 绘制（BSD-3-Clause）。",
    ),
}
_PARTIAL = Text(
    "The recording had not ended when this was written; what is shown covers the steps above.",
    "生成本报告时记录尚未结束；内容只涵盖上述步数。",
)


class ReportError(UserError):
    """A report that cannot be made."""


@dataclass(frozen=True)
class Section:
    """One analysis in the report."""

    id: str
    title: str
    explanation: str
    formula: str
    basis: str
    """the steps and settings it was made from"""
    stale: list[str]
    """why it does not belong to the recording or to its sisters any more"""
    verdicts: list[tuple[str, str, str, str]]
    """status, sign and word, quantities, sentence"""
    numbers: pd.DataFrame
    details: list[tuple[str, str, pd.DataFrame]]
    """further tables: title, note, rows"""
    figures: list["Picture"]
    method: str
    reference: str


@dataclass(frozen=True)
class Picture:
    """One figure: the live specification and a still SVG."""

    id: str
    title: str
    spec: dict[str, Any]
    svg: Markup


def write_report(folder: Path, output: Path, lang: str = "en", results: str = "", *, overwrite: bool = False) -> Path:
    """Write the report of a run to `output`, atomically; a report that is there is replaced.

    Args:
        folder: the run folder.
        output: the file to write.
        lang: `en` or `zh`.
        results: settings name of the results; by default `default`, or the first there is.
        overwrite: replace a file that is no report, too.

    Raises:
        UserError: if the run cannot be read, was never analyzed, or the file cannot or must not be written.
    """
    if output.exists() and not overwrite and not _is_report(output):
        raise ReportError(f"{output} is there and no thermodl report; choose another --output, or --overwrite it")
    html = build_report(folder, lang, results)

    def write(beside: Path) -> None:
        beside.write_text(html, encoding="utf-8")

    return write_file(output, write)


def _is_report(path: Path) -> bool:
    """Whether a file has the title of a report."""
    try:
        with path.open("rb") as file:
            start = file.read(2000)
    except OSError:
        return False
    return any(f" · {word}</title>".encode() in start for word in WORDS["report"])


def build_report(folder: Path, lang: str = "en", results_name: str = "") -> str:
    """The report of a run as HTML text.

    Raises:
        UserError: if the run cannot be read, was never analyzed, or has no results of that name.
    """
    read_attributes(folder)  # says what is wrong, with the path
    run = read_run(folder.resolve(), results_name)  # `.` has no name
    if results_name and results_name != run.results_name:
        known = f"expected one of {', '.join(run.results_names)}" if run.results_names else "there are none yet"
        raise ReportError(f"{folder} has no results named {results_name!r}; {known}")
    results = read_results(run)
    if not results:
        raise ReportError(
            f"{folder} has no results yet; make them with: {command_line(['thermodl', 'analyze', str(folder)])}"
        )
    state = ViewState(run=run.id, results=results_name, lang=lang)
    training = [_picture(figure, lang) for figure in recorded.training(folder, state)]
    sections = [_section(run, name, results[name], state) for name in _in_order(results)]
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html")
    return template.render(
        lang=lang,
        words={key: text(lang) for key, text in WORDS.items()},
        made=WORDS["made"](lang).format(version=version("thermodl")),
        run=run,
        state=tables.STATES.get(run.state, Text(run.state, run.state))(lang),
        partial=_PARTIAL(lang) if run.state in ("running", "silent") else "",
        recorded=tables.moment(run.attributes.get("started")),
        headlines=tables.headlines(run, results, lang),
        training=training,
        sections=sections,
        settings=tables.settings(settings_of(run.attributes), lang),
        provenance=tables.settings({**_identity(run), **provenance_of(run.attributes)}, lang),
        specs=_script_json({p.id: p.spec for p in [*training, *(p for s in sections for p in s.figures)]}),
        bundle=_bundle(),
    )


def _bundle() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    # The types of vl-convert do not know that the argument may be left out.
    script = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]
    # Only inside a string could it stand; a plain `</` also begins regular expressions and must stay.
    return Markup(script.replace("</script", r"<\/script"))


def _in_order(results: Iterable[str]) -> list[str]:
    """Analyses in the order of the pages; those that only have numbers come last."""
    names = list(results)
    known = [name for name in ANALYSES if name in names]
    return known + [name for name in names if name not in known]


def _section(run: Run, name: str, data: xr.Dataset, state: ViewState) -> Section:
    lang = state.lang
    return Section(
        id=name,
        title=attribute(data.attrs, "title", lang) or name,
        explanation=attribute(data.attrs, "explanation", lang),
        formula=str(data.attrs.get("formula", "")),
        basis=tables.basis(data.attrs, lang),
        stale=tables.stale(run, name, lang),
        verdicts=[
            (status, tables.status_word(status, lang), quantities, sentence)
            for status, quantities, sentence in tables.verdict_lines(data, lang)
        ],
        numbers=tables.numbers(data, tables.NUMBERS.get(name, ()), lang),
        details=tables.details(name, data, state),
        figures=[_picture(figure, lang) for figure in of_analysis(name, [Source(run.id, data, run.path)], state)],
        method=attribute(data.attrs, "method", lang),
        reference=attribute(data.attrs, "reference", lang),
    )


def _picture(figure: Figure, lang: str) -> Picture:
    spec = _rounded(charts.themed(figure.chart))
    svg = vl_convert.vegalite_to_svg(spec, vl_version=charts.version_of(spec))
    return Picture(figure.id, figure.title(lang), spec, Markup(svg))


def _rounded(value: Any, digits: int = _DIGITS) -> Any:
    """Five significant digits are more than a chart shows, and halve the file; but of a step all may be needed."""
    if isinstance(value, dict):
        return {key: _rounded(item, _DIGITS_OF_PLACES if key in _PLACES else digits) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item, digits) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None
    return value


def _script_json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in, whatever a run is called."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _identity(run: Run) -> dict[str, Any]:
    keys = ("run_id", "format_version", "thermodl_version")
    return {key: run.attributes[key] for key in keys if key in run.attributes}
