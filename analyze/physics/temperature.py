"""Effective temperature: noise, kinetic and configurational thermometers, what parts them, and η·Var(g)/2.

With C = Cov(g | θ) of the mini-batch actually used, SGD with momentum μ and dampening ν has per direction

    T = η(1−ν) C / (2(1−μ))                                            noise thermometer
    T = η ⟨v_mid²⟩ / (1−ν),   v_mid = (v_t + v_{t+1})/2                kinetic thermometer
    T = λΣ (1 − η(1−ν)λ/(2(1+μ)))                                      configurational thermometer

in units of the loss (Mandt, Hoffman & Blei 2017; Jastrzębski et al. 2017). Reported is the trace over a group divided
by its number of parameters: a mean over directions, which parameters without noise pull down. tr C comes from
½‖g−g′‖² of independent batches, without bias. The kinetic one needs two scalars per step and no Hessian; it is exact
for a stationary quadratic loss at every ηλ (physics.md, V1, V6, V13). Off a plateau the drift adds η‖⟨v⟩‖²/(1−ν),
which `temperature_kinetic_drift_free` subtracts. ‖⟨v⟩‖² is the product ⟨v⟩₁·⟨v⟩₂ of the mean velocities of the two
halves of the segment, whose fluctuations are independent; the square of one mean would take 2D/T of the diffusion for
drift. (For a steady gradient the drift is η(1−ν)‖∇L‖²/(1−μ)², V8; but a gradient that turns within 1/(1−μ) steps moves
nothing.)

The configurational one holds in each eigendirection of the Hessian (physics.md, 1.2). Its trace needs no Hessian, as
Σ λΣ = ⟨(θ−⟨θ⟩)·∇L⟩ and Σ λ²Σ = ⟨‖∇L‖²⟩:

    P·T = ⟨(θ−⟨θ⟩)·g⟩ − ⟨θ·ξ⟩ − η(1−ν)/(2(1+μ)) ⟨g·g′⟩.

The first term is taken as η(1+μ)/(2(1−ν))⟨‖v_{t+1}‖²⟩, which is exact, times the centred FDR1 ratio of the sketch,
whose error is that of two end points. FDR1 ties it to the noise whatever the motion; what makes a thermometer of it is
the second, ⟨θ·(g−g′)⟩ of independent batches: 0 for white noise, and under shuffled epochs, where the noise remembers
θ, most of the temperature in flat directions (physics.md, 1.6). There the last term keeps ηλ/2 of it. The segment must
be stationary. The fourth thermometer is that of the analysis `response`.

Kinetic less noise temperature of a group is the sum of three parts:

    drift   T_kin − T_kin without drift
    heat    where batches are independent, what is left less that of all parameters: the landscape moves heat between
            groups, q = (1−μ)(T_kin − T) per direction with Σ q = 0 (physics.md, fact 7), if H and C do not commute
    rest    what is left then: colour of the noise, or a loss that is not quadratic; 0 for neither. Of a group under
            shuffled epochs it holds the heat, which colour cannot be told from.

The common η·Var(g)/2 takes the variance of g over time; that contains the spread of the mean gradient and lacks the
factor 1/(1−μ). It is kept under its own name for comparison.

Under a schedule noise and kinetic temperature are means of those of each step. Their errors are of what strays from a
temperature that follows η(1−ν)/(1−μ): the schedule itself is no noise.

Nesterov's kinetic temperature depends on frequency, and Adam's temperature on its preconditioner: not defined here.
"""

import numpy as np
import xarray as xr

from .. import errorbar, series
from ..blocks import each, labelled, over_groups
from ..quantities import (
    at_probes,
    block_means,
    correlated_probes,
    correlated_steps,
    dimensions_at,
    group_hyperparameters,
    group_sizes,
    group_sum,
    hyperparameters,
    is_nesterov,
    is_sgd,
    mid_velocity_squared,
    next_velocity_squared,
    schedule_at,
    schedule_of_groups,
    velocity_samples,
    with_all,
)
from ..segments import choose_segment, matching_windows, window_coordinates, within
from ..settings import AnalysisSettings
from ..verdicts import (
    few_probes_verdicts,
    mixed_layers_verdicts,
    probe_verdicts,
    resting_verdicts,
    segment_verdict,
    shuffled_signal_verdicts,
    unresolved_signal_verdicts,
    verdict,
)
from .stationarity import centred_sides

