"""Numbers with their errors, settings and verdicts as small tables of text. No Streamlit, no physics."""

import json
import shlex
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from thermodl.analyze.results import STATUSES, read_verdicts
from thermodl.analyze.versions import find_changes
from thermodl.record.errors import RunError

from .catalog import Run, settings_of
from .curves import EVENT_KINDS, group_names, of_group, shown_group
from .series import read_series
from .state import ViewState
from .text import MISSING, Text, is_resolved, number, quantity_title, with_error

# The numbers of each analysis worth a table, all by group or single.
NUMBERS = {
    "temperature": (
        "temperature_noise",
        "temperature_kinetic",
        "temperature_kinetic_drift_free",
        "temperature_configurational",
        "temperature_variance",
        "kinetic_over_noise",
        "noise_trace",
        "gradient_norm_squared",
    ),
    "dissipation": ("gradient_dissipation", "descent_power", "noise_power", "descent_fraction"),
    "noise": (
        "noise_trace",
        "noise_trace_chunks",
        "noise_trace_samples",
        "noise_trace_chunks_ratio",
        "noise_trace_samples_ratio",
        "gradient_norm_squared",
        "signal_to_noise",
        "simple_noise_scale",
        "effective_dimension",
        "low_frequency_weight",
        "tail_kurtosis",
        "tail_kurtosis_normal",
        "tail_hill",
        "tail_hill_normal",
        "tail_index",
        "tail_index_normal",
    ),
    "entropy_production": (
        "heat",
        "heat_direct",
        "loss_decrease",
        "entropy_production",
        "entropy_production_plugin",
        "entropy_production_bias",
        "entropy_production_p",
        "autoregression_order",
        "cycling_frequency",
        "cycling_frequency_null",
    ),
    "flatness": (
        "flatness_exponent",
        "exponent_iid",
        "exponent_epoch",
        "noise_exponent",
        "crossover_curvature",
        "fit_directions",
        "fit_scatter",
    ),
    "diffusion": (
        "diffusion_coefficient",
        "diffusion_coefficient_predicted",
        "diffusion_coefficient_sgd_time",
        "drift_velocity_squared",
        "sketch_relative_error",
    ),
    "ageing": (
        "collapse_steps",
        "collapse_steps_p",
        "collapse_sgd_time",
        "collapse_sgd_time_p",
        "collapse_noise_time",
        "collapse_noise_time_p",
        "ageing_exponent_steps",
        "ageing_exponent_sgd_time",
        "ageing_exponent_noise_time",
        "doubling_exponent",
        "doubling_ratio",
    ),
    "correlation": ("loss_integrated_time", "parameter_integrated_time", "gradient_integrated_time"),
    "response": ("fdt_ratio", "fdt_temperature", "temperature_noise"),
    "stationarity": ("fdr1_raw", "fdr1_centred", "fdr2", "identity_residual", "identity_floor"),
    "events": ("waiting_time", "waiting_time_variation"),
}
# The few that stand for a run: (analysis, variable).
HEADLINES = (
    ("temperature", "temperature_noise"),
    ("temperature", "temperature_kinetic"),
    ("diffusion", "diffusion_coefficient"),
    ("correlation", "loss_integrated_time"),
    ("correlation", "parameter_integrated_time"),
    ("response", "fdt_ratio"),
    ("stationarity", "fdr1_centred"),
)
_KIND = Text("kind", "类型")
STATES = {
    "running": Text("running", "运行中"),
    "finished": Text("finished", "已完成"),
    "stopped": Text("stopped by hand", "手动中止"),
    "failed": Text("failed", "失败"),
    "silent": Text("silent", "停止更新"),
    "broken": Text("unreadable", "无法读取"),
}
STATUS = {"ok": Text("ok", "可信"), "caution": Text("caution", "慎用"), "untrusted": Text("untrusted", "不可信")}
STATUS_SIGNS = {"ok": "✓", "caution": "⚠", "untrusted": "✗"}

