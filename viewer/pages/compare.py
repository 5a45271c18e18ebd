"""The page that compares several runs: their settings, a curve of each, their estimates side by side."""

import streamlit as st

from thermodl.record.errors import RunError
from thermodl.viewer import catalog, comparison, curves, tables
from thermodl.viewer.catalog import Run
from thermodl.viewer.comparison import MOST, Results
from thermodl.viewer.pages import layout
from thermodl.viewer.pages.layout import Context
from thermodl.viewer.state import BETWEEN_RUNS
from thermodl.viewer.text import Text

TITLE = Text("Compare", "实验对比")
QUESTION = Text(
    "What was changed between these runs, and what became different?", "这些实验之间改变了什么？结果有何不同？"
)
EXPLANATION = Text(
    "The chosen run is the baseline; each run keeps its colour and line style on this page. Estimates stand side by "
    "side with one standard error, losses and accuracies with their plain difference Δ from the baseline. A difference "
    "between two single trainings may be that of their seeds: it says something about a setting only when several "
    "seeds agree.",
    "以当前实验为基准；本页中每个实验的颜色和线型保持不变，各估计值与其标准误并列给出，损失和准确率后附与基准的差值。"
    "两次单独训练之间的差别可能只来自随机种子，只有多个种子结果一致时才能归因于某项设置。",
)
_RUNS = Text("Runs to compare with {run}", "与 {run} 对比的实验")
_ALONE = Text("There is no second readable run in this folder.", "这个文件夹里没有第二个可读取的实验。")
_CURVE = Text("Curve", "曲线")
_NUMBER = Text("Estimate", "估计值")
_BY = Text("Sort and label runs by", "实验排序与标注依据")
_NO_SETTING = Text("no setting", "不按设置")
_EVALUATIONS = Text("Losses and accuracies, and their difference from the baseline", "损失、准确率及其与基准的差值")
_ESTIMATES = Text("Estimates for all layers together", "全部层合计的估计值")
_SIGNS = Text(
    "✓ ok, ⚠ caution, ✗ untrusted, ⟳ stale: the pages of the analyses say why.",
    "✓ 可信，⚠ 慎用，✗ 不可信，⟳ 已过期：原因见各分析页。",
)
_LACKING = Text("Without the curve or estimate chosen here: {runs}.", "没有所选曲线或估计值的实验：{runs}。")
_NO_CURVE = Text("None of these runs has recorded it.", "这些实验都没有记录它。")
_FIRST = 3
"""runs that are compared before any are chosen"""


def page(context: Context) -> None:
    """Draw the page."""
    layout.live(context, _page)


def _page(context: Context) -> None:
    layout.heading(context, TITLE, QUESTION, EXPLANATION)
    baseline, lang = layout.readable_run(context), context.lang
    if baseline is None:
        return
    others = _choose_runs(context, baseline)
    if not others:
        st.info(_ALONE(lang))
        return
    runs = [baseline, *(catalog.with_results(run, baseline.results_name) or run for run in others)]
    differing = comparison.values_by_setting(runs, lang)
    by = layout.choose(context, _BY, "by", ["", *differing], lambda key: key or _NO_SETTING(lang))
    if by:
        runs = comparison.sort_by(runs, differing[by])
        differing = comparison.values_by_setting(runs, lang)
    values = dict(zip([run.id for run in runs], differing[by], strict=True)) if by else {}
    # Results of other settings, however named, are no comparison.
    same = {run.id: run.results_name == baseline.results_name for run in runs}
    results = {run.id: layout.results_of(run, lang) if same[run.id] else {} for run in runs}
    st.subheader(tables.DIFFERING(lang), anchor=False)
    if differing:
        layout.table(tables.comparison(runs, lang))
    else:
        layout.note(tables.EQUAL(lang))
    labels = {run.id: f"{run.id} · {by} = {values[run.id]}" if by else run.id for run in runs}
    try:
        _curve(context, runs, results, labels)
        evaluations = comparison.evaluations(runs, baseline, lang)
        if len(evaluations):
            st.subheader(_EVALUATIONS(lang), anchor=False)
            layout.table(evaluations)
    except RunError as error:
        layout.say_unreadable(error, baseline.path.parent, lang)
    _number(context, results, labels, values, by)
    if any(results.values()):
        st.subheader(_ESTIMATES(lang), anchor=False)
        layout.table(comparison.estimates(runs, results, baseline.id, lang))
        layout.note(f"{_SIGNS(lang)} {tables.NOTE(lang)}")


def _choose_runs(context: Context, baseline: Run) -> list[Run]:
    """The runs beside the baseline: those of the address, else the one of the sidebar, else the first few."""
    offered = [run for run in context.runs.values() if not run.broken and run.id != baseline.id]
    if not offered:
        return []
    names = [run.id for run in offered]
    asked = [name for name in dict.fromkeys(context.state.runs.split(BETWEEN_RUNS)) if name in names][: MOST - 1]
    beside = [context.other.id] if context.other and context.other.id in names else names[:_FIRST]
    st.session_state["runs-box"] = asked or beside
    chosen = st.multiselect(
        _RUNS(context.lang).format(run=baseline.id),
        names,
        key="runs-box",
        max_selections=MOST - 1,
        on_change=_keep_runs,
    )
    return [run for run in offered if run.id in chosen]


def _keep_runs() -> None:
    st.session_state["runs"] = BETWEEN_RUNS.join(st.session_state["runs-box"])


def _curve(context: Context, runs: list[Run], results: Results, labels: dict[str, str]) -> None:
    state, lang = context.state, context.lang
    offered = comparison.curves_on_offer(runs, results, lang)
    if not offered:
        st.info(_NO_CURVE(lang))
        return
    chosen = layout.choose(context, _CURVE, "curve", list(offered), offered.__getitem__)
    at = comparison.places(labels, context.runs.values())
    if chosen in comparison.RECORDED:
        figure = comparison.recorded_overlay(runs, chosen, labels, at, state)
    else:
        sources = comparison.sources_of(results, chosen, context.runs)
        names = [source.run for source in sources]
        _say_lacking(labels, names, lang)
        figure = curves.overlay(
            sources, chosen.partition("/")[2], [labels[name] for name in names], [at[name] for name in names], state
        )
    if figure is None:
        st.info(_NO_CURVE(lang))
    else:
        layout.draw_figures([figure], lang)


def _number(context: Context, results: Results, labels: dict[str, str], values: dict[str, str], by: str) -> None:
    lang = context.lang
    offered = comparison.numbers_on_offer(results, lang)
    if not offered:
        return
    chosen = layout.choose(context, _NUMBER, "number", list(offered), offered.__getitem__)
    sources = comparison.sources_of(results, chosen, context.runs)
    names = [source.run for source in sources]
    at = comparison.places(labels, context.runs.values())
    _say_lacking(labels, names, lang)
    figure = curves.by_run(
        sources,
        chosen.partition("/")[2],
        [labels[name] for name in names],
        [values.get(name, name) for name in names],
        by or tables.RUN(lang),
        [at[name] for name in names],
        context.state,
    )
    layout.draw_figures([figure] if figure else [], lang)


def _say_lacking(labels: dict[str, str], names: list[str], lang: str) -> None:
    lacking = [run for run in labels if run not in names]
    if lacking:
        layout.note(_LACKING(lang).format(runs=", ".join(lacking)))