USES = ("segment", "windows")
TITLE = "Effective temperature"
TITLE_ZH = "有效温度"
FORMULA = (
    r"T=\frac{\eta(1-\nu)}{2(1-\mu)}\,\frac{\mathrm{tr}\,C}{P}"
    r"\qquad T_\mathrm{kin}=\frac{\eta\,\langle\|v_\mathrm{mid}\|^2\rangle}{(1-\nu)\,P}"
    r"\qquad T_\mathrm{conf}=\frac{\langle\delta\theta\cdot g\rangle-\langle\theta\cdot(g-g')\rangle"
    r"-\frac{\eta(1-\nu)}{2(1+\mu)}\langle g\cdot g'\rangle}{P}"
)
EXPLANATION = (
    "The temperature of the mini-batch noise: from the variance of the gradient at fixed parameters (noise), from the "
    "squared mid-step velocity (kinetic), and from how far the parameters stray against the force (configurational); "
    "where they agree, the fluctuations are thermal. "
    "Do not read it as one temperature of the network: it is a mean over the parameters of a group, and away from a "
    "plateau or under shuffled epochs the thermometers part for reasons that the verdicts name."
)
EXPLANATION_ZH = (
    "小批量噪声的温度：由参数固定时的梯度方差得到（噪声温度计），由半步速度的平方得到（动能温度计），"
    "以及由参数逆着力偏离平衡位置的程度得到（构型温度计）；三者一致时，涨落是热涨落。不要把它当作整个网络的单一温度：它是一组参数的平均值；"
    "远离平台期或按轮次打乱采样时，各温度计会分离，原因见判定。"
)
METHOD = (
    "Mean over the segment with Γ-method errors. tr C: half the squared difference of the step's gradient and that of "
    "an independent mini-batch. Kinetic: exact inner products of every step. Configurational: the virial (θ−⟨θ⟩)·g "
    "less what the noise g−g′ has in it, with the correction for steps of finite size."
)
METHOD_ZH = (
    "区间平均，误差用 Γ 方法。tr C：该步梯度与独立小批量梯度之差的平方的一半。动能：每一步的精确内积。"
    "构型：位力 (θ−⟨θ⟩)·g，扣除其中噪声 g−g′ 的部分，并作有限步长修正。"
)
REFERENCE = (
    "Mandt, Hoffman & Blei 2017, JMLR 18(134); Jastrzębski et al. 2017, arXiv 1711.04623; "
    "Chaudhari & Soatto 2018, ICLR; estimator errors: Wolff 2004, hep-lat/0306017."
)
NAMES = {
    "temperature_noise": ("noise temperature", "噪声温度"),
    "temperature_kinetic": ("kinetic temperature", "动能温度"),
    "temperature_kinetic_drift_free": ("kinetic temperature without drift", "扣除漂移的动能温度"),
    "temperature_configurational": ("configurational temperature", "构型温度"),
    "configurational_colour": ("what colour adds to the configurational temperature", "有色噪声对构型温度的贡献"),
    "temperature_variance": ("η·Var(g)/2 over time", "η·Var(g)/2（对时间取方差）"),
}