ANALYSIS_NAMES = {
    "temperature": Text("temperature", "有效温度"),
    "dissipation": Text("dissipation", "耗散率"),
    "noise": Text("noise", "梯度噪声"),
    "entropy_production": Text("entropy production", "熵产生"),
    "flatness": Text("flatness", "平坦度"),
    "diffusion": Text("diffusion", "扩散"),
    "ageing": Text("ageing", "老化"),
    "correlation": Text("correlation", "自相关"),
    "response": Text("FDT", "涨落耗散定理"),
    "stationarity": Text("stationarity", "平稳性"),
    "events": Text("events", "突变事件"),
}
NOTE = Text(
    "1.23(4) means 1.23 ± 0.04 (one standard error); — means not defined; unresolved: the error is not known, or at "
    "least as large as the value.",
    "1.23(4) 表示 1.23 ± 0.04（一个标准误）；“—”表示无定义；“未分辨”表示误差未知，或不小于数值本身。",
)
STALE, STALE_SIGN = Text("stale", "已过期"), "⟳"
_CHANGES = {
    "other-recording": Text("it was made from another recording; analyze again.", "该结果来自另一次记录；请重新分析。"),
    "more-steps": Text(
        "it covers {old} of {new} recorded steps; analyze again to include the rest.",
        "该结果只涵盖已记录 {new} 步中的 {old} 步；重新分析即可包含其余部分。",
    ),
    "analysis": Text(
        "it was made by an older version of this analysis; analyze again.", "该结果由旧版本的分析程序得到；请重新分析。"
    ),
}
_OTHER_SEGMENT = Text(
    "this analysis used steps {own}, {names} used {steps}; do not compare them.",
    "该分析使用第 {own} 步，而{names}使用第 {steps} 步，二者不可直接比较。",
)
_BASIS = Text("Estimated from steps {steps}; settings: {settings}.", "根据第 {steps} 步的数据估计；设置：{settings}。")
_LIST = Text(", ", "、")
QUANTITY = Text("quantity", "物理量")
VALUE = Text("value", "数值")
VERDICT = Text("verdict", "判定")
SETTING = Text("setting", "设置项")
FOR_ALL_LAYERS = Text("Results for all layers together", "全部层合计的结果")
DIFFERING = Text("Settings that differ", "不同的设置")
EQUAL = Text("Of what was noted of these runs nothing differs.", "这些实验所记录的设置没有不同之处。")
_RECORDED = ("learning_rate", "momentum", "dampening", "weight_decay")
"""hyper-parameters that are recorded at every step"""
_IN_TIME = Text("{name} over time", "{name}（随时间变化）")
_PLACES = 5
"""values, from the first step to the last, by which a schedule is told"""
RUN = Text("run", "实验")
ESTIMATED_FROM = Text("estimated from steps", "估计所用的步数范围")
_START = Text("first step", "起始步")
_STOP = Text("end step", "结束步")
_STATIONARY = Text("stationary", "平稳")
_DIRECTION, _USED = Text("direction", "方向"), Text("in the fit", "参与拟合")
_TWO_DIRECTIONS = Text("directions", "方向对")
_OF_DIRECTIONS = (
    "mode_variance",
    "flatness",
    "curvature",
    "curvature_gradient",
    "mode_noise",
    "relaxations",
    "cosine_content",
    "mode_variance_fraction",
    "variance_fraction_walk",
)
_YES, _NO = Text("✓ yes", "✓ 是"), Text("✗ no", "✗ 否")
_COLUMNS = {
    "state": Text("state", "状态"),
    "steps": Text("steps", "步数"),
    "model": Text("model", "模型"),
    "data": Text("data", "数据集"),
    "sampling": Text("sampling", "采样方式"),
    "learning_rate": Text("learning rate", "学习率"),
    "momentum": Text("momentum", "动量"),
}
_ACCURACY = Text("final test accuracy", "最终测试准确率")
_ANALYZED = Text("analyzed", "已完成的分析")
_CREATED = Text("recorded", "记录时间")


