"""Runs and results made up in the format that the other stages write: smooth curves, honest-looking error bars."""

import json
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import xarray as xr

from thermodl.analyze import versions
from thermodl.analyze.results import write_results
from thermodl.record.store import read_attributes
from thermodl.record.writer import RunWriter

GROUPS = ["conv1", "conv2", "fc1", "fc2"]
ALL_GROUPS = ["all", *GROUPS]
STEPS = 3000
CREATED = "2026-11-24T04:00:00+00:00"

TITLES = {
    "temperature": ("Temperature", "有效温度"),
    "dissipation": ("Dissipation", "耗散率"),
    "noise": ("Gradient noise", "梯度噪声"),
    "entropy_production": ("Entropy production", "熵产生"),
    "flatness": ("Flatness", "平坦度"),
    "events": ("Events", "突变事件"),
    "diffusion": ("Diffusion", "扩散"),
    "ageing": ("Ageing", "老化"),
    "correlation": ("Correlation", "自相关"),
    "response": ("FDT", "涨落耗散定理"),
    "stationarity": ("Stationarity", "平稳性"),
}
FORMULAS = {
    "temperature": r"T_\mathrm{noise} = \frac{\eta\,\mathrm{tr}\,C}{2 N (1-\mu)}",
    "dissipation": r"\dot W = \eta\,\lVert g\rVert^2",
    "noise": r"\mathrm{tr}\,C = \tfrac12\langle\lVert g-g'\rVert^2\rangle",
    "entropy_production": r"q=(1-\mu)(T_\mathrm{kin}-T_\mathrm{noise})",
    "flatness": r"\sigma_u^2\propto F_u^{-\psi}\qquad\lambda_u=\frac{\langle\theta_u g_u\rangle}{\sigma_u^2}",
    "events": r"z(t)=\hat\Delta(t)/\sigma",
    "diffusion": r"\Delta(\tau) = \langle \lVert\theta_{t+\tau}-\theta_t\rVert^2\rangle / N",
    "ageing": r"\Delta(t_w,t_w+\tau)=\frac1P\|\theta_{t_w+\tau}-\theta_{t_w}\|^2",
    "correlation": r"\tau_\mathrm{int} = \tfrac12 + \sum_{k\ge 1}\rho(k)",
    "response": r"\mathcal R(\tau) = -\langle(\theta_{s+\tau}-\theta_s)\cdot\xi_s\rangle",
    "stationarity": r"\langle\theta\cdot g\rangle = \tfrac{\eta}{2}\tfrac{1+\mu}{1-\mu}\langle\lVert g\rVert^2\rangle",
}


def write_run(
    folder: Path,
    *,
    steps: int = STEPS,
    state: str = "finished",
    learning_rate: float = 0.05,
    sampling: str = "shuffle",
    last_commit: float | None = None,
    seed: int = 0,
) -> Path:
    """Write a recording; `last_commit` (Unix time) makes an unfinished one look old."""
    layers = [
        {"name": f"{group}.{part}", "group": group, "size": size, "optimizer_group": 0}
        for group, large in zip(GROUPS, (80, 1200, 50000, 640), strict=True)
        for part, size in (("weight", large), ("bias", 16))
    ]
    settings = {
        "model": "cnn",
        "data": "fashion-mnist-10k",
        "steps": STEPS,
        "batch_size": 64,
        "sampling": sampling,
        "optimizer": "SGD",
        "learning_rate": learning_rate,
        "momentum": 0.9,
        "seed": seed,
        "recorder": {"probe_every": 50, "sketch_size": 256},
    }
    provenance = {"command": f"thermodl record --learning-rate {learning_rate}", "python": "3.11", "torch": "2.6",
                  "git_commit": "0123456789abcdef", "git_dirty": False}  # fmt: skip
    attributes = {"run_id": f"{seed:016x}", "settings": settings, "provenance": provenance, "layers": layers,
                  "groups": GROUPS, "sampling": sampling}  # fmt: skip
    sizes = {"layer": len(layers), "group": len(GROUPS), "optimizer_group": 1, "sketch": 4, "parameter": 8}
    names = ["step", "sgd_time", "epoch", "epoch_position", "wall_time", "loss", "learning_rate", "momentum",
             "gradient_squared", "displacement_squared", "probe_step", "noise_trace", "evaluation_step", "train_loss",
             "test_loss", "train_accuracy", "test_accuracy"]  # fmt: skip
    writer = RunWriter(folder, sizes, names, attributes)
    _append_steps(writer, steps, learning_rate, len(layers), np.random.default_rng(seed))
    if state != "running":
        writer.close(state)
    if last_commit is not None:
        _set_attribute(folder, "last_commit", last_commit)
    return folder