def estimate(run: xr.Dataset, settings: AnalysisSettings) -> xr.Dataset:
    """Temperatures per group, over the segment and over time.

    Args:
        run: from `open_run`.

    Returns:
        `temperature_noise`, `temperature_kinetic` (group,) and `_over_time` (group, window), and over the segment
        `temperature_kinetic_drift_free` and `temperature_variance`, in units of the loss, with errors;
        `temperature_configurational` and, in it, `configurational_colour` (group,); `kinetic_over_noise`, without
        drift; `disagreement_drift`, `_heat` (of independent batches) and `_rest` (group,), whose sum is kinetic less
        noise temperature; `noise_trace` and `gradient_norm_squared` (of independent batches
        unbiased, so it may be negative).

    Raises:
        AnalysisError: if the run is too short.
    """
    segment = choose_segment(run, settings.segment)
    part = within(run, segment)
    verdicts = [segment_verdict(segment, schedule_aware=True)]
    of_segment = _thermometers(part, None, steady=segment.judgement != "scheduled")
    results: dict[str, xr.DataArray] = {}
    for name, (en, zh) in NAMES.items():
        if name in of_segment:
            results |= errorbar.named(name, of_segment[name], "loss", en, zh)
    if "temperature_kinetic_drift_free" in of_segment and "temperature_noise" in of_segment:
        ratio = errorbar.quotient(of_segment["temperature_kinetic_drift_free"], of_segment["temperature_noise"])
        results |= errorbar.named(
            "kinetic_over_noise", ratio, "1", "kinetic over noise temperature", "动能温度与噪声温度之比"
        )
    if "temperature_kinetic_drift_free" in of_segment and "temperature_noise" in of_segment:
        for name, (found, en, zh) in _disagreement(part, of_segment).items():
            results |= errorbar.named(name, found, "loss", en, zh)
    if part.sizes.get("probe"):
        for name, source, en, zh in (
            ("noise_trace", "noise_trace", "trace of the gradient noise covariance tr C", "梯度噪声协方差的迹 tr C"),
            (
                "gradient_norm_squared",
                "gradient_dot",
                "squared norm of the mean gradient ‖∇L‖²",
                "平均梯度范数平方 ‖∇L‖²",
            ),
        ):
            memory = correlated_probes(part) if source == "gradient_dot" else 0
            found = errorbar.mean_with_error(group_sum(part[source], run), "probe", memory)
            results |= errorbar.named(name, found, "loss2 parameter-2", en, zh)
    over_time, coordinates = _over_time(run, settings.windows)
    dataset = xr.Dataset(results | over_time, coords=coordinates).compute()
    verdicts += _verdicts(run, part, dataset, stationary=segment.stationary)
    return dataset.assign_attrs(
        segment=[segment.start, segment.stop], segment_stationary=segment.stationary, verdicts=verdicts
    )


def _thermometers(
    run: xr.Dataset, windows: tuple[list[tuple[int, int]], list[tuple[int, int]]] | None, *, steady: bool = False
) -> dict[str, errorbar.Estimate]:
    """Each thermometer that the run allows, over all of it or over windows of (steps, probes).

    Those that take one learning rate for all of its steps only where they are `steady`.
    """
    schedule = schedule_of_groups(run, _mobility(run)) if is_sgd(run) else None

    def average(data: xr.DataArray) -> errorbar.Estimate:
        dim = "step" if "step" in data.dims else "probe"
        known = (correlated_steps(run), velocity_samples(run)) if dim == "step" else (0, 1.0)
        shape = schedule_at(schedule, data, run)
        if windows is None:
            return errorbar.mean_with_error(data, dim, *known, shape)
        return errorbar.window_means(data, dim, windows[0] if dim == "step" else windows[1], *known, shape)

    per_parameter = _per_parameter(run)
    found: dict[str, errorbar.Estimate] = {}
    if is_sgd(run) and not is_nesterov(run):
        kinetic = average(group_sum(_kinetic(run), run) * per_parameter)
        found["temperature_kinetic"] = kinetic
    if is_sgd(run) and run.sizes.get("probe"):
        found["temperature_noise"] = average(group_sum(_of_noise(run), run) * per_parameter)
    if is_sgd(run) and "gradient_sketch" in run and steady:
        found["temperature_variance"] = _variance_over_time(run, per_parameter)
        if "temperature_kinetic" in found:
            found |= _without_drift(run, found["temperature_kinetic"], per_parameter)
            if run.sizes.get("probe") and "probe_sketch" in run:
                found |= _configurational(run)
    return found