def numbers(data: xr.Dataset, names: Iterable[str], lang: str) -> pd.DataFrame:
    """One row per quantity, one column per group, cells like `1.23(4)`; a single number stands in the first column."""
    groups = group_names(data) if "group" in data.coords else ["all"]
    rows = []
    for name in names:
        if name in data and set(data[name].dims) <= {"group"}:
            cells = [with_error(value, error, lang) for value, error in _values(data, name)]
            rows.append([quantity_title(data[name].attrs, lang), *cells, *[MISSING] * (len(groups) - len(cells))])
    return pd.DataFrame(rows, columns=_columns(QUANTITY(lang), [shown_group(name, lang) for name in groups]))


def _columns(first: str, names: Sequence[str]) -> list[str]:
    """Titles of a table whose columns have the names of runs or groups: those may be any, and no two alike."""
    return [first + " " * (first in names), *names]


def _values(data: xr.Dataset, name: str) -> list[tuple[float, float | None]]:
    """Value and error of each group; the error of a quantity that has none is None."""
    values = np.atleast_1d(data[name].values.astype(float)).tolist()
    if f"{name}_stderr" not in data:
        return [(value, None) for value in values]
    return list(zip(values, np.atleast_1d(data[f"{name}_stderr"].values.astype(float)).tolist(), strict=True))


def directions(data: xr.Dataset, lang: str) -> pd.DataFrame:
    """One row per direction of one group: what was measured along it, and whether it counts."""
    if not {"mode", "mode_variance", "mode_used"} <= set(data.variables):
        return pd.DataFrame()
    moved = np.isfinite(data["mode_variance"].values.astype(float))
    table: dict[str, list[str]] = {_DIRECTION(lang): [str(number) for number in data["mode"].values[moved]]}
    for name in filter(data.__contains__, _OF_DIRECTIONS):
        cells = [with_error(*pair, lang) for pair in _values(data, name)]
        table[quantity_title(data[name].attrs, lang)] = [
            cell for cell, there in zip(cells, moved, strict=True) if there
        ]
    used = data["mode_used"].values[moved]
    table[_USED(lang)] = [(_YES if one else _NO)(lang) for one in used]
    return pd.DataFrame(table)


def currents(data: xr.Dataset, lang: str) -> pd.DataFrame:
    """One row per pair of principal directions of one group: how the motion turns from one towards the other."""
    if "circulation" not in data:
        return pd.DataFrame()
    values, errors = (data[name].values.astype(float) for name in ("circulation", "circulation_stderr"))
    modes = data["mode"].values
    pairs = [(i, j) for i, j in zip(*np.triu_indices(len(modes), 1), strict=True) if np.isfinite(values[i, j])]
    return pd.DataFrame(
        {
            _TWO_DIRECTIONS(lang): [f"{modes[i]} → {modes[j]}" for i, j in pairs],
            quantity_title(data["circulation"].attrs, lang): [
                with_error(values[pair], errors[pair], lang) for pair in pairs
            ],
        }
    )


def segments(data: xr.Dataset, lang: str) -> pd.DataFrame:
    """Stretches of constant settings: where they lie, their split-half z scores, and whether they are stationary."""
    if "segment" not in data.dims:
        return pd.DataFrame()
    table: dict[str, list[str]] = {}
    for name, title in (("segment_start", _START), ("segment_stop", _STOP)):
        if name in data.variables:
            table[title(lang)] = [number(float(value), 9) for value in data[name].values]
    for name in ("loss_split_half", "displacement_split_half"):
        if name in data:
            table[quantity_title(data[name].attrs, lang)] = [number(float(value), 3) for value in data[name].values]
    if "segment_stationary_flag" in data:
        flags = data["segment_stationary_flag"].values
        table[_STATIONARY(lang)] = [(_YES if flag == 1 else _NO)(lang) for flag in flags]
    return pd.DataFrame(table)


