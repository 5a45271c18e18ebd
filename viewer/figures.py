"""Which curves show which analysis: one function for each, in the order of the pages."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from .curves import (
    Figure,
    Source,
    by_direction,
    by_group,
    by_part,
    count_events,
    jumps,
    mark_events,
    on_clock,
    over_lag,
    over_time,
    parametric,
    present,
    two_time,
)
from .state import ViewState
from .text import Text

_TEMPERATURE = Text("temperature", "温度")
_POWER = Text("power", "功率")
_SQUARED_GRADIENT = Text("squared gradient", "梯度平方")
_SPREAD = Text("spread over the expected", "离散程度与预期值之比")
_AGEING_EXPONENT = Text("ageing exponent", "老化指数")
_HEAT = Text("heat", "热量")
_LAYER, _DIRECTION = Text("layer", "层"), Text("principal direction", "主方向")
_AGREE = Text("the two agree: 1", "二者一致：1")
_WHITE = Text("white noise: 1", "白噪声：1")
_LAW = Text("fluctuation–dissipation relation: 1", "涨落耗散关系：1")


def temperature(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """All thermometers on one axis: over time, and by group."""
    names = ["temperature_noise", "temperature_kinetic", "temperature_kinetic_drift_free",
             "temperature_configurational", "temperature_variance"]  # fmt: skip
    parts = [f"disagreement_{part}" for part in ("drift", "heat", "rest")]
    return present(
        over_time(sources, names, state, "temperature-time", Text("Thermometers over time", "各温度计随时间的变化"),
                  _TEMPERATURE),
        by_group(sources, names, state, "temperature-group", Text("Thermometers by group", "各层组的温度"),
                 _TEMPERATURE, log_y=True),
        by_group(sources, ["kinetic_over_noise"], state, "temperature-ratio",
                 Text("Kinetic over noise temperature", "动能温度与噪声温度之比"), level=(1.0, _AGREE(state.lang))),
        by_group(sources, parts, state, "temperature-parts",
                 Text("Why kinetic and noise temperature differ", "动能温度与噪声温度之差的来源"),
                 Text("kinetic less noise temperature", "动能温度减噪声温度"), level=(0.0, "0")),
        by_group(sources, ["configurational_colour"], state, "temperature-colour",
                 Text("What coloured noise adds to the configurational temperature", "有色噪声对构型温度的贡献"),
                 _TEMPERATURE, level=(0.0, "0")),
    )  # fmt: skip


def dissipation(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """Powers over time and by group."""
    seed, powers = ["gradient_dissipation"], ["descent_power", "noise_power"]
    return present(
        over_time(sources, seed, state, "dissipation-seed", Text("Dissipation rate η‖g‖²", "耗散率 η‖g‖²")),
        over_time(sources, powers, state, "dissipation-powers",
                  Text("Descent and noise power", "下降功率与噪声功率"), _POWER),
        by_group(sources, [*seed, *powers], state, "dissipation-group",
                 Text("Powers by group", "各层组的功率"), _POWER),
    )  # fmt: skip


def noise(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """The noise beside the signal over time and by group, the batch size at which they are equal, and directions."""
    traces = ["noise_trace", "noise_trace_chunks", "noise_trace_samples"]
    return present(
        over_time(sources, [*traces, "gradient_norm_squared"], state, "noise-time",
                  Text("Noise and signal over time", "噪声与信号随时间的变化"), _SQUARED_GRADIENT),
        over_time(sources, ["signal_to_noise"], state, "noise-signal",
                  Text("Signal to noise over time", "信噪比随时间的变化")),
        by_group(sources, traces, state, "noise-group", Text("tr C by group", "各层组的 tr C"),
                 _SQUARED_GRADIENT, log_y=True),
        by_group(sources, ["simple_noise_scale"], state, "noise-scale",
                 Text("Batch size at which noise equals signal", "噪声与信号相等的批量大小"), log_y=True),
        by_group(sources, ["effective_dimension"], state, "noise-dimension",
                 Text("Effective dimension of the noise by group", "各层组噪声的有效维数"), log_y=True),
        over_lag(sources, ["noise_autocovariance", "noise_autocovariance_shuffled"], state, "noise-colour",
                 Text("Colour: autocovariance of the noise", "噪声的颜色：自协方差"), level=(0.0, "0")),
        over_lag(sources, ["noise_spectrum", "noise_spectrum_shuffled"], state, "noise-spectrum",
                 Text("Colour: spectrum of the noise", "噪声的颜色：功率谱"), level=(1.0, _WHITE(state.lang)),
                 x="frequency"),
        by_group(sources, ["low_frequency_weight"], state, "noise-low-frequency",
                 Text("Low-frequency weight: 1 if white, 0 if shuffled", "低频权重：白噪声为 1，打乱采样为 0"),
                 level=(1.0, "1")),
        by_group(sources, ["tail_kurtosis", "tail_kurtosis_normal"], state, "noise-kurtosis",
                 Text("Kurtosis beside normal noise", "峰度（与高斯噪声对照）")),
        by_group(sources, ["tail_index", "tail_index_normal", "tail_index_short", "tail_index_short_normal"], state,
                 "noise-tails", Text("Tail index beside normal noise", "尾指数（与高斯噪声对照）"),
                 Text("tail index", "尾指数")),
    )  # fmt: skip


def entropy_production(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """Heat over time and by group, and how irreversible the motion is beside what chance makes of it."""
    nothing = (0.0, "0")
    return present(
        over_time(sources, ["heat"], state, "entropy-heat-time",
                  Text("Heat over time", "热量随时间的变化"), level=nothing),
        by_group(sources, ["heat", "heat_direct"], state, "entropy-heat-group",
                 Text("Heat by group, in both forms", "各层组的热量（两种形式）"), _HEAT, level=nothing),
        by_part(sources, "heat_of_layer", "layer", state, "entropy-heat-layer", Text("Heat by layer", "各层的热量"),
                _LAYER),
        by_part(sources, "mode_heat", "mode", state, "entropy-heat-direction",
                Text("Heat by principal direction", "各主方向的热量"), _DIRECTION),
        by_group(sources, ["entropy_production", "entropy_production_bias"], state, "entropy-production",
                 Text("Lower bound on entropy production, and what chance gives", "熵产生的下界与纯随机涨落的贡献"),
                 Text("entropy production", "熵产生"), level=nothing),
        by_group(sources, ["cycling_frequency", "cycling_frequency_null"], state, "entropy-cycling",
                 Text("Fastest cycling, and its upper limit in equilibrium", "最快的循环频率及其在平衡态下的上限"),
                 Text("cycling frequency", "循环频率")),
    )  # fmt: skip


def flatness(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """Variance against flatness and noise against curvature, direction by direction, and the exponents."""
    exponents = ["flatness_exponent", "exponent_iid", "exponent_epoch"]
    return present(
        by_direction(sources, "flatness", "mode_variance", ("variance_iid", "variance_epoch", "variance_walk"), state,
                     "flatness-variance", Text("Variance against flatness of the directions", "各方向的方差与平坦度")),
        by_direction(sources, "curvature", "mode_noise", (), state, "flatness-noise",
                     Text("Gradient noise against curvature of the directions", "各方向的梯度噪声与曲率")),
        by_group(sources, exponents, state, "flatness-exponents",
                 Text("Exponent ψ beside its null hypotheses", "指数 ψ 与零假设值"), Text("exponent ψ", "指数 ψ")),
    )  # fmt: skip


def diffusion(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """Mean squared displacement, its local exponent, its age dependence, and diffusion coefficients."""
    squared = ["mean_squared_displacement", "detrended_mean_squared_displacement",
               "predicted_mean_squared_displacement"]  # fmt: skip
    coefficients = ["diffusion_coefficient", "diffusion_coefficient_predicted"]
    return present(
        over_lag(sources, squared, state, "diffusion-msd", Text("Mean squared displacement", "均方位移"), log_y=True),
        over_lag(sources, ["local_exponent"], state, "diffusion-exponent",
                 Text("Local exponent of the displacement", "位移的局部指数"),
                 level=(1.0, Text("free diffusion: 1", "自由扩散：1")(state.lang))),
        two_time(sources, state),
        by_group(sources, coefficients, state, "diffusion-coefficients",
                 Text("Diffusion coefficient, measured and predicted", "扩散系数：实测与预测"), log_y=True),
    )  # fmt: skip


def ageing(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """Displacement by waiting time on each clock, how far its curves spread, and the exponents."""
    clocks = ("steps", "sgd_time", "noise_time")
    return present(
        *(on_clock(sources, clock, state) for clock in clocks),
        by_group(sources, [f"collapse_{clock}" for clock in clocks], state, "ageing-collapse",
                 Text("Spread of the curves, relative to curves that agree", "曲线间的离散程度与曲线重合时预期值之比"),
                 _SPREAD, level=(1.0, Text("curves agree: 1", "曲线一致：1")(state.lang)), log_y=True),
        by_group(sources, [f"ageing_exponent_{clock}" for clock in clocks], state, "ageing-exponent",
                 Text("Ageing exponent d ln Δ/d ln t_w", "老化指数 d ln Δ/d ln t_w"), _AGEING_EXPONENT,
                 level=(0.0, Text("no ageing: 0", "没有老化：0")(state.lang))),
        by_group(sources, ["doubling_ratio"], state, "ageing-doubling",
                 Text("Displacement from t to 2t over that before t", "从 t 到 2t 的位移与 t 之前位移之比"),
                 level=(1.0, Text("stationary increments: 1", "增量平稳：1")(state.lang))),
    )  # fmt: skip


def correlation(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """Autocorrelation functions and integrated times."""
    functions = ["loss_autocorrelation", "parameter_autocorrelation", "gradient_autocorrelation"]
    times = ["parameter_integrated_time", "gradient_integrated_time"]
    return present(
        over_lag(sources, functions, state, "correlation-functions", Text("Autocorrelation", "自相关函数"),
                 level=(0.0, "0"), y=Text("autocorrelation", "自相关")),
        by_group(sources, times, state, "correlation-times",
                 Text("Integrated autocorrelation time by group", "各层组的积分自相关时间"),
                 Text("integrated time", "积分自相关时间"), log_y=True),
    )  # fmt: skip


def response(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """The parametric plots, the ratio of response and fluctuation, the temperature it stands for, and the check."""
    ratio = Text("fluctuation–dissipation ratio X", "涨落耗散比 X")
    law = (1.0, Text("noise temperature: 1", "噪声温度：1")(state.lang))
    closed = (0.0, Text("identity holds: 0", "恒等式成立：0")(state.lang))
    return present(
        parametric(sources, "displacement", "response_of_displacement", state, "response-displacement",
                   Text("χ–Δ: response over displacement", "χ–Δ 图：响应与位移的关系"), log=True),
        parametric(sources, "correlation", "response_of_correlation", state, "response-correlation",
                   Text("χ–C: response over correlation", "χ–C 图：响应与关联的关系")),
        over_lag(sources, ["displacement_ratio", "correlation_ratio"], state, "response-ratio",
                 Text("Fluctuation–dissipation ratio", "涨落耗散比"), level=law, y=ratio),
        over_lag(sources, ["integrated_response"], state, "response-integrated",
                 Text("Integrated response", "积分响应")),
        by_group(sources, ["fdt_ratio"], state, "response-group",
                 Text("Fluctuation–dissipation ratio X by group", "各层组的涨落耗散比 X"), ratio, level=law),
        *fdt_thermometer(sources, state),
        over_lag(sources, ["asymmetry_z"], state, "response-asymmetry",
                 Text("Does the asymmetry identity hold?", "不对称恒等式成立吗？"), level=closed),
    )  # fmt: skip


def fdt_thermometer(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """The temperature of response and displacement beside that of the noise; from the analysis `response`."""
    if not any("fdt_temperature" in source.data for source in sources):
        return []
    names = ["temperature_noise", "fdt_temperature"]
    title = Text("FDT thermometer by group", "各层组的涨落耗散温度")
    return present(by_group(sources, names, state, "response-temperature", title, _TEMPERATURE, log_y=True))


def stationarity(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """The first fluctuation–dissipation relation over time and by group, and the check of the record itself."""
    ratios = ["fdr1_raw", "fdr1_centred"]
    law = (1.0, _LAW(state.lang))
    ratio = Text("ratio of the two sides", "等式两边之比")
    return present(
        over_time(sources, ratios, state, "stationarity-time",
                  Text("FDR1: ratio of its two sides over time", "FDR1 等式两边之比随时间的变化"), ratio, level=law),
        by_group(sources, ratios, state, "stationarity-group",
                 Text("FDR1: ratio of its two sides by group", "各层组的 FDR1 等式两边之比"), ratio, level=law),
        by_group(sources, ["fdr2"], state, "stationarity-second",
                 Text("Second fluctuation–dissipation relation FDR2", "第二涨落耗散关系 FDR2"), ratio, level=law),
        by_group(sources, ["identity_residual", "identity_floor"], state, "stationarity-identity",
                 Text("Is the record consistent? Residual and rounding floor", "记录自洽吗？恒等式残差与舍入误差下限"),
                 Text("relative residual", "相对残差"), log_y=True),
    )  # fmt: skip


def events(sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """The loss with its events, and the size of each jump at its place."""
    return present(
        mark_events(over_time(sources, ["loss"], state, "events-loss", Text("Loss and its events", "损失及其突变事件"),
                              notes=count_events(sources, state)), sources, state),
        *jumps(sources, state),
    )  # fmt: skip


ANALYSES: dict[str, Callable[[Sequence[Source], ViewState], list[Figure]]] = {
    "temperature": temperature,
    "dissipation": dissipation,
    "noise": noise,
    "entropy_production": entropy_production,
    "flatness": flatness,
    "diffusion": diffusion,
    "ageing": ageing,
    "correlation": correlation,
    "response": response,
    "stationarity": stationarity,
    "events": events,
}


RESTS_ON: dict[str, tuple[str, ...]] = {
    "temperature-ratio": ("temperature_noise", "temperature_kinetic"),
    "temperature-parts": ("temperature_noise", "temperature_kinetic", "kinetic_over_noise"),
    "temperature-colour": ("temperature_configurational",),
    "noise-signal": ("noise_trace", "gradient_norm_squared"),
    "noise-scale": ("noise_trace", "gradient_norm_squared"),
    "noise-dimension": ("noise_trace",),
    "noise-colour": ("noise_trace", "low_frequency_weight"),
    "noise-spectrum": ("noise_trace", "low_frequency_weight"),
    "noise-low-frequency": ("noise_trace",),
    "noise-kurtosis": ("noise_trace", "tail_index"),
    "noise-tails": ("noise_trace", "tail_kurtosis"),
    "entropy-heat-time": ("heat_direct",),
    "entropy-heat-layer": ("heat", "heat_direct"),
    "entropy-heat-direction": ("heat", "heat_direct"),
    "entropy-cycling": ("entropy_production",),
    "flatness-variance": ("curvature", "flatness_exponent", "exponent_iid"),
    "flatness-noise": ("noise_exponent",),
    "flatness-exponents": ("curvature", "mode_noise", "noise_exponent"),
    "diffusion-msd": ("diffusion_coefficient_predicted",),
    "response-displacement": ("response", "displacement_ratio"),
    "response-correlation": ("response", "displacement_ratio"),
    "response-ratio": ("response",),
    "response-integrated": ("response",),
    "response-group": ("response", "displacement_ratio"),
    "response-temperature": ("response", "displacement_ratio", "fdt_ratio"),
    "response-asymmetry": ("asymmetry",),
    "events-loss": ("event_kind", "event_step", "jump"),
    "events-jumps": ("event_kind", "event_step"),
}
"""quantities that a figure does not draw, and with which it is to be doubted"""


def of_analysis(analysis: str, sources: Sequence[Source], state: ViewState) -> list[Figure]:
    """The figures of an analysis, of those runs for which it is defined; none of one that is not of this package."""
    draw, defined = ANALYSES.get(analysis), [source for source in sources if source.data.data_vars]
    drawn = draw(defined, state) if draw and defined else []
    return [replace(one, quantities=(*one.quantities, *RESTS_ON.get(one.id, ()))) for one in drawn]