def _append_steps(writer: RunWriter, steps: int, rate: float, layers: int, rng: np.random.Generator) -> None:
    step = np.arange(steps)
    loss = 0.35 + 2 * np.exp(-step / 250) + 0.12 * rng.standard_normal(steps) * np.exp(-step / 4000)
    loss[steps // 2 : steps // 2 + 3] = np.nan
    if steps:
        writer.append(
            "step",
            {
                "step": step,
                "sgd_time": rate * 10 * step.astype(float),
                "epoch": step // 156,
                "epoch_position": step % 156 / 156,
                "wall_time": 0.02 * step,
                "loss": loss,
                "learning_rate": np.full((1, steps), rate),
                "momentum": np.full((1, steps), 0.9),
                "gradient_squared": rng.gamma(2.0, 0.1, (layers, steps)),
                "displacement_squared": np.arange(1, layers + 1)[:, None] * (1 - np.exp(-step / 500)),
            },
        )
        probes = np.arange(0, steps, 50)
        noise = rng.gamma(2.0, 0.1, (layers, len(probes)))
        writer.append("probe", {"probe_step": probes, "noise_trace": noise})
    at = np.arange(0, steps, 200)
    if len(at):
        curve = 0.35 + 1.9 * np.exp(-at / 300)
        accuracy = 0.91 - 0.75 * np.exp(-at / 300)
        writer.append("evaluation", {"evaluation_step": at, "train_loss": curve, "test_loss": curve + 0.06,
                                     "train_accuracy": accuracy, "test_accuracy": accuracy - 0.02})  # fmt: skip


def _set_attribute(folder: Path, name: str, value: float) -> None:
    metadata = folder / "run.zarr" / "zarr.json"
    content = json.loads(metadata.read_bytes())
    content["attributes"][name] = value
    metadata.write_text(json.dumps(content))


def write_all_results(
    folder: Path,
    sampling: str = "shuffle",
    seed: int = 0,
    name: str = "default",
    only: Collection[str] = tuple(versions.ANALYSES),
) -> Path:
    """Write the analyses of a run, or some of them, under a settings name."""
    recorded = read_attributes(folder)
    rng = np.random.default_rng(seed)
    makers = {
        "temperature": _temperature,
        "dissipation": _dissipation,
        "noise": _noise,
        "diffusion": _diffusion,
        "correlation": _correlation,
        "response": _response,
        "stationarity": _stationarity,
        "ageing": _ageing,
        "entropy_production": _entropy_production,
        "flatness": _flatness,
        "events": _events,
    }
    for analysis, make in makers.items():
        data = make(rng, 156.0 if sampling == "shuffle" else np.nan) if analysis == "diffusion" else make(rng)
        data.attrs = _dataset_attributes(analysis) | {
            "analysis_version": versions.ANALYSES[analysis],
            "kernels_version": versions.KERNELS,
            "run_id": recorded["run_id"],
            "started": recorded["started"],
            "committed_steps": recorded["committed"]["step"],
        }
        if analysis in only:
            write_results(folder, name, analysis, data)
    return folder


def _dataset_attributes(name: str) -> dict[str, object]:
    verdicts = {
        "temperature": [
            ("temperature_noise", "ok", "resolved", "resolved to 3 %", "已分辨到 3 %"),
            ("temperature_kinetic", "caution", "drift", "part of the kinetic temperature is drift",
             "动能温度中含有漂移的贡献"),
        ],
        "diffusion": [("diffusion_coefficient", "untrusted", "sampler-limited",
                       "beyond one epoch the sampler, not the noise, limits the displacement",
                       "超过一轮后，限制位移的是采样方式而不是噪声")],
        "stationarity": [("", "caution", "short", "the steady state covers few correlation times",
                          "稳态只覆盖少数几个相关时间")],
    }.get(name, [("", "ok", "resolved", "enough independent samples", "独立样本足够多"),])  # fmt: skip
    keys = ("quantity", "status", "code", "en", "zh")
    return {
        "analysis": name,
        "segment": [1000, STEPS],
        "segment_stationary": 1,
        "settings": '{"segment": "auto", "windows": 32}',
        "method": "Time averages over the segment; errors by the Γ-method with Student's t.",
        "reference": "U. Wolff, Comput. Phys. Commun. 156, 143 (2004); S. Yaida, arXiv:1810.00004.",
        "verdicts": json.dumps([dict(zip(keys, verdict, strict=True)) for verdict in verdicts], ensure_ascii=False),
        "title": TITLES[name][0],
        "title_zh": TITLES[name][1],
        "formula": FORMULAS[name],
        "explanation": "This is the quantity of the formula, averaged over the stationary segment with error bars from "
        "the autocorrelation of the series. Do not trust it where the verdict says that the training still drifts.",
        "explanation_zh": "图中是上式给出的量，在平稳段上做时间平均，"
        "误差由序列的自相关得到。若判定栏指出训练仍在漂移，则不可采信。",
        "thermodl_version": "0.1.0",
        "created": CREATED,
        "cache_key": "0" * 16,
    }


def write_undefined(folder: Path, analysis: str, en: str, zh: str) -> None:
    """Write that an analysis is not defined for a run."""
    verdicts = [{"quantity": "", "status": "untrusted", "code": "not-defined", "en": en, "zh": zh}]
    attributes = {
        key: value for key, value in _dataset_attributes(analysis).items() if key not in ("segment", "cache_key")
    }
    text = json.dumps(verdicts, ensure_ascii=False)
    write_results(folder, "default", analysis, xr.Dataset(attrs=attributes | {"verdicts": text, "defined": False}))


def _variable(dims, values, units, en, zh, stderr=None):
    """{"": value, "_stderr": its error} with attributes."""
    attrs = {"units": units, "long_name": en, "long_name_zh": zh}
    parts = {"": (dims, values, attrs)}
    if stderr is not None:
        parts["_stderr"] = (
            dims,
            stderr,
            {**attrs, "long_name": f"standard error of {en}", "long_name_zh": f"{zh}的标准误"},
        )
    return parts


def _dataset(variables: dict[str, dict], coords: dict) -> xr.Dataset:
    flat = {f"{name}{suffix}": part for name, parts in variables.items() for suffix, part in parts.items()}
    return xr.Dataset(flat, coords={"group": np.array(ALL_GROUPS, dtype=object), **coords})


def _windows() -> dict:
    centre = np.arange(50.0, STEPS, 100.0)
    return {"window_step": ("window", centre), "window_sgd_time": ("window", 0.5 * centre)}


def _with_time(rng, name, level, units, en, zh, decay=1.0):
    """A quantity by group, and the same over time."""
    windows = np.arange(50.0, STEPS, 100.0)
    by_group = level * np.linspace(0.7, 1.5, len(ALL_GROUPS))
    shape = 1 + decay * np.exp(-windows / 400)
    over_time = by_group[:, None] * shape * (1 + 0.05 * rng.standard_normal((len(ALL_GROUPS), len(windows))))
    over_time[:, 4] = np.nan
    return {
        name: _variable(("group",), by_group, units, en, zh, 0.03 * by_group),
        f"{name}_over_time": _variable(("group", "window"), over_time, units, en, zh, 0.06 * np.abs(over_time)),
    }


def _temperature(rng) -> xr.Dataset:
    names = (
        ("temperature_noise", 2.1e-5, "noise temperature", "噪声温度"),
        ("temperature_kinetic", 2.6e-5, "kinetic temperature", "动能温度"),
        ("temperature_kinetic_drift_free", 2.2e-5, "kinetic temperature without drift", "去漂移动能温度"),
        ("temperature_variance", 4.0e-5, "η·Var(g)/2 over time", "η·Var(g)/2（对时间取方差）"),
    )
    variables: dict[str, dict] = {}
    for name, level, en, zh in names:
        variables |= _with_time(rng, name, level, "loss", en, zh)
    ones = np.ones(len(ALL_GROUPS))
    variables["kinetic_over_noise"] = _variable(
        ("group",), 1.08 * ones, "1", "kinetic over noise temperature", "动能温度与噪声温度之比", 0.04 * ones
    )
    variables["noise_trace"] = _variable(
        ("group",), 0.5 * ones, "loss2 parameter-2", "noise trace tr C", "噪声迹 tr C", 0.01 * ones
    )
    squared = np.array([0.02, -0.001, 0.01, np.nan, 0.005])
    variables["gradient_norm_squared"] = _variable(("group",), squared, "loss2 parameter-2", "squared mean gradient",
                                                   "平均梯度的平方", 0.004 * ones)  # fmt: skip
    return _dataset(variables, _windows())


def _dissipation(rng) -> xr.Dataset:
    variables: dict[str, dict] = {}
    for name, level, en, zh in (
        ("gradient_dissipation", 0.02, "dissipation rate η‖g‖²", "耗散率 η‖g‖²"),
        ("descent_power", 0.008, "descent power", "下降功率"),
        ("noise_power", 0.012, "noise power", "噪声功率"),
    ):
        variables |= _with_time(rng, name, level, "loss step-1", en, zh, 3.0)
    ones = np.ones(len(ALL_GROUPS))
    variables["descent_fraction"] = _variable(("group",), 0.4 * ones, "1", "descent fraction", "下降占比", 0.02 * ones)
    return _dataset(variables, _windows())


def _noise(rng) -> xr.Dataset:
    squared, variables = "loss2 parameter-2", {}
    for name, level, units, en, zh in (
        ("noise_trace", 0.5, squared, "noise trace tr C", "噪声迹 tr C"),
        ("gradient_norm_squared", 0.02, squared, "squared mean gradient", "平均梯度的平方"),
        ("signal_to_noise", 0.04, "1", "signal to noise", "信噪比"),
        ("simple_noise_scale", 1600.0, "1", "simple noise scale", "简单噪声尺度"),
    ):
        variables |= _with_time(rng, name, level, units, en, zh)
    ones = np.ones(len(ALL_GROUPS))
    variables["effective_dimension"] = _variable(
        ("group",), 20 * ones, "1", "directions of the noise", "噪声的有效维数", 2 * ones
    )
    frequency = np.geomspace(1e-3, 0.5, 12)
    spectrum = np.ones((len(ALL_GROUPS), 12)) * np.minimum(frequency / 0.01, 1.0)
    variables["noise_spectrum"] = _variable(
        ("group", "frequency"), spectrum, "1", "spectrum of the noise", "噪声谱", 0.1 * spectrum
    )
    variables["noise_spectrum_shuffled"] = _variable(
        ("frequency",), spectrum[0], "1", "spectrum of shuffled epochs", "打乱采样时的噪声谱"
    )
    return _dataset(variables, _windows() | {"frequency": frequency})


def _entropy_production(rng) -> xr.Dataset:
    ones = np.ones(len(ALL_GROUPS))
    variables = _with_time(rng, "heat", 1e-4, "loss step-1", "heat released into the group", "释放到该组的热量")
    for name, level, units, en, zh in (
        ("heat_direct", 1e-4, "loss step-1", "heat, direct form", "热量（直接形式）"),
        ("entropy_production", 0.02, "nat step-1", "entropy production, lower bound", "熵产生（下界）"),
        ("entropy_production_bias", 0.004, "nat step-1", "what chance makes of it", "纯随机涨落的贡献"),
        ("cycling_frequency", 0.03, "step-1", "fastest cycling frequency", "最快的循环频率"),
        ("cycling_frequency_null", 0.01, "step-1", "cycling in equilibrium", "平衡态的循环频率"),
    ):
        variables[name] = _variable(("group",), level * ones, units, en, zh, 0.1 * level * ones)
    modes, layers = 3, [f"{group}.{part}" for group in GROUPS for part in ("weight", "bias")]
    turning = 1e-3 * np.sign(np.subtract.outer(np.arange(modes), np.arange(modes))) * np.ones((len(ALL_GROUPS), 1, 1))
    # One group moves along fewer directions.
    turning[-1, :, 2] = turning[-1, 2, :] = np.nan
    heat = rng.standard_normal((len(ALL_GROUPS), modes))
    variables |= {
        "heat_of_layer": _variable(("layer",), 1e-5 * rng.standard_normal(len(layers)), "loss step-1",
                                   "heat of the layer", "各层的热量", 1e-6 * np.ones(len(layers))),
        "mode_heat": _variable(("group", "mode"), heat, "step-1", "heat of the direction over its temperature",
                               "该方向的热量与温度之比", np.abs(heat)),
        "circulation": _variable(("group", "mode", "other_mode"), turning, "step-1", "circulation between directions",
                                 "方向之间的环流", 1e-4 * np.abs(turning)),
    }  # fmt: skip
    numbers = np.arange(1, modes + 1)
    return _dataset(variables, _windows() | {"layer": layers, "mode": numbers, "other_mode": numbers})


def _flatness(rng) -> xr.Dataset:
    groups, modes = len(ALL_GROUPS), 8
    curvature = np.geomspace(2, 0.01, modes) * np.exp(0.1 * rng.standard_normal((groups, modes)))
    # One direction is not resolved, and one group has fewer directions.
    curvature[:, -1] = -0.001
    curvature[-1, 4:] = np.nan
    variance, moved = 1e-4 * np.abs(curvature), np.where(np.isnan(curvature), np.nan, 1.0)
    variables = {
        name: _variable(("group", "mode"), values, units, en, zh, error)
        for name, values, units, en, zh, error in (
            ("mode_variance", variance, "parameter2", "variance along the direction", "沿该方向的方差", 0.1 * variance),
            ("curvature", curvature, "loss parameter-2", "effective curvature λ", "有效曲率 λ", 0.01 * moved),
            ("curvature_gradient", curvature, "loss parameter-2", "curvature of the steps", "各步的曲率", 0.01 * moved),
            ("mode_noise", curvature**2, "loss2 parameter-2", "gradient noise C", "梯度噪声 C", 0.05 * curvature**2),
            ("variance_iid", variance, "parameter2", "expected of independent batches", "独立批次的预期", None),
            ("variance_epoch", variance / 2, "parameter2", "expected of epochs", "打乱采样的预期", None),
            ("variance_walk", variance * 3, "parameter2", "expected of a random walk", "随机行走的预期", None),
            ("relaxations", 100 * curvature, "1", "relaxation times in the window", "弛豫时间数", None),
            ("cosine_content", 0.1 * moved, "1", "cosine content", "余弦含量", None),
            ("mode_variance_fraction", 0.1 * moved, "1", "fraction of the variance", "方差比例", None),
            ("variance_fraction_walk", 0.1 * moved, "1", "fraction in a random walk", "随机行走中的比例", None),
            ("mode_used", np.where(curvature > 0.02, moved, 0 * moved), "1", "used", "参与拟合", None),
        )
    }
    with np.errstate(invalid="ignore"):
        flat = np.where(curvature > 0, curvature, np.nan) ** -0.5
    variables["flatness"] = _variable(
        ("group", "mode"), flat, "parameter loss-1/2", "flatness F", "平坦度 F", 0.05 * flat
    )
    for name, level, en, zh in (
        ("flatness_exponent", 2.1, "exponent ψ", "指数 ψ"),
        ("noise_exponent", 2.0, "exponent a", "指数 a"),
        ("exponent_iid", 2.0, "ψ of independent batches", "独立批次的 ψ"),
        ("exponent_epoch", 4.0, "ψ of epochs", "打乱采样的 ψ"),
    ):
        variables[name] = _variable(("group",), np.full(groups, level), "1", en, zh, np.full(groups, 0.1))
    dataset = _dataset(variables, _windows())
    return dataset.assign_coords(mode=np.arange(1, modes + 1))


def _diffusion(rng, steps_per_epoch: float) -> xr.Dataset:
    lag = np.unique(np.geomspace(1, 1000, 40).astype(int))
    scale = np.linspace(0.6, 1.6, len(ALL_GROUPS))[:, None]
    predicted = 2e-8 * scale * (lag - 5 * (1 - np.exp(-lag / 10)))
    measured = predicted * (1 + 0.02 * rng.standard_normal(predicted.shape)) / (1 + lag / 2000)
    squared = ("group", "lag")
    waiting = np.array([0, 250, 500, 1000, 2000])
    two_time = measured[:, None, :] * (1 + 2 * np.exp(-waiting / 400))[None, :, None]
    two_time[:, -1, -3:] = np.nan
    coefficient, ones = 1e-8 * scale[:, 0], np.ones(len(ALL_GROUPS))
    variables = {
        "mean_squared_displacement": _variable(
            squared, measured, "parameter2", "mean squared displacement", "均方位移", 0.1 * measured
        ),
        "detrended_mean_squared_displacement": _variable(
            squared,
            0.9 * measured,
            "parameter2",
            "detrended mean squared displacement",
            "去趋势均方位移",
            0.1 * measured,
        ),
        "predicted_mean_squared_displacement": _variable(
            squared, predicted, "parameter2", "free diffusion, predicted", "自由扩散预测值"
        ),
        "local_exponent": _variable(
            squared,
            1 + 0.1 * np.sin(np.log(lag)) * scale,
            "1",
            "local exponent α",
            "局部指数 α",
            0.05 * np.ones_like(measured),
        ),
        "two_time_mean_squared_displacement": _variable(
            ("group", "waiting_time", "lag"),
            two_time,
            "parameter2",
            "two-time mean squared displacement",
            "双时均方位移",
            0.1 * two_time,
        ),
        "diffusion_coefficient": _variable(
            ("group",), coefficient, "parameter2 step-1", "diffusion coefficient D", "扩散系数 D", 0.05 * coefficient
        ),
        "diffusion_coefficient_predicted": _variable(
            ("group",), 1.1 * coefficient, "parameter2 step-1", "predicted D", "预测的 D", 0.03 * coefficient
        ),
        "diffusion_coefficient_sgd_time": _variable(
            ("group",), 2 * coefficient, "loss", "D in SGD time", "以 SGD 时间计的 D", 0.1 * coefficient
        ),
        "drift_velocity_squared": _variable(
            ("group",), 1e-13 * ones, "parameter2 step-2", "squared drift velocity", "漂移速度平方"
        ),
        "sketch_relative_error": _variable(
            ("group",), 0.06 * ones, "1", "relative error of the sketch", "随机投影的相对误差"
        ),
        "steps_per_epoch": _variable((), steps_per_epoch, "step", "steps per epoch", "每轮步数"),
    }
    return _dataset(variables, {"lag": lag, "lag_sgd_time": ("lag", 0.5 * lag), "waiting_time": waiting})


def _ageing(rng) -> xr.Dataset:
    groups, octaves = len(ALL_GROUPS), 8
    waiting = np.array([50, 200, 800, 1500])
    lag = 10.0 * 2.0 ** np.arange(octaves) * np.ones((groups, 1))
    curves, variables = ("group", "waiting_time", "octave"), {}
    for clock, en, zh, unit in (
        ("steps", "steps", "步数", "step"),
        ("noise_time", "noise time", "噪声时间", "parameter2"),
    ):
        moved = 1e-8 * lag[:, None, :] * (1 + 0.1 * rng.standard_normal((groups, len(waiting), octaves)))
        moved[:, -1, -1] = np.nan
        variables[f"lag_on_{clock}"] = _variable(("group", "octave"), lag, unit, f"lag in {en}", f"时间差（{zh}）")
        for name, dims, value, units, name_en, name_zh in (
            (f"displacement_on_{clock}", curves, moved, "parameter2", "displacement at equal lags", "等时间差的位移"),
            (f"collapse_{clock}", ("group",), np.full(groups, 1.1), "1", "spread of the curves", "曲线离散"),
            (f"ageing_exponent_{clock}", ("group",), np.full(groups, -0.2), "1", "ageing exponent", "老化指数"),
        ):
            en_long, zh_long = f"{name_en} in {en}", f"按{zh}计时的{name_zh}"
            variables[name] = _variable(dims, value, units, en_long, zh_long, 0.1 * np.abs(value))
    ones = np.ones(groups)
    variables["doubling_ratio"] = _variable(
        ("group",), ones, "1", "Δ(t, 2t)/Δ(0, t)", "位移之比 Δ(t, 2t)/Δ(0, t)", 0.1 * ones
    )
    step = np.linspace(0, 2999, 300).astype(int)
    variables["noise_time"] = _variable(("clock_step",), 1e-7 * step**0.8, "parameter2", "noise time", "噪声时间")
    return _dataset(variables, {"waiting_time": waiting, "clock_step": step})


def _correlation(_) -> xr.Dataset:
    lag = np.unique(np.concatenate([[0], np.geomspace(1, 500, 40).astype(int)]))
    decay = np.exp(-lag / 60)
    grouped = decay[None, :] ** np.linspace(0.5, 2, len(ALL_GROUPS))[:, None]
    error, ones = 0.05 * np.ones_like(grouped), np.ones(len(ALL_GROUPS))
    both = ("group", "lag")
    variables = {
        "loss_autocorrelation": _variable(("lag",), np.exp(-lag / 5), "1", "loss", "损失", error[0]),
        "parameter_autocorrelation": _variable(both, grouped, "1", "parameters", "参数", error),
        "gradient_autocorrelation": _variable(both, grouped**8, "1", "gradient", "梯度", error),
        "loss_integrated_time": _variable((), 5.2, "step", "integrated time of the loss", "损失的积分自相关时间", 0.4),
        "parameter_integrated_time": _variable(("group",), 60 * ones, "step", "integrated time of the parameters",
                                               "参数的积分自相关时间", 9 * ones),
        "gradient_integrated_time": _variable(("group",), 7.5 * ones, "step", "integrated time of the gradient",
                                              "梯度的积分自相关时间", 0.9 * ones),
    }  # fmt: skip
    return _dataset(variables, {"lag": lag, "lag_sgd_time": ("lag", 0.5 * lag)})


def _response(_) -> xr.Dataset:
    lag = np.unique(np.geomspace(1, 500, 40).astype(int))
    shape = np.broadcast_to(1 - np.exp(-lag / 60), (len(ALL_GROUPS), len(lag)))
    ones, both = np.ones(len(ALL_GROUPS)), ("group", "lag")
    ratio, error = 0.9 - 0.2 * shape, 0.02 * np.sqrt(lag) * np.ones_like(shape)
    variables = {
        "response": _variable(both, 0.05 * (1 - shape), "parameter2 loss-1", "response per noise", "响应",
                              0.01 * error),
        "integrated_response": _variable(both, 3 * shape, "parameter2 loss-1", "integrated response χ", "积分响应 χ",
                                         0.1 * error),
        "displacement": _variable(both, 1e-3 * shape, "parameter2", "displacement", "位移", 1e-4 * error),
        "response_of_displacement": _variable(both, 3.5 * shape, "parameter2 loss-1", "Δ/2T", "Δ/2T", 0.1 * error),
        "correlation": _variable(both, 1e-3 * (1 - shape), "parameter2", "correlation", "关联", 1e-4 * error),
        "response_of_correlation": _variable(both, 3.5 * shape, "parameter2 loss-1", "[c(0)−c(τ)]/T", "[c(0)−c(τ)]/T",
                                             0.1 * error),
        "correlation_ratio": _variable(both, ratio, "1", "fluctuation–dissipation ratio X_C", "涨落耗散比 X_C", error),
        "asymmetry_z": _variable(both, shape - 0.5, "1", "gap of the asymmetry identity", "不对称恒等式的偏差"),
        "temperature_noise": _variable(("group",), 2e-4 * ones, "loss", "noise temperature", "噪声温度", 1e-5 * ones),
        "fdt_temperature": _variable(("group",), 2.5e-4 * ones, "loss", "FDT temperature", "涨落耗散温度", 3e-5 * ones),
        "displacement_ratio": _variable(both, ratio, "1", "fluctuation–dissipation ratio X_Δ", "涨落耗散比 X_Δ", error),
        "fdt_ratio": _variable(("group",), 0.8 * ones, "1", "fluctuation–dissipation ratio X_Δ at one lag",
                               "单一间隔的涨落耗散比 X_Δ", 0.1 * ones),
    }  # fmt: skip
    return _dataset(variables, {"lag": lag, "lag_sgd_time": ("lag", 0.5 * lag)})


def _events(_) -> xr.Dataset:
    event, step = ("event",), np.array([700, 1600])
    windows = _windows()
    fallen = 1 - 0.3 * (windows["window_step"][1] > 700)
    variables = {
        "loss_over_time": _variable(("window",), fallen, "loss", "loss", "损失", 0.01 * fallen),
        "event_step": _variable(event, step, "step", "step of the event", "事件所在的步"),
        "event_first": _variable(event, step - 5, "step", "first step it may be at", "可能的最早一步"),
        "event_last": _variable(event, step + 5, "step", "last step it may be at", "可能的最晚一步"),
        "event_kind": _variable(event, np.array([0, 1]), "1", "0 candidate, 1 changed setting, 2 end of an epoch",
                                "0 候选，1 超参数变化，2 一轮结束"),
        "jump": _variable(event, np.array([-0.3, 0.1]), "loss", "jump of the loss", "损失的跳变", 0.02 * np.ones(2)),
        "event_z": _variable(event, np.array([-15.0, 5.0]), "1", "jump in standard errors", "跳变（以标准误计）"),
        "event_p": _variable(event, np.array([1e-9, 4e-3]), "1", "probability of one like it by chance",
                             "纯随机涨落产生的概率"),
        "temperature_before": _variable(event, np.array([2e-4, np.nan]), "loss", "noise temperature before",
                                        "事件之前的噪声温度", np.array([1e-5, np.nan])),
    }  # fmt: skip
    return _dataset(variables, windows)


def _stationarity(rng) -> xr.Dataset:
    variables = {
        **_with_time(rng, "fdr1_raw", 1.05, "1", "FDR1 ratio, raw", "FDR1 比值（原始）", 0.8),
        **_with_time(rng, "fdr1_centred", 0.98, "1", "FDR1 ratio, centred", "FDR1 比值（去均值）", 0.2),
    }
    ones, segments = np.ones(len(ALL_GROUPS)), ("segment",)
    variables["identity_residual"] = _variable(("group",), 3e-14 * ones, "1", "residual of the identity", "恒等式残差")
    variables["identity_floor"] = _variable(("group",), 1e-13 * ones, "1", "rounding floor", "舍入误差下限")
    variables["loss_split_half"] = _variable(
        segments, np.array([8.1, 0.7]), "1", "split-half z of the loss", "损失的前后半段 z 值"
    )
    variables["displacement_split_half"] = _variable(
        segments, np.array([5.0, np.nan]), "1", "split-half z of the displacement", "位移的前后半段 z 值"
    )
    variables["segment_stationary_flag"] = _variable(segments, np.array([0, 1], np.int8), "1", "stationary", "平稳")
    coords = {"segment_start": ("segment", [0, 1000]), "segment_stop": ("segment", [1000, STEPS])}
    return _dataset(variables, {**_windows(), **coords})


def write_world(root: Path) -> Path:
    """A folder of runs in every condition: two good ones, running, silent, not analyzed, and broken in several ways."""
    write_all_results(write_run(root / "good"))
    write_all_results(write_run(root / "other", learning_rate=0.02, sampling="replacement", seed=1), "replacement", 1)
    # Alive until the last of the tests has looked at it.
    write_all_results(write_run(root / "running", steps=1200, state="running", last_commit=time.time() + 3600))
    write_run(root / "silent", steps=700, state="running", last_commit=time.time() - 3600)
    write_run(root / "no-results")
    write_run(root / "no-steps", steps=0, state="running")
    (root / "empty" / "run.zarr").mkdir(parents=True)
    write_run(root / "truncated-metadata", steps=50)
    metadata = root / "truncated-metadata" / "run.zarr" / "zarr.json"
    metadata.write_bytes(metadata.read_bytes()[:80])
    write_run(root / "newer-format", steps=50)
    _set_attribute(root / "newer-format", "format_version", 99)
    cut = write_all_results(write_run(root / "truncated-chunk", steps=2 * STEPS))
    _halve(next(path for path in sorted((cut / "run.zarr" / "loss" / "c").rglob("*")) if path.is_file()))
    damaged = write_all_results(write_run(root / "damaged-results"))
    noise = damaged / "results.zarr" / "default" / "temperature" / "temperature_noise" / "c"
    _halve(next(path for path in sorted(noise.rglob("*")) if path.is_file()))
    return root


def _halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