def events(data: xr.Dataset, lang: str) -> pd.DataFrame:
    """One row per event: its kind, its place, its size, and temperature and diffusion before and after."""
    if not data.sizes.get("event"):
        return pd.DataFrame()
    table: dict[str, list[str]] = {}
    if "event_kind" in data:
        kinds = data["event_kind"].values.astype(int)
        table[_KIND(lang)] = [EVENT_KINDS[k](lang) if k in range(len(EVENT_KINDS)) else str(k) for k in kinds]
    for name in ("event_step", "event_first", "event_last"):
        if name in data:
            table[quantity_title(data[name].attrs, lang)] = [f"{int(value):,}" for value in data[name].values]
    for name in ("jump", "temperature_before", "temperature_after", "diffusion_before", "diffusion_after"):
        if name in data:
            table[quantity_title(data[name].attrs, lang)] = [with_error(*pair, lang) for pair in _values(data, name)]
    for name in ("event_z", "event_p"):
        if name in data:
            table[quantity_title(data[name].attrs, lang)] = [number(float(value), 3) for value in data[name].values]
    return pd.DataFrame(table)


DETAILS: dict[str, tuple[Text, Callable[[xr.Dataset, str], pd.DataFrame], Text | None, Text | None]] = {
    "flatness": (
        Text("Principal directions", "主方向"),
        directions,
        Text(
            "Directions come from the first half of the segment, everything but the cosine content and the fractions "
            "is measured in the second. A cosine content above 0.7 means a drift. Compare the fractions with those of "
            "a random walk.",
            "方向由区间前一半选出；除余弦含量与方差比例外，其余均在后一半测量。余弦含量高于 0.7 表示漂移。"
            "方差比例应与随机行走对照。",
        ),
        None,
    ),
    "stationarity": (
        Text("Segments of constant settings", "超参数不变的区间"),
        segments,
        Text(
            "The z scores compare the two halves of a segment; beyond 3 in either direction they are taken to differ. "
            "A segment that begins with another loss or ‖θ‖² than its second half has is not stationary either.",
            "z 值比较一段的前后两半；绝对值超过 3 即认为两半不同。开头的损失或 ‖θ‖² 与后一半不一致的区间也不平稳。",
        ),
        None,
    ),
    "entropy_production": (
        Text("Circulation between principal directions", "主方向之间的环流"),
        currents,
        Text(
            "Positive: the motion turns from the first direction towards the second. Per step, over the standard "
            "deviations of both; 0 in equilibrium.",
            "为正表示运动由第一个方向转向第二个方向。以每步计，并除以两个方向的标准差；平衡态下为 0。",
        ),
        None,
    ),
    "events": (
        Text("Events in the order of time", "按时间顺序的事件"),
        events,
        None,
        Text("No sudden change of the loss was found.", "没有发现损失的突变。"),
    ),
}
"""of analyses that have one, a further table: its title, how it is made, a note below it, and one in its place where it
has no rows"""


def details(analysis: str, data: xr.Dataset, state: ViewState) -> list[tuple[str, str, pd.DataFrame]]:
    """The further tables of an analysis, of the chosen group: title, note and rows, of which there may be none."""
    if analysis not in DETAILS or not data.data_vars:
        return []
    title, make, below, instead = DETAILS[analysis]
    rows = make(of_group(data, state) if "group" in data.dims else data, state.lang)
    note = below if len(rows) else instead
    return [(title(state.lang), note(state.lang) if note else "", rows)] if len(rows) or note else []


