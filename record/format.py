"""The run format: one Zarr v3 group per run, written once, readable with plain zarr or xarray.

A run is the folder `runs/<name>/`; its recording is the group `run.zarr` inside. Every array has named dimensions
with the growing one (`step`, `probe`, `curvature`, `per_sample`, `window`, `snapshot`, `evaluation`) last, so that a
time series is contiguous. Missing values are NaN (-1 for integers). The commit protocol:

1. the writer grows the arrays ahead of the data,
2. a flush writes whole chunks, each with its checksum and replaced atomically by the file system,
3. then the root attribute `committed` says how many entries of each growing dimension are complete.

Whatever lies beyond `committed` may be half written, and is never shown. `writer` writes runs, `store` reads them.
`docs/format.md` is the specification, and a test holds it against the table `ARRAYS`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zarr

from .schedule import due_stretches

FORMAT = "thermodl-run"
FORMAT_VERSION = 1
CHECKPOINT = "checkpoint.pt"
"""beside `run.zarr`; what `thermodl record --resume` goes on from"""
GROWING = ("step", "probe", "curvature", "per_sample", "window", "snapshot", "evaluation")
MIN_STEPS = 64
"""fewest steps that are analyzed"""
ALL_GROUPS = "all"
"""what analyses call all layers together; no group of layers has this name"""
OTHER_GROUPS = "other"
"""the group of the layers that are beyond the most groups that there may be"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""of an array, of results"""
_RUN_NAME = re.compile(r"[^\W_][^/\\:*?\"<>|]{0,127}")
RUN_NAMES = (
    'a letter or digit, then anything but / \\ : * ? " < > |, in 128 characters, without a space or dot at the end'
)
"""in words, what names runs may have"""
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
_DEVICES |= {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"}


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested attributes as one table: `{"seed": 0, "recorder.probe_every": 50}`."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def is_run_name(text: str) -> bool:
    """Whether it names a run folder: a file name on any system, in any language, that is neither hidden nor a path."""
    named = _RUN_NAME.fullmatch(text) and text.isprintable() and len(text.encode()) < 256
    return bool(named) and is_file_name(text)


def is_file_name(text: str) -> bool:
    """Whether the part of a path is a file name on every system: no device, no space or dot at its end."""
    return bool(text) and text.partition(".")[0].rstrip().lower() not in _DEVICES and not text.endswith((" ", "."))


@dataclass(frozen=True)
class Array:
    """One array of the format: its name, named dimensions (the growing one last), type, unit and description."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    long_name_zh: str


def _per_step(name: str, units: str, en: str, zh: str) -> Array:
    return Array(name, ("step",), "f8", units, en, zh)


def _per_layer(name: str, units: str, en: str, zh: str) -> Array:
    return Array(name, ("layer", "step"), "f8", units, en, zh)


def _hyperparameter(name: str, units: str, en: str, zh: str) -> Array:
    return Array(name, ("optimizer_group", "step"), "f8", units, en, zh)


# θ parameters before the step, g gradient that the optimizer used, v velocity before the step, Δθ the update.
# Units: `loss` for the loss and `parameter` for θ; a learning rate has parameter²/loss.
ARRAYS = (
    Array("step", ("step",), "i8", "step", "optimizer step", "优化步"),
    _per_step("sgd_time", "parameter2 loss-1", "SGD time Σ η(1−ν)/(1−μ)", "SGD 时间 Σ η(1−ν)/(1−μ)"),
    Array("epoch", ("step",), "i8", "1", "epoch", "轮次"),
    _per_step("epoch_position", "1", "position within the epoch", "轮次内位置"),
    _per_step("wall_time", "s", "wall time since the start of the recording", "自记录开始的时间"),
    _per_step("loss", "loss", "mini-batch loss", "小批量损失"),
    _per_step("clip_factor", "1", "factor applied by gradient clipping", "梯度裁剪因子"),
    _per_step("skipped", "1", "steps tried and not made before this one", "此步之前尝试而未执行的步数"),
    _hyperparameter("learning_rate", "parameter2 loss-1", "learning rate η", "学习率 η"),
    _hyperparameter("momentum", "1", "momentum μ", "动量 μ"),
    _hyperparameter("dampening", "1", "dampening ν", "阻尼系数 ν"),
    _hyperparameter("weight_decay", "loss parameter-2", "weight decay", "权重衰减"),
    Array(
        "layer_skipped",
        ("layer", "step"),
        "i1",
        "1",
        "1 where the step left the layer alone, which had no gradient",
        "该步没有更新该层（没有梯度）时为 1",
    ),
    _per_layer("gradient_squared", "loss2 parameter-2", "squared gradient norm ‖g‖²", "梯度范数平方 ‖g‖²"),
    _per_layer("parameter_dot_gradient", "loss", "θ·g", "θ·g"),
    _per_layer("parameter_squared", "parameter2", "squared parameter norm ‖θ‖²", "参数范数平方 ‖θ‖²"),
    _per_layer("displacement_squared", "parameter2", "squared displacement ‖θ−θ_ref‖²", "位移平方 ‖θ−θ_ref‖²"),
    _per_layer("displacement_dot_gradient", "loss", "(θ−θ_ref)·g", "(θ−θ_ref)·g"),
    _per_layer("velocity_squared", "loss2 parameter-2", "squared velocity ‖v‖² before the step", "步前速度平方 ‖v‖²"),
    _per_layer("velocity_dot_gradient", "loss2 parameter-2", "v·g, velocity before the step", "v·g（步前速度）"),
    _per_layer("parameter_dot_velocity", "loss", "θ·v, velocity before the step", "θ·v（步前速度）"),
    _per_layer("update_squared", "parameter2", "squared update ‖Δθ‖²", "更新量平方 ‖Δθ‖²"),
    Array("parameter_sketch", ("group", "sketch", "step"), "f8", "parameter", "P(θ−θ_ref)", "P(θ−θ_ref)"),
    Array("gradient_sketch", ("group", "sketch", "step"), "f4", "loss parameter-1", "Pg", "Pg"),
    _per_layer("chunk_noise_trace", "loss2 parameter-2", "tr C from micro-batches", "由微批次得到的 tr C"),
    _per_step("chunk_count", "1", "micro-batches K of the step", "该步的微批次数 K"),
    Array("probe_step", ("probe",), "i8", "step", "step of the probe", "探针所在步"),
    Array("probe_loss", ("probe",), "f8", "loss", "loss of the probe batch", "探针批次损失"),
    Array("noise_trace", ("layer", "probe"), "f8", "loss2 parameter-2", "½‖g−g′‖²", "½‖g−g′‖²"),
    Array("gradient_dot", ("layer", "probe"), "f8", "loss2 parameter-2", "g·g′", "g·g′"),
    Array("probe_dot_displacement", ("layer", "probe"), "f8", "loss", "g′·(θ−θ_ref)", "g′·(θ−θ_ref)"),
    Array("probe_sketch", ("group", "sketch", "probe"), "f4", "loss parameter-1", "Pg′", "Pg′"),
    Array("curvature_step", ("curvature",), "i8", "step", "step of the curvature", "曲率所在步"),
    Array(
        "velocity_curvature",
        ("layer", "curvature"),
        "f8",
        "loss3 parameter-4",
        "v·(Hv) of the layer, velocity before the step",
        "该层的 v·(Hv)（步前速度）",
    ),
    Array("per_sample_step", ("per_sample",), "i8", "step", "step of the single samples", "单样本测量所在步"),
    Array("per_sample_count", ("per_sample",), "i8", "1", "number of single samples", "单样本个数"),
    Array(
        "per_sample_noise_trace",
        ("layer", "per_sample"),
        "f8",
        "loss2 parameter-2",
        "trace of the covariance of a single sample's gradient",
        "单样本梯度协方差的迹",
    ),
    Array("window_start", ("window",), "i8", "step", "first step of the window", "窗口起始步"),
    Array("window_stop", ("window",), "i8", "step", "end step of the window", "窗口结束步"),
    Array(
        "gradient_mean",
        ("parameter", "window"),
        "f4",
        "loss parameter-1",
        "mean of g over the window",
        "窗口内 g 的均值",
    ),
    Array(
        "gradient_second_moment",
        ("parameter", "window"),
        "f4",
        "loss2 parameter-2",
        "mean of g² over the window",
        "窗口内 g² 的均值",
    ),
    Array("snapshot_step", ("snapshot",), "i8", "step", "step of the snapshot", "快照所在步"),
    Array("parameters", ("parameter", "snapshot"), "f4", "parameter", "parameters θ", "参数 θ"),
    Array("parameters_code", ("parameter", "snapshot"), "u4", "1", "coded parameters", "编码的参数"),
    Array("snapshot_quantum", ("layer", "snapshot"), "f8", "parameter", "quantum of the code", "编码的量子"),
    Array("snapshot_error", ("layer", "snapshot"), "f4", "1", "rms error per rms displacement", "误差与位移之比"),
    Array("evaluation_step", ("evaluation",), "i8", "step", "step of the evaluation", "评估所在步"),
    Array("train_loss", ("evaluation",), "f8", "loss", "training loss", "训练损失"),
    Array("train_accuracy", ("evaluation",), "f8", "1", "training accuracy", "训练准确率"),
    Array("test_loss", ("evaluation",), "f8", "loss", "test loss", "测试损失"),
    Array("test_accuracy", ("evaluation",), "f8", "1", "test accuracy", "测试准确率"),
    Array("initial_parameters", ("parameter",), "f4", "parameter", "parameters θ_ref at the start", "初始参数 θ_ref"),
    Array("final_parameters", ("parameter",), "f4", "parameter", "parameters at the end", "最终参数"),
)
BY_NAME = {array.name: array for array in ARRAYS}
UNITS_OF_SGD = ("learning_rate", "weight_decay")
"""arrays that have no unit where another optimizer decides what it is"""
SETTINGS_OF_SGD = ("momentum", "dampening", "nesterov")
"""settings that another optimizer of the built-in training does not get"""
RESERVED = {dim for array in ARRAYS for dim in array.dims} | {"layer_group", "layer_size", "layer_optimizer_group"}
RESERVED |= {"initial_parameters", "final_parameters", "zarr.json"}
"""names that cannot be logged: dimensions and coordinates of an opened run, and what lies beside the arrays"""


def steps_as_sgd(attributes: Mapping[str, Any]) -> bool:
    """Whether the optimizer makes the step of torch's SGD, by whatever name; early recordings have the name alone."""
    optimizer = attributes.get("optimizer", {})
    return optimizer.get("rule", optimizer.get("class")) == "SGD"


def measured_stretches(attributes: Mapping[str, Any], steps: int) -> list[tuple[int, int]]:
    """Stretches [start, stop) of consecutive steps whose inner products and sketches were due, of the first `steps`.

    Nothing may be computed across the gaps between them, where these arrays are NaN.
    """
    return due_stretches(attributes.get("recorder", {}).get("products_every", 1), steps)


def growing_dimension(name: str) -> str | None:
    """The growing dimension of an array of the format; None for names that the format does not know."""
    return BY_NAME[name].dims[-1] if name in BY_NAME else None


def growing_dimension_of(array: zarr.Array) -> str | None:
    """The growing dimension of a stored array, by the names that it carries; None if it has none."""
    names: tuple[str, ...] = getattr(array.metadata, "dimension_names", None) or ("",)
    return names[-1] if names[-1] in GROWING else None
