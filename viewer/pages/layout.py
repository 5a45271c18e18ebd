"""What all pages share: the context they draw from, verdicts, figures, tables and the words for what is missing."""

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
import xarray as xr

from thermodl.analyze.results import STATUSES
from thermodl.record.errors import UserError
from thermodl.record.format import MIN_STEPS
from thermodl.record.words import command_line
from thermodl.viewer import catalog, clocks, comparison, recorded, tables
from thermodl.viewer.catalog import Run
from thermodl.viewer.charts import PALETTE
from thermodl.viewer.curves import Figure, Source
from thermodl.viewer.figures import ANALYSES, of_analysis
from thermodl.viewer.state import ViewState
from thermodl.viewer.text import COLON, Text, attribute, escape_markdown

_RUNNING = Text("This run is still being recorded; steps safe on disk: {steps:,}, last commit {when}. "
                "What is shown covers those.",
                "实验仍在记录中：已写入磁盘 {steps:,} 步，最近一次写入于 {when}。"
                "以下内容仅涵盖这些步。")  # fmt: skip
_SILENT = Text("This run has been silent since {when}: it never said it ended; steps safe on disk: {steps:,}. "
               "It may have been killed, or a step takes very long.",
               "自 {when} 起没有新的记录，也没有正常结束的标记；已写入磁盘 {steps:,} 步。"
               "训练可能已被终止，也可能只是某一步耗时很长。")  # fmt: skip
_FAILED = Text("This run ended with an error ({when}); steps safe on disk: {steps:,}.",
               "实验因错误结束（{when}）；已写入磁盘 {steps:,} 步。")  # fmt: skip
_BROKEN = Text("This run cannot be read:", "无法读取这个实验：")
_NO_RUNS = Text("There are no runs in this folder yet. Record one:", "这个文件夹里还没有实验。先记录一个：")
_NOT_ANALYZED = Text("This run has no results for this page yet. This command makes them:",
                     "这个实验还没有本页所需的分析结果。运行下面的命令即可得到：")  # fmt: skip
_LACKS_THIS = Text(
    "This run has results, but none for this page. This command makes them:",
    "这个实验已有分析结果，但没有本页的。运行下面的命令即可得到：",
)
_TOO_SHORT = Text(
    "An analysis takes at least {least} recorded steps; this run has {steps} so far.",
    "分析至少需要 {least} 个已记录的步；这个实验目前只有 {steps} 步。",
)
_UNREADABLE = Text("The recording cannot be read:", "无法读取记录：")
_BAD_RESULTS = Text("The results cannot be read:", "无法读取分析结果：")
_METHOD = Text("Method and reference", "方法与参考文献")
_NUMBERS = Text("Numbers", "数值")
_OTHER_LACKS = Text(
    "{run} has no results of {analysis} and is not overlaid.", "{run} 没有{analysis}的分析结果，未叠加显示。"
)
_OTHER_WORST = Text(
    "the worst verdict on it here; choose it in the sidebar to read why.",
    "这是该实验在此处最差的判定；在侧边栏选择该实验即可查看原因。",
)
_DRAG = Text(
    "Drag across the chart to choose the steps that charts over time show, or type them into the sidebar.",
    "在图上拖动可选择时间曲线显示的步数范围，也可在侧边栏输入。",
)
_SHOWN = Text(
    "Charts over time show steps {first:,} to {last:,} (shaded), and a chart without values there is left out; "
    "drag again for others.",
    "时间曲线只显示第 {first:,} 至 {last:,} 步（阴影部分），该范围内没有数据的图不显示；再次拖动可重新选择。",
)
_MORE_VERDICTS = Text("more verdicts: {n}", "另有 {n} 条判定")
_FEW_VERDICTS, _FEW_COLUMNS = 3, 4
REFRESH_SECONDS = 5
_BOXES = {"ok": st.success, "caution": st.warning, "untrusted": st.error}


@dataclass(frozen=True)
class Context:
    """What a page may show."""

    state: ViewState
    root: Path
    """the folder of runs as it was named at launch, or into which a zip is unpacked, for the commands on display"""
    runs: Mapping[str, Run]
    run: Run | None
    other: Run | None = None
    packed: str = ""
    """the zip that the runs are in, if they are not in that folder"""

    @property
    def lang(self) -> str:
        return self.state.lang