def headlines(run: Run, results: Mapping[str, xr.Dataset], lang: str) -> pd.DataFrame:
    """The numbers that stand for a run, for all layers together, each with its steps and the verdict on it."""
    rows = []
    for analysis, name in HEADLINES:
        data = results.get(analysis)
        if data is not None and name in data:
            title, cell = quantity_title(data[name].attrs, lang), with_error(*_values(data, name)[0], lang)
            mark = f" · {STALE_SIGN} {STALE(lang)}" if stale(run, analysis, lang) else ""
            rows.append((title, cell, segment_of(data.attrs), status_word(worst_status(data, name), lang) + mark))
    return pd.DataFrame(rows, columns=[QUANTITY(lang), VALUE(lang), ESTIMATED_FROM(lang), VERDICT(lang)])


def verdict_lines(data: xr.Dataset, lang: str, of: Container[str] | None = None) -> list[tuple[str, str, str]]:
    """Status, quantities and sentence of the verdicts, worst first; the same sentence about several is one line.

    With `of` those on these quantities and on the whole analysis.
    """
    lines: dict[tuple[str, str], list[str]] = {}
    verdicts = [one for one in read_verdicts(data) if of is None or not one["quantity"] or one["quantity"] in of]
    for verdict in sorted(verdicts, key=lambda verdict: STATUSES.index(verdict["status"]), reverse=True):
        name, sentence = verdict["quantity"], Text(verdict["en"], verdict["zh"])(lang)
        title = quantity_title({**data[name].attrs, "units": "1"}, lang) if name in data else ""
        lines.setdefault((verdict["status"], sentence), []).append(title)
    return [(status, _LIST(lang).join(filter(None, titles)), sentence) for (status, sentence), titles in lines.items()]


def worst_status(data: xr.Dataset, name: str) -> str:
    """The worst verdict on one quantity or on the whole analysis; caution if it is unresolved."""
    statuses = [verdict["status"] for verdict in read_verdicts(data) if verdict["quantity"] in (name, "")]
    if not is_resolved(*_values(data, name)[0]):
        statuses.append("caution")
    return max(statuses, key=STATUSES.index, default="ok")


def basis(attrs: Mapping[Any, Any], lang: str) -> str:
    """What an analysis was made from: its steps and its settings; '' if it does not say."""
    try:
        used = json.loads(attrs.get("settings", "{}"))
    except (TypeError, ValueError):
        used = {}
    words = [f"{key} = {value}" for key, value in used.items() if value is not None] if isinstance(used, dict) else []
    steps = segment_of(attrs)
    if steps == MISSING:
        return ""
    return _BASIS(lang).format(steps=steps, settings=_LIST(lang).join(words) or MISSING)


def segment_of(attrs: Mapping[Any, Any]) -> str:
    """The first and the last step that an analysis used, `1,000–2,999`."""
    try:
        start, stop = (int(step) for step in attrs["segment"])
    except (KeyError, TypeError, ValueError):
        return MISSING
    return f"{start:,}–{stop - 1:,}"


def stale(run: Run, analysis: str, lang: str) -> list[str]:
    """Why a result does not belong beside the recording or its sisters as they are now, in sentences."""
    stored = run.analyzed.get(analysis, {})
    old = stored.get("committed_steps")
    covered = {"old": f"{old:,}" if isinstance(old, int) else old, "new": f"{run.steps:,}"}
    reasons = [_CHANGES[change](lang).format(**covered) for change in find_changes(run.attributes, stored)]
    own, names = segment_of(stored), {}
    for sister, attrs in run.analyzed.items():
        names.setdefault(segment_of(attrs), []).append(analysis_name(sister, lang))
    for steps in names:
        if MISSING not in (own, steps) and steps != own:
            reasons.append(_OTHER_SEGMENT(lang).format(names=_LIST(lang).join(names[steps]), steps=steps, own=own))
    return reasons


def analysis_name(name: str, lang: str) -> str:
    """What an analysis is called."""
    return ANALYSIS_NAMES[name](lang) if name in ANALYSIS_NAMES else name