def _per_parameter(run: xr.Dataset) -> xr.DataArray:
    return 1 / group_sizes(run)


def _of_noise(run: xr.Dataset) -> xr.DataArray:
    """η(1−ν)/(2(1−μ))·½‖g−g′‖² of each probe, (layer, probe)."""
    return at_probes(_mobility(run) / 2, run) * run["noise_trace"]


def _mobility(run: xr.Dataset) -> xr.DataArray:
    """η(1−ν)/(1−μ) of each step, (layer, step)."""
    eta, mu, nu = hyperparameters(run)
    return eta * (1 - nu) / (1 - mu)


def _kinetic(run: xr.Dataset) -> xr.DataArray:
    """η‖v_mid‖²/(1−ν) of each step, (layer, step)."""
    eta, _, nu = hyperparameters(run)
    return eta * mid_velocity_squared(run) / (1 - nu)


def _configurational(run: xr.Dataset) -> dict[str, errorbar.Estimate]:
    """The virial less the part of finite steps, over P, with the error of their joint fluctuation; and −⟨θ·ξ⟩/P."""
    eta, mu, nu = hyperparameters(run)
    last = run.sizes["step"] - 1
    ratio = errorbar.telescoping_ratio_with_error(*centred_sides(run, [(0, last)]), "step")
    scale = eta * (1 + mu) / (2 * (1 - nu))
    squared = group_sum(scale * next_velocity_squared(run), run).isel(step=slice(0, last))
    share = group_sum(at_probes(eta * (1 - nu) / (2 * (1 + mu)), run) * run["gradient_dot"], run)
    of_squared, of_share = block_means(run, step=squared, probe=share)
    mean = squared.mean("step")
    value = mean * ratio[0] - share.mean("probe")
    _, error, n_eff = errorbar.mean_with_error(of_squared * ratio[0] - of_share, "block")
    colour = _colour(run)
    value, error = value + colour[0], (error**2 + (mean * ratio[1]) ** 2 + colour[1] ** 2) ** 0.5
    fewest = n_eff.where(n_eff < ratio[2], ratio[2])
    fewest = fewest.where(fewest < colour[2], colour[2])
    found = {"temperature_configurational": (value, error, fewest), "configurational_colour": colour}
    return {name: errorbar.scale(estimate, _per_parameter(run)) for name, estimate in found.items()}


def _colour(run: xr.Dataset) -> errorbar.Estimate:
    """−⟨θ·ξ⟩ through the sketch, ξ − ξ′ = g − g′, θ from the mean of the steps before.

    A mean that holds later steps would know ξ, which moves them: with independent batches this one gives 0 exactly. A
    sketch that is not exact is off by √(2/k) of the value.
    """
    positions = (run["probe_step"].values - int(run["step"].values[0])).astype(int)
    later = positions[positions > 0]

    def product(_: int, theta: np.ndarray, gradient: np.ndarray, probe: np.ndarray) -> tuple[np.ndarray]:
        before = np.cumsum(theta, axis=-1, dtype=float)[:, later - 1] / later
        noise = gradient[:, later].astype(float) - probe[:, positions > 0]
        return (-np.sum((theta[:, later] - before) * noise, axis=0),)

    sketches = [run[f"{name}_sketch"] for name in ("parameter", "gradient", "probe")]
    found = over_groups(product, each("products"), sketches)["products"]
    products = labelled(found, run, "later")
    value, error, n_eff = errorbar.mean_with_error(products, "later")
    of_sketch = xr.where(group_sizes(run) > run.sizes["sketch"], 2 / run.sizes["sketch"], 0.0) * value**2
    return value, (error**2 + of_sketch) ** 0.5, n_eff