def heading(context: Context, title: Text, question: Text, explanation: Text | None = None) -> None:
    """Title, the question that the page answers, and what is shown, how it is made and when not to trust it."""
    st.title(title(context.lang), anchor=False)
    st.markdown(f"**{question(context.lang)}**")
    if explanation:
        st.markdown(explanation(context.lang))


def choose(context: Context, label: Text, key: str, options: Sequence[str], name: Callable[[str], str]) -> str:
    """A select box of a page for one field of the view; what is not among the options becomes the first."""
    box, chosen = f"{key}-box", getattr(context.state, key)
    # Streamlit forgets a box with its page; the view, from which it starts again, it does not.
    st.session_state[box] = chosen if chosen in options else options[0]
    return st.selectbox(label(context.lang), options, format_func=name, key=box, on_change=_keep, args=(box, key))


def _keep(box: str, key: str) -> None:
    st.session_state[key] = st.session_state[box]


def readable_run(context: Context) -> Run | None:
    """The chosen run with a word about its state; None, after saying so, if there is nothing to read."""
    run, lang = context.run, context.lang
    if run is None:
        st.info(_NO_RUNS(lang))
        show_commands(context, ["record", "--name", "first", "--runs-dir", str(context.root)])
        return None
    if run.broken:
        say(st.error, _BROKEN(lang), run.problem)
        return None
    words = {"running": (st.info, _RUNNING), "silent": (st.warning, _SILENT), "failed": (st.warning, _FAILED)}
    if run.state in words:
        box, text = words[run.state]
        box(text(lang).format(steps=run.steps, when=tables.moment(run.attributes.get("last_commit"))))
    return run


def live(context: Context, draw: Callable[[Context], None]) -> None:
    """Draw a page, and again every few seconds as long as its run is being recorded and the page is open.

    Charts keep their places and their brushes; a run that has ended, or has fallen silent, is drawn once.
    """
    if context.run is not None and context.run.state == "running":
        _draw_again(context, draw)
    else:
        draw(context)


@st.fragment(run_every=REFRESH_SECONDS)
def _draw_again(context: Context, draw: Callable[[Context], None]) -> None:
    assert context.run
    run = catalog.read_run(context.run.path, context.run.results_name)
    view = {key: st.session_state.get(key) for key in asdict(context.state)}
    # The sidebar and the address lie outside: what changes them takes the whole page.
    if run.state != "running" or view != asdict(context.state):
        st.rerun()
    draw(replace(context, run=run, runs={**context.runs, run.id: run}))


def note(text: str) -> None:
    """A remark in small letters; st.caption is too pale to read for some."""
    st.markdown(f":small[{escape_markdown(text)}]")


def say(box: Callable[[str], object], sentence: str, detail: str) -> None:
    """One sentence of ours and a detail that may hold anything, in one box."""
    box(f"{sentence} {escape_markdown(detail)}")


def say_unreadable(error: Exception, path: Path, lang: str) -> None:
    """Say why a recording cannot be read, without paths of this computer."""
    say(st.error, _UNREADABLE(lang), catalog.plain_reason(error, path))


@st.cache_resource(max_entries=32 * len(ANALYSES), show_spinner=False)
def _read_result(path: str, version: str, analysis: str, _run: Run) -> xr.Dataset:  # noqa: ARG001 - the cache key
    """A result as long as `version` stays; nobody changes the dataset, so one copy serves all sessions."""
    return catalog.read_result(_run, analysis)


def results_of(run: Run, lang: str, only: Collection[str] | None = None) -> dict[str, xr.Dataset]:
    """The results of a run; {} (and a sentence, if they are damaged) when there are none.

    With `only` those of these analyses: to open one takes longer than to draw it.
    """
    wanted = [analysis for analysis in run.analyzed if only is None or analysis in only]
    try:
        return {analysis: _read_result(str(run.path), run.version, analysis, run) for analysis in wanted}
    except UserError as error:
        say(st.error, _BAD_RESULTS(lang), catalog.plain_reason(error, run.path))
        return {}


def analysis_page(context: Context, analysis: str, title: Text, question: Text) -> xr.Dataset | None:
    """A page about one analysis: explanation, formula, verdicts, curves, numbers, method. Returns what it showed."""
    heading(context, title, question)
    run = readable_run(context)
    if run is None:
        return None
    data = results_of(run, context.lang, [analysis]).get(analysis)
    if data is None:
        missing_results(context, run)
        return None
    _explain(data, run, analysis, context.lang)
    if not data.data_vars:
        return None
    sources = overlaid(context, run, analysis, data)
    draw_figures(of_analysis(analysis, sources, context.state), context.lang)
    _draw_numbers(sources, analysis, context.lang)
    with st.expander(_METHOD(context.lang)):
        for key in ("method", "reference"):
            st.text(attribute(data.attrs, key, context.lang))
    for name, about, rows in tables.details(analysis, data, context.state):
        st.subheader(name, anchor=False)
        if len(rows):
            table(rows)
        if about:
            note(about)
    return data


