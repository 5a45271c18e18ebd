"""The page that composes a new recording: a command or a TOML file to copy. The viewer itself starts nothing."""

import math
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pandas as pd
import streamlit as st

from thermodl.record.forecast import Size
from thermodl.record.settings import (
    RecorderSettings,
    RunSettings,
    SettingsError,
    check_name,
    default_learning_rate,
    make_settings,
)
from thermodl.viewer import composition
from thermodl.viewer.composition import Forecast
from thermodl.viewer.pages import layout
from thermodl.viewer.pages.layout import Context
from thermodl.viewer.text import MISSING, Text, number

TITLE = Text("New recording", "新建记录")
QUESTION = Text("Which command records the run that I have in mind?", "用什么命令可以记录我设想的实验？")
EXPLANATION = Text(
    "Settings give a command and a settings file to copy, with the bytes that the recording would hold; this page "
    "starts nothing. Bytes are counted before compression, and times are those of an earlier run like this one: on "
    "another computer, or for a model that was never recorded, only --dry-run knows.",
    "由设置生成可复制的命令和设置文件，并给出记录将占用的字节数；本页不会启动任何程序。"
    "字节数为压缩前的值，用时取自此前的同类实验：换一台计算机，或模型从未记录过时，须用 --dry-run 实测。",
)
_FROM = Text("Start from", "初始设置")
_DEFAULTS = Text("defaults", "默认值")
_NAME = Text("Name of the run", "实验名称")
_TRAINING = Text("Training", "训练")
_RECORDING = Text("Recording", "记录")
_FORECAST = Text("What it would hold", "预计内容")
_COMMAND = Text("Command", "命令")
_FILE = Text("Settings file (TOML), for thermodl record FILE", "设置文件（TOML），用于 thermodl record FILE")
_WRONG = Text("These settings are not valid:", "设置无效：")
_CADENCE = Text(
    "A cadence is a number of steps (0: never), log:10 (about 10 per factor of ten), burst:8/200 (8 consecutive steps "
    "every 200), or steps with commas between.",
    "间隔可以是步数（0：从不）、log:10（每十倍约 10 次）、burst:8/200（每 200 步连续 8 步），或以逗号分隔的步号。",
)
_FIELDS = {
    "model": Text("model", "模型"),
    "data": Text("data", "数据"),
    "optimizer": Text("optimizer", "优化器"),
    "learning_rate": Text("learning rate η", "学习率 η"),
    "momentum": Text("momentum μ (SGD only)", "动量 μ（仅 SGD）"),
    "weight_decay": Text("weight decay", "权重衰减"),
    "batch_size": Text("batch size", "批量大小"),
    "sampling": Text("sampling", "采样方式"),
    "schedule": Text("learning rate over the run", "学习率调度"),
    "steps": Text("steps", "步数"),
    "seed": Text("seed", "随机种子"),
    "products_every": Text("inner products and sketches every", "内积与随机投影间隔"),
    "probe_every": Text("probe every", "探针间隔"),
    "curvature_every": Text("curvature every", "曲率间隔"),
    "per_sample_every": Text("single samples every", "单样本间隔"),
    "snapshot_every": Text("snapshot every", "快照间隔"),
    "evaluate_every": Text("evaluate every", "评估间隔"),
    "moments_window": Text("window of moments (0: none)", "矩的统计窗口（0：不记录）"),
    "sketch_size": Text("sketch size", "随机投影维数"),
    "max_overhead": Text("time limit, over training, such as 0.05", "记录的额外用时上限（占训练用时的比例），如 0.05"),
    "max_bytes": Text("size limit, such as 2GB", "大小上限，如 2GB"),
}
_CHOICES = {
    "model": ("cnn", "mlp", "resnet18", "resnet50", "vgg11_bn", "vit_b_16"),
    "data": ("fashion-mnist-10k", "fashion-mnist", "mnist", "cifar10", "cifar100"),
    "optimizer": ("SGD", "Adam", "AdamW", "RMSprop"),
    "sampling": ("shuffle", "replacement"),
    "schedule": ("constant", "cosine", "warmup-cosine", "step"),
}
_OWN = ("model", "data", "optimizer")
"""fields that take any text"""
_TRAINED = ("model", "data", "optimizer", "learning_rate", "momentum", "weight_decay", "batch_size", "sampling",
            "schedule", "steps", "seed", "evaluate_every")  # fmt: skip
_RECORDED = ("products_every", "probe_every", "curvature_every", "per_sample_every", "snapshot_every",
             "moments_window", "sketch_size", "max_overhead", "max_bytes")  # fmt: skip