def _disagreement(
    run: xr.Dataset, found: dict[str, errorbar.Estimate]
) -> dict[str, tuple[errorbar.Estimate, str, str]]:
    """The parts of kinetic less noise temperature."""
    per_parameter = _per_parameter(run)
    still, noise = (found[f"temperature_{name}"] for name in ("kinetic_drift_free", "noise"))
    drift, of_drift, _ = found["disagreement_drift"]
    n_eff = still[2].where(still[2] < noise[2], noise[2])
    parts = {"disagreement_drift": (found["disagreement_drift"], "parted by drift", "由漂移造成的温差")}
    rest = still[0] - noise[0], (still[1] ** 2 + noise[1] ** 2) ** 0.5
    en, zh = "parted by colour or curvature", "由有色噪声或非二次曲率造成的温差"
    momenta_differ = _momenta_differ(run)
    if momenta_differ:
        # (1−μ)(T_kin − T_noise) sums to 0 over the groups, and so does the difference for one momentum only.
        en, zh = "parted by heat, colour or curvature", "由传热、有色噪声或非二次曲率造成的温差"
    if run.attrs.get("sampling") != "replacement" or momenta_differ:
        return parts | {"disagreement_rest": ((*rest, n_eff), en, zh)}

    def beyond_all(values: xr.DataArray, dim: str, memory: int = 0, per_step: float = 1.0) -> errorbar.Estimate:
        per = group_sum(values, run) * per_parameter
        return errorbar.mean_with_error(per - per.sel(group="all"), dim, memory, per_step)

    kinetic = beyond_all(_kinetic(run), "step", correlated_steps(run), velocity_samples(run))
    of_probes = beyond_all(_of_noise(run), "probe")
    heat = kinetic[0] - (drift - drift.sel(group="all")) - of_probes[0]
    of_heat = (kinetic[1] ** 2 + of_probes[1] ** 2 + xr.where(heat["group"] == "all", 0.0, of_drift**2)) ** 0.5
    of_all = tuple(values.sel(group="all", drop=True) + 0 * drift for values in rest)
    return parts | {
        "disagreement_heat": ((heat, of_heat, n_eff), "parted by heat between groups", "由组间传热造成的温差"),
        "disagreement_rest": ((of_all[0], of_all[1], n_eff), en, zh),
    }


def _momenta_differ(part: xr.Dataset) -> bool:
    return bool(np.ptp(hyperparameters(part)[1].isel(step=0).values) > 0)