def _draw_numbers(sources: Sequence[Source], analysis: str, lang: str) -> None:
    frames = {source.run: tables.numbers(source.data, tables.NUMBERS[analysis], lang) for source in sources}
    for run, frame in frames.items():
        if len(frame):
            name = f" · {escape_markdown(run)}" if len(sources) > 1 else ""
            st.subheader(_NUMBERS(lang) + name, anchor=False)
            table(frame)
    if any(map(len, frames.values())):
        note(tables.NOTE(lang))


def _place(context: Context, run: Run) -> int:
    """The same as on the page that compares, but that two runs never share a colour: dashes are quantities here."""
    chosen = [beside.id for beside in (context.run, context.other) if beside]
    places = comparison.places(chosen, context.runs.values())
    own, colours = places[run.id], len(PALETTE)
    alike = any(own % colours == place % colours for name, place in places.items() if name != run.id)
    return own + 1 if alike and context.other is not None and run.id == context.other.id else own


def missing_results(context: Context, run: Run) -> None:
    """Name the command that makes the results, or say why none does."""
    if run.steps < MIN_STEPS:
        st.info(_TOO_SHORT(context.lang).format(steps=f"{run.steps:,}", least=MIN_STEPS))
        return
    st.info((_LACKS_THIS if run.analyzed else _NOT_ANALYZED)(context.lang))
    named = ["--name", run.results_name] if run.results_name != "default" else []
    show_commands(context, ["analyze", str(context.root / run.id), *named])


def show_commands(context: Context, *commands: Sequence[str]) -> None:
    """Commands of thermodl to copy, after the one that unpacks what they are about."""
    all_of_them = [["unpack", context.packed], *commands] if context.packed else commands
    lines = [command_line(["thermodl", *command]) for command in all_of_them]
    st.code("\n".join(lines), language="bash", wrap_lines=True)


def overlaid(context: Context, run: Run, analysis: str, data: xr.Dataset) -> list[Source]:
    """The results of the run and, where there is one to compare with, of the other; says what is wrong with those."""
    return [Source(run.id, data, run.path, _place(context, run)), *_other_source(context, analysis)]


def _other_source(context: Context, analysis: str) -> list[Source]:
    other, lang = context.other, context.lang
    if other is None:
        return []
    # Results of other settings, however named, are no comparison.
    same = context.run is not None and other.results_name == context.run.results_name
    data = None if other.broken or not same else results_of(other, lang, [analysis]).get(analysis)
    if data is None or not data.data_vars:
        name = tables.analysis_name(analysis, lang)
        st.info(_OTHER_LACKS(lang).format(run=escape_markdown(other.id), analysis=name))
        return []
    say_stale(other, analysis, lang)
    # In full they would stand among those of the run itself.
    worst = next((status for status, *_ in tables.verdict_lines(data, lang)), "ok")
    if worst != "ok":
        _BOXES[worst](
            f"**{tables.status_word(worst, lang)}** · {escape_markdown(other.id)}{COLON(lang)}{_OTHER_WORST(lang)}"
        )
    return [Source(other.id, data, other.path, _place(context, other))]


def say_stale(run: Run, analysis: str, lang: str) -> None:
    """Say what has changed since these results were made."""
    mark = f"**{tables.STALE_SIGN} {tables.STALE(lang)}** · {escape_markdown(run.id)}{COLON(lang).strip()}"
    for reason in tables.stale(run, analysis, lang):
        say(st.warning, mark, reason)


def _explain(data: xr.Dataset, run: Run, analysis: str, lang: str) -> None:
    # All across the page: a column makes walls of verdicts, and cuts long formulas.
    st.text(attribute(data.attrs, "explanation", lang))
    if basis := tables.basis(data.attrs, lang):
        note(basis)
    draw_verdicts(data, lang)
    say_stale(run, analysis, lang)
    if data.attrs.get("formula"):
        formula = str(data.attrs["formula"])
        # A dollar would end the formula, and what follows be taken for Markdown.
        if "$" in formula:
            st.code(formula)
        else:
            _formula(formula)