_SIZE_UNKNOWN = Text(
    "Nothing here tells how large this model is. With its numbers the bytes can be counted:",
    "此处无从得知这个模型的大小。填入以下数值即可计算字节数：",
)
_SIZE = {
    "parameters": Text("parameters", "参数个数"),
    "layers": Text("layers (tensors)", "层数（张量数）"),
    "groups": Text("groups of layers", "层组数"),
}
_USUAL_SIZE = Size(11_000_000, 60, 10)
_LONGEST, _LARGEST = 200, 10**12
"""letters of an entry, and parameters of a model"""
_COLUMNS = {
    "channel": Text("channel", "通道"),
    "entries": Text("entries", "条数"),
    "each": Text("bytes each", "每条字节数"),
    "total": Text("bytes", "字节数"),
}
_CHANNELS = {
    "step": Text("step", "步"),
    "products": Text("inner products and sketches", "内积与随机投影"),
    "probe": Text("probe", "探针"),
    "curvature": Text("curvature", "曲率"),
    "per_sample": Text("single samples", "单样本"),
    "window": Text("window of moments", "矩的窗口"),
    "snapshot": Text("snapshot", "快照"),
    "evaluation": Text("evaluation", "评估"),
}
_TOTAL = Text(
    "{bytes} before compression; parameters: {parameters:,}, layers: {layers}, groups: {groups} ({source}).",
    "压缩前共 {bytes}；{parameters:,} 个参数，{layers} 层，{groups} 个层组（{source}）。",
)
_SOURCES = {
    "model": Text("of the built-in model", "内置模型"),
    "asked": Text("as given above", "按上面填写的数值"),
}
_AS_RECORDED = Text("as recorded in {run}", "取自 {run} 的记录")
_TIMES = Text(
    "It would take about {seconds}; recording makes it {overhead} longer than training alone: times as in {run}, on "
    "the computer that it ran on.",
    "预计用时约 {seconds}，与不记录相比增加 {overhead}；按 {run} 在当时所用计算机上的用时估算。",
)
_NO_TIMES = Text(
    "How long it takes is not known here: no run of the same model, data, batch size, optimizer and device is in this "
    "folder. This command tries some steps and tells, and writes nothing:",
    "此处无从得知用时：文件夹中没有模型、数据、批量大小、优化器和设备都相同的实验。下面的命令试跑若干步后给出用时，不写入任何内容：",
)
_THINNED = Text(
    "To stay within a limit, all channels but steps and inner products record fewer entries.",
    "超出上限时，除每步记录和内积外，其余通道会减少记录条数，以满足上限。",
)


def page(context: Context) -> None:
    """Draw the page."""
    lang = context.lang
    layout.heading(context, TITLE, QUESTION, EXPLANATION)
    bases = {
        run.id: given for run in context.runs.values() if not run.broken and (given := composition.settings_of(run))
    }
    typed = dict(parse_qsl(context.state.entries, keep_blank_values=True))
    left, right = st.columns(2)
    base = context.state.base if context.state.base in bases else ""
    st.session_state["new-base"] = base
    left.selectbox(
        _FROM(lang), ["", *bases], format_func=lambda run: run or _DEFAULTS(lang), key="new-base", on_change=_start_anew
    )
    name = _text_box(right, _NAME(lang), "name", "new", typed)
    given = bases[base] if base in bases else RunSettings()
    table = given.model_dump()
    if not base:
        table["learning_rate"] = default_learning_rate(typed.get("optimizer", given.optimizer))
    st.subheader(_TRAINING(lang), anchor=False)
    table |= _boxes(_TRAINED, table, typed, lang)
    st.subheader(_RECORDING(lang), anchor=False)
    table["recorder"] |= _boxes(_RECORDED, table["recorder"], typed, lang)
    layout.note(_CADENCE(lang))
    try:
        settings = make_settings(table)
        check_name(name)
    except SettingsError as error:
        layout.say(st.error, _WRONG(lang), str(error))
        return
    _forecast(context, settings, name)
    st.subheader(_COMMAND(lang), anchor=False)
    st.code(composition.command(settings, name, str(context.root)), language="bash", wrap_lines=True)
    st.subheader(_FILE(lang), anchor=False)
    st.code(composition.toml(settings, name), language="toml", wrap_lines=True)


def _boxes(names: tuple[str, ...], values: dict[str, Any], typed: dict[str, str], lang: str) -> dict[str, Any]:
    columns = st.columns(3)
    return {
        name: _box(columns[place % len(columns)], name, values[name], typed, lang) for place, name in enumerate(names)
    }