def _without_drift(
    run: xr.Dataset, kinetic: errorbar.Estimate, per_parameter: xr.DataArray
) -> dict[str, errorbar.Estimate]:
    """The kinetic temperature less that of the mean velocity u = −⟨Δθ/η⟩, through the sketch, and the drift's own.

    The error is that of η(‖v_mid‖² − 2u·v_mid)/(1−ν), in which the beat of drift and noise cancels as it does in the
    value. To this come that of the product of two independent means, ‖n‖⁴/d_eff with n their fluctuation, and that of
    the sketch where it is not exact, (‖u₁‖²‖u₂‖² + (u₁·u₂)²)/k, widened for a χ² of k degrees of freedom.

    Of confined motion in few relaxation times the halves are not independent, and the drift comes out negative, within
    its error.
    """
    eta, _, nu = (values.mean("step", skipna=False).values for values in group_hyperparameters(run))
    steps, width, factors = run.sizes["step"], run.sizes["sketch"], eta / (1 - nu)

    def add(group: int, x: np.ndarray) -> tuple[np.ndarray, ...]:
        # Without a learning rate nothing moves, and nothing drifts.
        rate = eta[group] if eta[group] else np.inf
        first, second = (
            (x[:, end].astype(float) - x[:, start]) / (start - end) / rate
            for start, end in ((0, steps // 2), (steps // 2, steps - 1))
        )
        mean = (x[:, 0].astype(float) - x[:, -1]) / ((steps - 1) * rate)
        beat = -np.diff(mean @ x) / rate
        squares = [
            np.asarray(np.sum(one * other)) for one, other in ((first, second), (first, first), (second, second))
        ]
        return factors[group] * beat, *squares

    found = over_groups(add, each("beat", "product", "first", "second"), [run["parameter_sketch"]])
    beat = labelled(found["beat"], run, "step")
    kinetic_power = group_sum(_kinetic(run), run).isel(step=slice(1, -1)).drop_vars("step", errors="ignore")
    # Of v_mid, as the square: what is left of a beat of other velocities swings from step to step.
    mid_beat = (beat.isel(step=slice(1, None)) + beat.isel(step=slice(None, -1))) / 2
    unbeaten = kinetic_power - 2 * mid_beat
    _, error, n_eff = errorbar.mean_with_error(
        unbeaten * per_parameter, "step", correlated_steps(run), velocity_samples(run)
    )

    factor, product, first, second = (
        xr.DataArray(values, dims="group")
        for values in (factors, *(found[name][1:] for name in ("product", "first", "second")))
    )
    norms = first * second
    dimensions = dimensions_at(run, run["parameter_sketch"], np.array([steps // 2]))["true"].isel(lag=0)
    sizes = group_sizes(run)
    dimensions, sizes = (values.isel(group=slice(1, None)).drop_vars("group") for values in (dimensions, sizes))
    variance = (norms**0.5 - product).clip(min=0) ** 2 / dimensions
    of_sketch = float(series.single_square_error(np.array(width))) ** 2 / 2
    variance = variance + xr.where(sizes > width, (norms + product**2) * of_sketch, 0.0)
    drift = with_all(factor * product, run) * per_parameter
    of_drift = with_all(factor**2 * variance, run) ** 0.5 * per_parameter
    _, of_beat, _ = errorbar.mean_with_error(2 * beat * per_parameter, "step")
    return {
        "temperature_kinetic_drift_free": (kinetic[0] - drift, (error**2 + of_drift**2) ** 0.5, n_eff),
        "disagreement_drift": (drift, (of_beat**2 + of_drift**2) ** 0.5, n_eff),
    }


def _variance_over_time(run: xr.Dataset, per_parameter: xr.DataArray) -> errorbar.Estimate:
    """η/2 times the variance of g over time; ‖⟨g⟩‖² through the sketch, which is unbiased for it.

    A sketch that is not exact knows the one direction of ⟨g⟩ as one square of k degrees of freedom.
    """
    eta, _, _ = hyperparameters(run)
    squared = errorbar.mean_with_error(group_sum(eta / 2 * run["gradient_squared"], run), "step", correlated_steps(run))
    rates = group_hyperparameters(run)[0].mean("step", skipna=False).values

    def add(group: int, gradient: np.ndarray) -> tuple[np.ndarray]:
        return (rates[group] / 2 * np.sum(gradient.mean(-1, dtype=float) ** 2),)

    found = over_groups(add, each("of_mean"), [run["gradient_sketch"]])["of_mean"]
    of_mean, width = labelled(found, run), run.sizes["sketch"]
    of_sketch = xr.where(group_sizes(run) > width, float(series.single_square_error(np.array(width))), 0.0) * of_mean
    of_sketch = with_all(of_sketch.isel(group=slice(1, None)) ** 2, run) ** 0.5
    return errorbar.scale((squared[0] - of_mean, (squared[1] ** 2 + of_sketch**2) ** 0.5, squared[2]), per_parameter)


def _over_time(run: xr.Dataset, count: int) -> tuple[dict[str, xr.DataArray], dict]:
    windows = matching_windows(run, count)
    curves: dict[str, xr.DataArray] = {}
    for name, found in _thermometers(run, windows).items():
        curves |= errorbar.named(f"{name}_over_time", found, "loss", *NAMES[name], samples=False)
    return curves, window_coordinates(run, windows[0])


def _verdicts(run: xr.Dataset, part: xr.Dataset, results: xr.Dataset, *, stationary: bool) -> list[dict[str, str]]:
    by_probes = [name for name in ("noise_trace", "gradient_norm_squared") if name in results]
    found = probe_verdicts(run, part, "temperature_noise", *by_probes)
    if by_probes:
        found += few_probes_verdicts(results, "temperature_noise", "noise_trace") + unresolved_signal_verdicts(results)
        found += shuffled_signal_verdicts(run, results, "gradient_norm_squared")
    if not is_sgd(run):
        kind = run.attrs["optimizer"]["class"]
        undefined = verdict(
            "temperature_noise",
            "untrusted",
            "not-defined",
            f"Not defined for {kind}: its temperature depends on the preconditioner of each parameter.",
            f"对 {kind} 没有定义：其温度取决于每个参数的预条件因子。",
        )
        return [undefined, *(one for one in found if one["quantity"] in by_probes)]
    found += resting_verdicts(part, *(name for name in ("temperature_noise", "temperature_kinetic") if name in results))
    if is_nesterov(run):
        found.append(
            verdict(
                "temperature_kinetic",
                "untrusted",
                "not-defined",
                "Kinetic and configurational temperature depend on frequency for Nesterov momentum: not defined.",
                "Nesterov 动量没有定义动能温度与构型温度：它们随频率变化。",
            )
        )
    if "kinetic_over_noise" in results:
        value = float(results["kinetic_over_noise"].sel(group="all"))
        error = float(results["kinetic_over_noise_stderr"].sel(group="all"))
        # What spoils the noise spoils the ratio too.
        found += (
            probe_verdicts(run, part, "kinetic_over_noise")
            or few_probes_verdicts(results, "kinetic_over_noise")
            or mixed_layers_verdicts(part, results, "kinetic_over_noise")
            or [_compare(value, error, part)]
        )
    if "temperature_configurational" in results:
        found += probe_verdicts(run, part, "temperature_configurational")
        if not np.isfinite(results["temperature_configurational"].sel(group="all")):
            found += few_probes_verdicts(results, "temperature_configurational")
        if not stationary:
            found.append(
                verdict(
                    "temperature_configurational",
                    "untrusted",
                    "not-stationary",
                    "The configurational temperature needs a stationary segment, which this one is not shown to be.",
                    "构型温度要求平稳的区间，而此区间未显示平稳。",
                )
            )
        colour, error = (float(results[f"configurational_colour{part}"].sel(group="all")) for part in ("", "_stderr"))
        if abs(colour) > 3 * error:
            found.append(
                verdict(
                    "temperature_configurational",
                    "caution",
                    "coloured",
                    f"The noise remembers where the parameters are: it adds {colour:.2g} ± {error:.1g} to the "
                    "configurational temperature, as in shuffled epochs; predictions for independent batches fail.",
                    f"噪声与参数位置相关：对构型温度的贡献为 {colour:.2g} ± {error:.1g}，"
                    "打乱采样即如此；独立批量的预言在此不适用。",
                )
            )
    return found


def _compare(value: float, error: float, part: xr.Dataset) -> dict[str, str]:
    if not error < 0.3 * abs(value):
        return verdict(
            "kinetic_over_noise",
            "untrusted",
            "unresolved",
            "Unresolved: kinetic/noise is not known to better than a third.",
            "未分辨：动能/噪声之比的误差超过三分之一。",
        )
    if abs(value - 1) <= 3 * error:
        return verdict(
            "kinetic_over_noise",
            "ok",
            "agree",
            "The thermometers agree within three standard errors.",
            "两种温度计在三倍标准误差内一致。",
        )
    # Where every batch is drawn anew the noise has no colour.
    cause, cause_zh = (
        ("a loss that is not quadratic within its fluctuations", "涨落范围内损失不是二次的")
        if part.attrs.get("sampling") == "replacement"
        else (
            "colour of the noise under shuffled epochs, or a loss that is not quadratic",
            "打乱采样造成的有色噪声，或损失不是二次的",
        )
    )
    if _momenta_differ(part):
        cause = f"heat between layers of different momentum, {cause}"
        cause_zh = f"动量不同的各层之间传热，{cause_zh}"
    return verdict(
        "kinetic_over_noise",
        "caution",
        "disagree",
        f"Without drift the thermometers differ: kinetic/noise = {value:.3f} ± {error:.3f} ({cause}).",
        f"扣除漂移后两种温度计不一致：动能/噪声 = {value:.3f} ± {error:.3f}（{cause_zh}）。",
    )