def _formula(formula: str) -> None:
    """A formula whose parts stand side by side as far as the page is wide, and below each other where it is not."""
    with st.container(horizontal=True, horizontal_alignment="center", vertical_alignment="center", gap="small"):
        for part in formula.split(r"\qquad"):
            # Slanted letters reach beyond their box, which without room for them could be scrolled. More room lets the
            # gap be small, which is that between rows too.
            st.latex(rf"\;\;{part}\;\;", width="content")


def draw_verdicts(data: xr.Dataset, lang: str, of: Container[str] | None = None) -> None:
    """The verdicts, worst first, one box for each status: sign, word, and what to think of which quantities.

    A box shows a few; the rest are one click away. With `of` those on these quantities and on the whole analysis.
    """
    lines = tables.verdict_lines(data, lang, of)
    by_status = {status: [line for line in lines if line[0] == status] for status in reversed(STATUSES)}
    _draw_boxes({status: some[:_FEW_VERDICTS] for status, some in by_status.items()}, lang)
    rest = {status: some[_FEW_VERDICTS:] for status, some in by_status.items()}
    if more := sum(map(len, rest.values())):
        with st.expander(_MORE_VERDICTS.fill(n=more)(lang)):
            _draw_boxes(rest, lang)


def _draw_boxes(lines: Mapping[str, Sequence[tuple[str, str, str]]], lang: str) -> None:
    for status, some in lines.items():
        if some:
            words = [
                escape_markdown(f"{names}{COLON(lang)}{sentence}" if names else sentence) for _, names, sentence in some
            ]
            joint = "\n\n" + "\n".join(f"- {line}" for line in words) if len(words) > 1 else f" · {words[0]}"
            _BOXES[status](f"**{tables.status_word(status, lang)}**{joint}")


def draw_figures(drawn: Iterable[Figure], lang: str) -> None:
    """Charts under their titles, across the page."""
    for figure in drawn:
        title = figure.title(lang)
        st.subheader(escape_markdown(title), anchor=False)
        key = f"chart-{figure.id}"
        if figure.groups:
            choose = partial(_choose_group, key, figure.groups)
            st.altair_chart(figure.chart, width="stretch", key=key, alt=title, on_select=choose, selection_mode="group")
        else:
            st.altair_chart(figure.chart, width="stretch", key=key, alt=title)


def _choose_group(key: str, groups: Mapping[str, str]) -> None:
    """Choose the group whose point was clicked, for all charts and pages."""
    event: Any = st.session_state[key]
    for point in event["selection"].get("group", []):
        if point.get("x") in groups:
            st.session_state["group"] = groups[point["x"]]


def draw_brush(run: Run, context: Context) -> None:
    """The whole run, across which the pointer drags the interval that all charts over time show.

    Raises:
        RunError: if the recording cannot be read.
    """
    state, lang = context.state, context.lang
    figure = recorded.whole_run(run.path, state)
    if figure is None:
        return
    st.subheader(figure.title(lang), anchor=False)
    interval = state.interval
    note(_SHOWN(lang).format(first=interval[0], last=interval[1]) if interval else _DRAG(lang))
    key = f"chart-{figure.id}"
    st.altair_chart(
        figure.chart,
        width="stretch",
        key=key,
        alt=figure.title(lang),
        on_select=partial(_keep_interval, key, run.path, state.axis),
        selection_mode="interval",
    )


def _keep_interval(key: str, run: Path, axis: str) -> None:
    """Keep the steps of the interval that was dragged; a brush that is gone changes nothing."""
    event: Any = st.session_state[key]
    dragged = event["selection"].get("interval", {}).get("x")
    if not dragged:
        return
    clock = clocks.clock_of(run, "loss", axis)
    steps = clocks.steps_between(clock, *dragged) if clock else None
    if steps:
        st.session_state["steps"] = f"{steps[0]}-{steps[1]}"


def size(count: int) -> str:
    """A number of bytes for people."""
    # From where three digits would round up to the next.
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def table(frame: pd.DataFrame) -> None:
    """A table of untrusted text; the first of many columns stays where the others scroll."""
    if len(frame):
        first = {str(frame.columns[0]): st.column_config.Column(pinned=len(frame.columns) > _FEW_COLUMNS)}
        st.dataframe(frame, hide_index=True, width="stretch", height="content", column_config=first)