def _box(place: Any, name: str, value: Any, typed: dict[str, str], lang: str) -> Any:
    """One setting; what is not a plain number is read and judged with all others."""
    label, model = _FIELDS[name](lang), RunSettings if name in _TRAINED else RecorderSettings
    if name in _CHOICES:
        options = [value, *_CHOICES[name]]
        if typed.get(name) and (name in _OWN or typed[name] in options):
            options.append(typed[name])
        box = _seed(name, value, typed if typed.get(name) in options else {})
        place.selectbox(
            label, list(dict.fromkeys(options)), key=box, accept_new_options=name in _OWN, on_change=_keep,
            args=(box, name, value),
        )  # fmt: skip
        return st.session_state[box] or ""
    text = _text_box(place, label, name, composition.show_entry(value), typed).strip()
    if name in ("max_overhead", "max_bytes"):
        return text or None
    # The text of a number is checked with all else; a cadence may be a number or a schedule.
    return text if isinstance(model.model_fields[name].default, float) else composition.read_entry(text)


def _text_box(place: Any, label: str, name: str, value: str, typed: dict[str, str]) -> str:
    box = _seed(name, value, typed)
    return place.text_input(label, key=box, max_chars=_LONGEST, on_change=_keep, args=(box, name, value))


def _seed(name: str, value: str, typed: dict[str, str]) -> str:
    """The key of a box, which starts again from the view: Streamlit forgets a box with its page."""
    st.session_state[f"new-{name}"] = typed.get(name, value)[:_LONGEST]
    return f"new-{name}"


def _keep(box: str, name: str, value: str) -> None:
    """Keep in the view what differs from where it started."""
    typed = dict(parse_qsl(st.session_state["entries"], keep_blank_values=True))
    typed.pop(name, None)
    if (text := str(st.session_state[box] or "")) != value:
        typed[name] = text
    st.session_state["entries"] = urlencode(typed)


def _start_anew() -> None:
    """From another run, or from the defaults: what was typed belonged to the start before."""
    st.session_state["base"], st.session_state["entries"] = st.session_state["new-base"], ""


def _forecast(context: Context, settings: RunSettings, name: str) -> None:
    lang = context.lang
    st.subheader(_FORECAST(lang), anchor=False)
    forecast = composition.foretell(settings, context.runs.values())
    if forecast is None or forecast.size_from == "asked":
        layout.note(_SIZE_UNKNOWN(lang))
        asked = _asked_size(context)
        forecast = composition.foretell(settings, context.runs.values(), asked)
    if forecast is None:
        return
    layout.table(_entries(forecast, lang))
    source = _SOURCES.get(forecast.size_from, _AS_RECORDED.fill(run=forecast.size_from))(lang)
    layout.note(_TOTAL(lang).format(bytes=layout.size(forecast.bytes), source=source, **forecast.size._asdict()))
    if math.isfinite(forecast.seconds):
        took = {"seconds": _duration(forecast.seconds), "overhead": f"{forecast.overhead:.1%}"}
        layout.note(_TIMES(lang).format(run=forecast.times_from, **took))
    else:
        layout.note(_NO_TIMES(lang))
        dry = f"{composition.command(settings, name, str(context.root))} --dry-run"
        st.code(dry, language="bash", wrap_lines=True)
    if settings.recorder.max_bytes or settings.recorder.max_overhead:
        layout.note(_THINNED(lang))


def _asked_size(context: Context) -> Size:
    typed, numbers = dict(parse_qsl(context.state.entries)), []
    for place, (field, text) in zip(st.columns(3), _SIZE.items(), strict=True):
        name, standard = f"size_{field}", getattr(_USUAL_SIZE, field)
        box, number = f"new-{name}", typed.get(name, "")
        st.session_state[box] = min(max(int(number), 1), _LARGEST) if number.isdecimal() else standard
        place.number_input(
            text(context.lang), min_value=1, max_value=_LARGEST, step=1, key=box, on_change=_keep,
            args=(box, name, str(standard)),
        )  # fmt: skip
        numbers.append(int(st.session_state[box]))
    return Size(*numbers)


def _entries(forecast: Forecast, lang: str) -> pd.DataFrame:
    rows = [
        [_CHANNELS[name](lang), f"{count:,}", f"{forecast.bytes_each[name]:,}" if count else MISSING,
         layout.size(count * forecast.bytes_each[name]) if count else MISSING]
        for name, count in forecast.entries.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[text(lang) for text in _COLUMNS.values()])


def _duration(seconds: float) -> str:
    for unit, scale in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * scale:
            return f"{number(seconds / scale, 2 if seconds < 10 * scale else 3)} {unit}"
    return f"{number(seconds, 2)} s"