def status_word(status: str, lang: str) -> str:
    """Sign and word, so that colour is never the only mark."""
    return f"{STATUS_SIGNS[status]} {STATUS[status](lang)}"


def settings(table: Mapping[str, Any], lang: str) -> pd.DataFrame:
    """Settings or provenance as two columns of text."""
    rows = [(key, _plain(value)) for key, value in table.items()]
    return pd.DataFrame(rows, columns=[SETTING(lang), VALUE(lang)])


def comparison(runs: Sequence[Run], lang: str, only_differences: bool = True) -> pd.DataFrame:
    """Settings side by side, one column per run; by default only those that differ."""
    tables = [settings_of(run.attributes) | _in_time(run, lang) for run in runs]
    rows = []
    for key in dict.fromkeys(key for table in tables for key in table):
        cells = [_plain(table.get(key)) for table in tables]
        if not only_differences or len(set(cells)) > 1:
            rows.append([key, *cells])
    return pd.DataFrame(rows, columns=_columns(SETTING(lang), [run.id for run in runs]))


def _in_time(run: Run, lang: str) -> dict[str, str]:
    """Hyper-parameters that change while the run is recorded: those of each optimizer group at some times.

    Nothing where the recording cannot be read, which the page says elsewhere.
    """
    found = {}
    for name in _RECORDED:
        series = None
        with suppress(RunError):
            series = read_series(run.path, name)
        values = np.atleast_2d(series.values) if series is not None else np.empty((0, 0))
        changes = values.size > 0 and bool(np.any((values != values[:, :1]) & np.isfinite(values)))
        if changes:
            places = np.linspace(0, values.shape[-1] - 1, _PLACES).round().astype(int)
            courses = [" → ".join(f"{value:.3g}" for value in course) for course in values[:, places].tolist()]
            found[_IN_TIME(lang).format(name=name)] = " / ".join(dict.fromkeys(courses))
    return found


def runs(catalog: Iterable[Run], lang: str) -> pd.DataFrame:
    """One row per run, broken ones included."""
    return pd.DataFrame([_run_row(run, lang) for run in catalog])


def _run_row(run: Run, lang: str) -> dict[str, Any]:
    own = settings_of(run.attributes)
    try:
        accuracy = float("nan") if run.broken else _final_accuracy(run.path, run.version)
    except RunError:
        accuracy = float("nan")
    facts = {"state": STATES.get(run.state, Text(run.state, run.state))(lang), "steps": run.steps}
    # In one's own loop the optimizer alone knows its hyper-parameters.
    known = {key: own.get(key, own.get(f"optimizer.{key}", run.attributes.get(key))) for key in _COLUMNS}
    cells = {title(lang): facts.get(key, _plain(known[key])) for key, title in _COLUMNS.items()}
    analyzed = [analysis_name(name, lang) for name in run.defined]
    return {
        RUN(lang): run.id,
        **cells,
        _ACCURACY(lang): f"{accuracy:.2%}" if np.isfinite(accuracy) else MISSING,
        _ANALYZED(lang): _LIST(lang).join(analyzed) or MISSING,
        _CREATED(lang): moment(run.attributes.get("started")),
    }


# Streamlit's own cache takes half a second to look a thousand of them up.
@lru_cache(maxsize=4096)
def _final_accuracy(run: Path, version: str) -> float:  # noqa: ARG001 - the cache key
    """Test accuracy of the last evaluation, or NaN."""
    series = read_series(run, "test_accuracy")
    finite = series.values[np.isfinite(series.values)] if series is not None else np.empty(0)
    return float(finite[-1]) if len(finite) else float("nan")


def moment(seconds: Any) -> str:
    """Unix time as local date and time."""
    try:
        return datetime.fromtimestamp(float(seconds)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (TypeError, ValueError, OverflowError, OSError):
        return MISSING


def _plain(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return shlex.join(value)
    if isinstance(value, list) and all(isinstance(item, float) for item in value):
        return " / ".join(f"{item:g}" for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
