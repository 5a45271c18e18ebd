"""Numbers with their errors, settings and verdicts as small tables of text. No Streamlit, no physics."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from thermodl.analyze.results import STATUSES, read_verdicts

from .catalog import Run, settings_of
from .figures import ALL, group_names
from .series import read_series
from .text import MISSING, Text, number, quantity_title, with_error

# The numbers of each analysis worth a table, all by group or single.
NUMBERS = {
    "temperature": (
        "temperature_noise",
        "temperature_kinetic",
        "temperature_kinetic_drift_free",
        "temperature_variance",
        "kinetic_over_noise",
        "noise_trace",
        "gradient_norm_squared",
    ),
    "dissipation": ("gradient_dissipation", "descent_power", "noise_power", "descent_fraction"),
    "diffusion": (
        "diffusion_coefficient",
        "diffusion_coefficient_predicted",
        "diffusion_coefficient_sgd_time",
        "drift_velocity_squared",
        "sketch_relative_error",
    ),
    "correlation": ("loss_integrated_time", "parameter_integrated_time", "gradient_integrated_time"),
    "stationarity": ("fdr1_raw", "fdr1_centred", "identity_residual", "identity_floor"),
}
# The few that stand for a run: (analysis, variable).
HEADLINES = (
    ("temperature", "temperature_noise"),
    ("temperature", "temperature_kinetic"),
    ("diffusion", "diffusion_coefficient"),
    ("correlation", "loss_integrated_time"),
    ("correlation", "parameter_integrated_time"),
    ("stationarity", "fdr1_centred"),
)
STATES = {
    "running": Text("running", "运行中"),
    "finished": Text("finished", "已完成"),
    "stopped": Text("stopped by hand", "被中止"),
    "failed": Text("failed", "失败"),
    "silent": Text("silent", "无响应"),
    "broken": Text("unreadable", "无法读取"),
}
STATUS = {"ok": Text("ok", "可信"), "caution": Text("caution", "谨慎"), "untrusted": Text("untrusted", "不可信")}
STATUS_SIGNS = {"ok": "✓", "caution": "⚠", "untrusted": "✗"}

ANALYSIS_NAMES = {
    "temperature": Text("temperature", "有效温度"),
    "dissipation": Text("dissipation", "耗散率"),
    "diffusion": Text("diffusion", "扩散"),
    "correlation": Text("correlation", "自相关"),
    "stationarity": Text("stationarity", "平稳性"),
}
QUANTITY = Text("quantity", "物理量")
VALUE = Text("value", "数值")
VERDICT = Text("verdict", "判断")
SETTING = Text("setting", "设置项")
RUN = Text("run", "实验")
_START = Text("first step", "起始步")
_STOP = Text("end step", "结束步")
_STATIONARY = Text("stationary", "平稳")
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
            cells = _cells(data, name)
            rows.append([quantity_title(data[name].attrs, lang), *cells, *[MISSING] * (len(groups) - len(cells))])
    return pd.DataFrame(rows, columns=[QUANTITY(lang), *(ALL(lang) if name == "all" else name for name in groups)])


def _cells(data: xr.Dataset, name: str) -> list[str]:
    values = np.atleast_1d(data[name].values.astype(float))
    stderr = np.atleast_1d(data[f"{name}_stderr"].values.astype(float)) if f"{name}_stderr" in data else None
    errors = stderr if stderr is not None else np.full(len(values), np.nan)
    return [with_error(float(value), float(error)) for value, error in zip(values, errors, strict=True)]


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


def headlines(results: Mapping[str, xr.Dataset], lang: str) -> pd.DataFrame:
    """The numbers that stand for a run, for all layers together, each with the verdict on it."""
    rows = []
    for analysis, name in HEADLINES:
        data = results.get(analysis)
        if data is not None and name in data:
            title, cell = quantity_title(data[name].attrs, lang), _cells(data, name)[0]
            rows.append((title, cell, status_word(worst_status(data, name), lang)))
    return pd.DataFrame(rows, columns=[QUANTITY(lang), VALUE(lang), VERDICT(lang)])


def worst_status(data: xr.Dataset, name: str) -> str:
    """The worst verdict on one quantity; if none names it, the worst of the analysis."""
    verdicts = read_verdicts(data)
    own = [verdict for verdict in verdicts if verdict["quantity"] == name] or verdicts
    return max((verdict["status"] for verdict in own), key=STATUSES.index, default="ok")


def status_word(status: str, lang: str) -> str:
    """Sign and word, so that colour is never the only mark."""
    return f"{STATUS_SIGNS[status]} {STATUS[status](lang)}"


def settings(table: Mapping[str, Any], lang: str) -> pd.DataFrame:
    """Settings or provenance as two columns of text."""
    rows = [(key, _plain(value)) for key, value in table.items()]
    return pd.DataFrame(rows, columns=[SETTING(lang), VALUE(lang)])


def comparison(runs: Sequence[Run], lang: str, only_differences: bool = True) -> pd.DataFrame:
    """Settings side by side, one column per run; by default only those that differ."""
    tables = [settings_of(run.attributes) for run in runs]
    rows = []
    for key in dict.fromkeys(key for table in tables for key in table):
        cells = [_plain(table.get(key)) for table in tables]
        if not only_differences or len(set(cells)) > 1:
            rows.append([key, *cells])
    return pd.DataFrame(rows, columns=[SETTING(lang), *(run.id for run in runs)])


def runs(catalog: Iterable[Run], accuracies: Mapping[str, float], lang: str) -> pd.DataFrame:
    """One row per run, broken ones included."""
    return pd.DataFrame([_run_row(run, accuracies.get(run.id, float("nan")), lang) for run in catalog])


def _run_row(run: Run, accuracy: float, lang: str) -> dict[str, Any]:
    own = settings_of(run.attributes)
    facts = {"state": STATES.get(run.state, Text(run.state, run.state))(lang), "steps": run.steps}
    cells = {
        title(lang): facts.get(key, _plain(own.get(key, run.attributes.get(key)))) for key, title in _COLUMNS.items()
    }
    analyzed = [ANALYSIS_NAMES[name](lang) if name in ANALYSIS_NAMES else name for name in run.analyzed]
    return {
        RUN(lang): run.id,
        **cells,
        _ACCURACY(lang): f"{accuracy:.2%}" if np.isfinite(accuracy) else MISSING,
        _ANALYZED(lang): ("、" if lang == "zh" else ", ").join(analyzed) or MISSING,
        _CREATED(lang): moment(run.attributes.get("started")),
    }


def final_accuracy(run: Run) -> float:
    """Test accuracy of the last evaluation, or NaN."""
    series = None if run.broken else read_series(run.path, "test_accuracy")
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
    return f"{value:g}" if isinstance(value, float) else str(value)
