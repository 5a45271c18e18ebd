"""The page about what can be taken along: charts, results, series, the report, the model, the run as a whole.

A file is made when its button is clicked, in a temporary folder outside of the runs, and not before. What would be too
large to go through a browser is left to the command line, which the page names.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import streamlit as st
import xarray as xr

from thermodl.analyze.export import (
    SUFFIXES,
    TABLES,
    ExportError,
    Format,
    export,
    has_model,
    is_partial_model,
    recorded_series,
    require,
    write_rows,
)
from thermodl.record.archive import count_bytes
from thermodl.record.errors import UserError
from thermodl.viewer import pictures, tables
from thermodl.viewer.catalog import Run
from thermodl.viewer.curves import Figure
from thermodl.viewer.pages import layout
from thermodl.viewer.pages.layout import Context
from thermodl.viewer.report import build_report
from thermodl.viewer.state import ViewState
from thermodl.viewer.text import Text, escape_markdown

TITLE = Text("Data and export", "数据与导出")
QUESTION = Text("How do I take charts and numbers from here to elsewhere?", "如何导出图表和数据？")
EXPLANATION = Text(
    "A chart can be taken as a picture or as the rows that it draws, an analysis as its full results with error bars "
    "and verdicts, the recording step by step, and the run as one zip that thermodl opens on any computer. Files are "
    "made when you click, and nothing is written next to your runs. What is unresolved or untrusted here stays so in "
    "the file: full results say it in their columns of errors and verdicts, pictures and the report in words, with "
    "what is stale, and the rows of a chart by their errors alone.",
    "图表可以保存为图片，或保存所画的数据行；分析可以保存为带误差和判定的完整结果；记录可以逐步导出；"
    "整个实验可以打包为一个 zip，在任何计算机上用 thermodl 打开。"
    "文件在点击时才生成，不会写入实验文件夹；此处未分辨或不可信的数值在文件中依然如此：完整结果带有误差列和判定列，"
    "图片和报告用文字写明判定以及结果是否已过期，图表的数据行只带误差。",
)
_CHARTS = Text("A chart", "图表")
_PART = Text("Charts of", "图表来源")
_TRAINING = Text("training", "训练过程")
_CHART = Text("Chart", "图表")
_NO_CHARTS = Text("There is no chart of this part.", "这一部分没有图表。")
_PICTURE = Text("The picture", "图片")
_SHOWN = Text("The rows that it draws", "所画的数据行")
_RESULTS = Text("Full results", "完整结果")
_OF_ALL = Text("of all analyses", "全部分析")
_SERIES = Text("The recorded series of every step", "逐步记录的全部序列")
_EACH_STEP = Text("a row for each step, without sketches", "每步一行，不含随机投影")
_WHOLE = Text("The run as a whole", "整个实验")
_REPORT = Text("HTML report", "HTML 报告")
_MODEL = Text("Trained model (safetensors)", "训练好的模型（safetensors）")
_ZIP = Text("Run (zip, {size})", "实验（zip，{size}）")
_NO_MODEL = Text("There is no trained model before the training has come to its end.", "训练正常结束后才有模型可导出。")
_PARTIAL_MODEL = Text(
    "The model is made of the parameters that were recorded, as they were at the end: it has no buffers, and none that "
    "were frozen.",
    "模型由所记录的参数在记录结束时的值构成，不含缓冲区和被冻结的参数。",
)
_NO_REPORT = Text("There is no report before the run is analyzed.", "分析之后才有报告。")
_AGAIN = Text(
    "The zip holds recording, results and model, not the checkpoint. Elsewhere, `thermodl view X.zip` shows it, and "
    "`thermodl unpack X.zip` makes a run folder of it.",
    "zip 含记录、分析结果和模型，不含检查点。在别处用 `thermodl view X.zip` 查看，"
    "或用 `thermodl unpack X.zip` 还原为实验文件夹。",
)
_NEEDS = Text("{formats}: `pip install \"thermodl[export]\"` where thermodl runs.",
              "{formats}：需在运行 thermodl 的环境中执行 `pip install \"thermodl[export]\"`。")  # fmt: skip
_LARGE = Text("{size} are too much for a browser; the command line writes them to disk.",
              "共 {size}，不宜通过浏览器下载，请用命令行写入磁盘。")  # fmt: skip
_NAMES = {"csv": "CSV", "parquet": "Parquet", "netcdf": "NetCDF", "png": "PNG", "svg": "SVG", "pdf": "PDF",
          "vega": "Vega-Lite"}  # fmt: skip
_MIME = {"csv": "text/csv", "png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf",
         "zip": "application/zip", "html": "text/html", "vega": "application/json"}  # fmt: skip
MOST_BYTES = 500_000_000
"""a file goes through the memory of the server and of the browser"""
MOST_VALUES = 20_000_000


def page(context: Context) -> None:
    """Draw the page."""
    layout.heading(context, TITLE, QUESTION, EXPLANATION)
    run = layout.readable_run(context)
    if run is None:
        return
    results = layout.results_of(run, context.lang)
    if not run.analyzed:
        layout.missing_results(context, run)
    _chart(context, run, results)
    if results:
        _results(context, run, results)
    try:
        _series(context, run)
    except UserError as error:
        layout.say_unreadable(error, run.path, context.lang)
    _whole(context, run, results)


def _chart(context: Context, run: Run, results: Mapping[str, xr.Dataset]) -> None:
    lang, state = context.lang, context.state
    st.subheader(_CHARTS(lang), anchor=False)
    left, right = st.columns(2)
    parts = [part for part in pictures.parts_of(run) if part == pictures.TRAINING or part in results]
    with left:
        part = layout.choose(context, _PART, "part", parts, lambda part: _part_name(part, lang))
    try:
        figures = pictures.figures_of(run, part, results.get(part), state)
        with right:
            if not figures:
                st.info(_NO_CHARTS(lang))
                return
            name = layout.choose(context, _CHART, "figure", list(figures), lambda name: figures[name].title(lang))
    except UserError as error:
        layout.say_unreadable(error, run.path, lang)
        return
    figure = figures[name]
    layout.draw_figures([figure], lang)
    named = f"-{run.results_name}" if run.results_name != "default" else ""
    stem = f"{run.id}{named}-{name}"
    make = partial(_in_language, run, part, name, results.get(part), state)
    pictured = {to: partial(_picture, make, to, lang) for to in pictures.SUFFIXES}
    _buttons(_PICTURE(lang), stem, pictured, pictures.SUFFIXES, "picture")
    if lang == "zh" and pictures.lacks_letters(pictures.titled(figure, lang)):
        st.info(pictures.IN_ENGLISH(lang))
    shown = {to: partial(_rows, pictures.rows(figure), to) for to in TABLES}
    _buttons(_SHOWN(lang), f"{stem}-shown", shown, SUFFIXES, "shown", lang)
    view = [*(["--axis", state.axis] if state.axis != "step" else []),
            *(["--steps", state.steps] if state.steps else []), *(["--scale", state.scale] if state.scale else []),
            *(["--group", state.group] if state.group != "all" else []),
            *(["--lang", lang] if lang != "en" else []), *_named(run)]  # fmt: skip
    _command(context, run, ["--to", "pdf", "--chart", name, *view])


def _results(context: Context, run: Run, results: Mapping[str, xr.Dataset]) -> None:
    lang = context.lang
    st.subheader(_RESULTS(lang), anchor=False)
    part = context.state.part if context.state.part in results else ""
    for only in [part, ""] if part else [""]:
        _result_buttons(run, only, lang)
    _missing_packages(lang)
    _command(context, run, ["--to", "netcdf", *(["--only", part] if part else []), *_named(run)])


def _result_buttons(run: Run, only: str, lang: str) -> None:
    """Buttons for the results of one analysis, or of all."""
    named = f"-{run.results_name}" if run.results_name != "default" else ""
    options: dict[str, Any] = {"name": run.results_name, "only": [only] if only else None}
    makes = {to: partial(_exported, run.path, to, **options) for to in TABLES}
    title = tables.analysis_name(only, lang) if only else _OF_ALL(lang)
    stem = f"{run.id}{named}{f'-{only}' if only else ''}"
    _buttons(title, stem, makes, SUFFIXES, f"results-{'one' if only else 'all'}", lang)


def _series(context: Context, run: Run) -> None:
    lang = context.lang
    st.subheader(_SERIES(lang), anchor=False)
    values = _count_values(str(run.path), run.version)
    if values > MOST_VALUES:
        layout.note(_LARGE(lang).format(size=layout.size(8 * values)))
    else:
        makes = {to: partial(_exported, run.path, to, series=True) for to in TABLES}
        _buttons(_EACH_STEP(lang), f"{run.id}-series", makes, SUFFIXES, "series", lang)
    _command(context, run, ["--to", "parquet", "--series"])


def _whole(context: Context, run: Run, results: Mapping[str, xr.Dataset]) -> None:
    lang = context.lang
    st.subheader(_WHOLE(lang), anchor=False)
    left, middle, right = st.columns(3)
    make = partial(_report, run.path, lang, run.results_name)
    in_name = ".zh" if lang == "zh" else ""
    _button(left, _REPORT(lang), f"{run.id}{in_name}.html", make if results else None, "report", "html")
    model = partial(_exported, run.path, "safetensors") if has_model(run.path) and _has("safetensors") else None
    _button(middle, _MODEL(lang), f"{run.id}.safetensors", model, "model", "safetensors")
    size = _count_bytes(str(run.path), run.version)
    archive = partial(_exported, run.path, "zip") if size <= MOST_BYTES else None
    _button(right, _ZIP(lang).format(size=layout.size(size)), f"{run.id}.zip", archive, "zip", "zip")
    if not results:
        layout.note(_NO_REPORT(lang))
    if not has_model(run.path):
        layout.note(_NO_MODEL(lang))
    elif is_partial_model(run.path):
        layout.note(_PARTIAL_MODEL(lang))
    if has_model(run.path) and not _has("safetensors"):
        st.markdown(f":small[{_NEEDS(lang).format(formats='safetensors')}]")
    if archive is None:
        layout.note(_LARGE(lang).format(size=layout.size(size)))
    st.markdown(f":small[{_AGAIN(lang)}]")
    path = str(context.root / run.id)
    commands = [["export", path, "--to", "zip"]]
    if has_model(run.path):
        commands.insert(0, ["export", path, "--to", "safetensors"])
    if results:
        named = ["--results", run.results_name] if run.results_name != "default" else []
        commands.insert(0, ["report", path, *(["--lang", lang] if lang != "en" else []), *named])
    layout.show_commands(context, *commands)


def _part_name(part: str, lang: str) -> str:
    return _TRAINING(lang) if part == pictures.TRAINING else tables.analysis_name(part, lang)


def _buttons(
    title: str,
    stem: str,
    makes: Mapping[str, Callable[[], bytes]],
    suffixes: Mapping[Any, str],
    key: str,
    lang: str = "",
) -> None:
    """A row of buttons, one for each format; a format whose package is missing cannot be clicked."""
    first, *places = st.columns([2, 1, 1, 1, 1], vertical_alignment="center")
    first.markdown(escape_markdown(title))
    for place, (to, make) in zip(places, makes.items(), strict=False):
        _button(place, _NAMES[to], f"{stem}{suffixes[to]}", make if not lang or _has(to) else None, f"{key}-{to}", to)


def _button(place: Any, label: str, name: str, make: Callable[[], bytes] | None, key: str, to: str) -> None:
    place.download_button(
        label,
        make or b"",
        name,
        mime=_MIME.get(to, "application/octet-stream"),
        key=f"download-{key}",
        on_click="ignore",
        disabled=make is None,
        width="stretch",
    )


def _missing_packages(lang: str) -> None:
    missing = [_NAMES[to] for to in TABLES if not _has(to)]
    if missing:
        st.markdown(f":small[{_NEEDS(lang).format(formats=', '.join(missing))}]")


def _has(to: str) -> bool:
    try:
        require(to)
    except ExportError:
        return False
    return True


def _command(context: Context, run: Run, options: list[str]) -> None:
    layout.show_commands(context, ["export", str(context.root / run.id), *options])


def _named(run: Run) -> list[str]:
    return ["--name", run.results_name] if run.results_name != "default" else []


# ------------------------------------------------------------------------- what the buttons make, when clicked


def _in_language(run: Run, part: str, name: str, data: xr.Dataset | None, state: ViewState, lang: str) -> Figure:
    return pictures.figures_of(run, part, data, ViewState(**{**vars(state), "lang": lang}))[name]


def _picture(make: Callable[[str], Figure], to: str, lang: str) -> bytes:
    return pictures.draw(make, to, lang)[0]


def _rows(frame: pd.DataFrame, to: Format) -> bytes:
    with TemporaryDirectory(prefix="thermodl-export-") as folder:
        path = Path(folder) / "rows"
        write_rows(path, to, {str(name): values.tolist() for name, values in frame.items()})
        return path.read_bytes()


def _exported(run: Path, to: Format, **options: Any) -> bytes:
    with TemporaryDirectory(prefix="thermodl-export-") as folder:
        return export(run, to, Path(folder) / f"file{SUFFIXES[to]}", **options).read_bytes()


def _report(run: Path, lang: str, results: str) -> bytes:
    return build_report(run, lang, results).encode()


@st.cache_data(max_entries=100, show_spinner=False)
def _count_bytes(path: str, version: str) -> int:  # noqa: ARG001 - the cache key
    return count_bytes(Path(path))


@st.cache_data(max_entries=100, show_spinner=False)
def _count_values(path: str, version: str) -> int:  # noqa: ARG001 - the cache key
    return sum(values.size for values in recorded_series(path).data_vars.values())
