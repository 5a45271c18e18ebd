"""`thermodl validate`: the analyses on processes whose answers are known exactly, as a table."""

import html
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import typer
import xarray as xr

from thermodl.analyze import AnalysisSettings, physics, series, truth
from thermodl.analyze import analyze as analyze_run
from thermodl.analyze.results import open_results
from thermodl.analyze.settings import AnalysisError
from thermodl.analyze.truth import Process

STEPS, DIMENSIONS = 12_800, 64
"""of each run; 12,800 steps are whole epochs of 32"""
Title = tuple[str, str]
"""in English and Chinese"""
LIMIT = 3.0
"""standard errors within which a measurement agrees"""

_WORDS = {
    "en": ["system", "quantity", "measured", "standard error", "exact", "z", "verdict", "agrees", "disagrees"],
    "zh": ["系统", "物理量", "测量值", "标准误", "精确值", "z", "判定", "一致", "不一致"],
}
_TITLE = {"en": "ThermoDL: measured against exact", "zh": "ThermoDL：测量值与精确值对照"}
_NOTE = {
    "en": f"z = (measured − exact)/standard error; agrees: |z| < {LIMIT:g}. Identities have no error, only a rounding "
    "limit. Rows of one system share its run and fluctuate together.",
    "zh": f"z =（测量值 − 精确值）/标准误；|z| < {LIMIT:g} 为一致。恒等式没有统计误差，只有舍入限度。"
    "同一系统的各行来自同一次运行，涨落相关。",
}


@dataclass(frozen=True)
class Check:
    """One number of one analysis and what it has to be."""

    analysis: str
    variable: str
    exact: float
    lag: int | None = None
    scale: float = 1.0
    """of the measured value"""
    tolerance: float | None = None
    """of an identity, which has no standard error"""
    name: tuple[str, str] | None = None
    """in English and Chinese, if not that of the variable"""


@dataclass(frozen=True)
class System:
    """A process, and what is known of it."""

    title: Title
    process: Process
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A line of the table; `error` is NaN for an identity."""

    system: Title
    quantity: tuple[str, str]
    value: float
    error: float
    exact: float
    agrees: bool

    @property
    def z(self) -> float:
        """Difference in standard errors; NaN for an identity."""
        return (self.value - self.exact) / self.error if self.error > 0 else float("nan")


def validate(
    only: Annotated[str | None, typer.Option(help="Systems, separated by commas. [default: all]")] = None,
    seed: Annotated[int, typer.Option(help="Of the random numbers; another gives another experiment.", min=0)] = 0,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write the table to this file as HTML.")] = None,
    language: Annotated[Literal["en", "zh"], typer.Option("--lang", "--language", help="Of the table.")] = "en",
    full: Annotated[
        bool,
        typer.Option("--full", help="Also train with PyTorch, record, and analyze the recordings from their stores."),
    ] = False,
) -> None:
    """Hold the analyses against processes with exact answers, and print measured ± error beside the exact value.

    The processes are SGD on quadratic losses with known gradient noise, simulated without torch: every number of the
    table is one that `thermodl analyze` would write of such a recording, and its exact value is a closed form
    (docs/validation.md). It takes about a minute.

    Exit code: 0 if all agree, 1 if one disagrees, 2 if there is something to mend. Three standard errors are passed by
    chance about three times in a thousand rows, so that with another --seed a single row with |z| a little above 3
    says nothing; the same row with several seeds is a defect.

    \b
    thermodl validate
    thermodl validate --only nesterov,free --seed 7
    thermodl validate --full --html validation.html --lang zh
    """
    chosen = _choose(only)
    if full and find_spec("torch") is None:
        raise AnalysisError('--full trains with PyTorch, which is not installed: pip install "thermodl[record]"')
    if html_file is not None and not html_file.parent.is_dir():
        raise AnalysisError(f"--html {html_file}: there is no folder {html_file.parent}")
    rows: list[Row] = []
    for name, make in [*chosen.items(), *(_recorded().items() if full else ())]:
        started = time.monotonic()
        rows += make(seed)
        print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
    print(as_text(rows, language))
    if html_file is not None:
        html_file.write_text(as_html(rows, language), "utf-8")
    if not all(row.agrees for row in rows):
        raise typer.Exit(1)


def systems() -> dict[str, System]:
    """Every simulated system under the name that `--only` knows."""
    balls = {
        f"heavy-ball-{eta}-{mu}": System((f"heavy ball, ηλ = {eta}, μ = {mu}", f"重球法，ηλ = {eta}，μ = {mu}"), p)
        for eta, mu in ((0.05, 0.0), (0.8, 0.0), (0.2, 0.9), (0.8, 0.9))
        for p in [Process(eta, mu)]
    }
    balls["dampening"] = System(
        ("heavy ball, dampening ν = 0.5", "重球法，阻尼 ν = 0.5"), Process(0.2, 0.9, dampening=0.5)
    )
    balls["weight-decay"] = System(
        ("heavy ball, coupled weight decay 0.3", "重球法，耦合权重衰减 0.3"), Process(0.2, 0.9, weight_decay=0.3)
    )
    full = {name: System(one.title, one.process, heavy_ball_checks(one.process)) for name, one in balls.items()}
    return full | {"nesterov": _nesterov(), "free": _free(), "epoch": _epoch(), "free-epoch": _free_epoch()}


def _lag(near: int, analysis: str = "diffusion") -> int:
    """The lag of a run of `STEPS` steps that an analysis takes nearest to this one."""
    lags = series.log_lags(STEPS // (10 if analysis == "correlation" else 4), AnalysisSettings().lags_per_decade)
    return int(lags[np.argmin(np.abs(np.log(lags / near)))])


def heavy_ball_checks(process: Process, dimensions: int = DIMENSIONS) -> list[Check]:
    """What is known of stationary heavy ball (physics of `analyze/truth.py`)."""
    ball, eta = process.ball, process.learning_rate
    square = ball.lam**2 * ball.variance
    moved, rho = ball.mean_squared_displacement(1000), ball.correlation(20)
    return [
        Check("diffusion", "mean_squared_displacement", ball.variance, _lag(1000), 0.5, name=("variance Σ", "方差 Σ")),
        Check("temperature", "temperature_noise", ball.temperature),
        Check("temperature", "temperature_kinetic", ball.temperature),
        Check("temperature", "temperature_configurational", ball.temperature),
        Check("temperature", "kinetic_over_noise", 1.0),
        Check("temperature", "temperature_variance", eta / 2 * (ball.noise + square)),
        Check("temperature", "noise_trace", dimensions * ball.noise),
        Check("temperature", "gradient_norm_squared", dimensions * square),
        Check("dissipation", "gradient_dissipation", eta * dimensions * (square + ball.noise)),
        Check("dissipation", "descent_power", eta * dimensions * square),
        Check("dissipation", "noise_power", eta * dimensions * ball.noise),
        *(
            Check("diffusion", "mean_squared_displacement", float(moved[lag]), lag)
            for lag in map(_lag, (1, 2, 10, 100))
        ),
        *(
            Check("correlation", "parameter_autocorrelation", float(rho[lag]), lag)
            for lag in (_lag(near, "correlation") for near in (1, 2, 10))
        ),
        Check("correlation", "parameter_integrated_time", ball.noise / (2 * ball.lam**2 * ball.variance)),
        Check("stationarity", "fdr1_centred", 1.0),
        Check("stationarity", "fdr2", 1.0),
        Check("stationarity", "identity_residual", 0.0, tolerance=1e-10),
    ]


def _nesterov() -> System:
    process = Process(0.2, 0.9, nesterov=True)
    variance = truth.nesterov_variance(0.2, 0.9)
    return System(
        ("Nesterov, ηλ = 0.2, μ = 0.9", "Nesterov 动量，ηλ = 0.2，μ = 0.9"),
        process,
        [
            Check("diffusion", "mean_squared_displacement", variance, _lag(1000), 0.5, name=("variance Σ", "方差 Σ")),
            Check("temperature", "temperature_noise", process.ball.temperature),
            Check("temperature", "gradient_norm_squared", DIMENSIONS * variance),
            Check("dissipation", "descent_power", 0.2 * DIMENSIONS * variance),
        ],
    )


def _free() -> System:
    eta, mu, slope = 0.1, 0.9, 0.05
    ball = Process(eta, mu, curvature=0.0).ball
    diffusion = eta * ball.temperature / (1 - mu)
    return System(
        ("free motion with drift, η = 0.1, μ = 0.9", "带漂移的自由运动，η = 0.1，μ = 0.9"),
        Process(eta, mu, curvature=0.0, slope=slope),
        [
            Check("diffusion", "diffusion_coefficient", diffusion),
            Check("diffusion", "diffusion_coefficient_predicted", diffusion),
            Check("diffusion", "diffusion_coefficient_sgd_time", ball.temperature),
            Check("diffusion", "drift_velocity_squared", (eta * slope / (1 - mu)) ** 2),
            *(
                Check("diffusion", "detrended_mean_squared_displacement", truth.free_displacement(lag, eta, mu), lag)
                for lag in map(_lag, (1, 10, 100))
            ),
            Check("temperature", "temperature_kinetic", ball.temperature + eta * slope**2 / (1 - mu) ** 2),
            Check("temperature", "temperature_kinetic_drift_free", ball.temperature),
        ],
    )


def _epoch() -> System:
    variance = truth.epoch_variance(0.05, 32)
    return System(
        ("epochs of 32 steps, ηλ = 0.05, μ = 0", "每轮 32 步，ηλ = 0.05，μ = 0"),
        Process(0.05, epoch=32),
        [
            Check("diffusion", "mean_squared_displacement", variance, _lag(1000), 0.5, name=("variance Σ", "方差 Σ")),
            Check("stationarity", "fdr1_centred", 1.0),
            Check("stationarity", "identity_residual", 0.0, tolerance=1e-10),
        ],
    )


def _free_epoch() -> System:
    plateau = truth.epoch_plateau(0.1, 32)
    lags = map(_lag, (100, 1000))
    return System(
        ("epochs of 32 steps without curvature, η = 0.1", "每轮 32 步，无曲率，η = 0.1"),
        Process(0.1, curvature=0.0, epoch=32),
        [Check("diffusion", "mean_squared_displacement", plateau, lag) for lag in lags],
    )


def measure(system: System, seed: int, *, steps: int = STEPS, dimensions: int = DIMENSIONS) -> list[Row]:
    """Simulate a system and analyze the run in memory."""
    run = truth.simulate(np.random.default_rng(seed), system.process, dimensions=dimensions, steps=steps)
    settings = AnalysisSettings(segment=f"0:{steps}", windows=2, waiting_times=1)
    wanted = dict.fromkeys(check.analysis for check in system.checks)
    results = {name: physics.load(name).estimate(run, settings).compute() for name in wanted}
    return list(compare(system.title, system.checks, results))


def compare(system: Title, checks: Sequence[Check], results: Any) -> Iterator[Row]:
    """What was measured beside what is exact."""
    for check in checks:
        value, error = _number(check, results[check.analysis]), float("nan")
        if check.tolerance is None:
            error = _number(check, results[check.analysis], "_stderr")
            agrees = bool(error > 0 and abs(value - check.exact) < LIMIT * error)
        else:
            agrees = abs(value - check.exact) < check.tolerance
        attributes = results[check.analysis][check.variable].attrs
        en, zh = check.name or (str(attributes["long_name"]), str(attributes["long_name_zh"]))
        if check.lag is not None and check.name is None:
            en, zh = f"{en}, τ = {check.lag}", f"{zh}，τ = {check.lag}"
        yield Row(system, (en, zh), value, error, check.exact, agrees)


def _number(check: Check, results: xr.Dataset, suffix: str = "") -> float:
    data = results[check.variable + suffix].sel(group="all")
    return check.scale * float(data if check.lag is None else data.sel(lag=check.lag))


def double_well_checks(well: truth.DoubleWell, dimensions: int = DIMENSIONS) -> list[Check]:
    """What is known of the double well, at the lag 5 for the response of training without momentum."""
    eta, lags = well.eta, [_lag(near) for near in (1, 10, 100)]
    correlation, response = well.correlation(max(lags)), np.cumsum(well.response(5))
    moved = 2 * (correlation[0] - correlation)
    ratio = eta * well.noise * response[-1] / ((moved[5] + moved[6] - moved[1]) / 2)
    return [
        Check("temperature", "temperature_noise", well.temperature),
        Check("temperature", "temperature_kinetic", well.kinetic_temperature),
        Check("temperature", "temperature_variance", eta / 2 * (well.noise + well.force_squared)),
        Check("dissipation", "descent_power", eta * dimensions * well.force_squared),
        *(Check("diffusion", "mean_squared_displacement", float(moved[lag]), lag) for lag in lags),
        Check("response", "fdt_ratio", ratio),
        Check("stationarity", "fdr1_centred", 1.0),
        Check("stationarity", "identity_residual", 0.0, tolerance=1e-10),
    ]


def scale_invariant_checks(learning_rate: float, momentum: float, weight_decay: float) -> list[Check]:
    """What is known of the scale-invariant layer; its FDR1 is the radial balance, and so its angular step."""
    lags = [_lag(near, "correlation") for near in (1, 10)]
    rho = truth.HeavyBall(learning_rate, momentum, weight_decay).correlation(max(lags))
    return [
        Check("temperature", "kinetic_over_noise", 1.0),
        *(Check("correlation", "parameter_autocorrelation", float(rho[lag]), lag) for lag in lags),
        Check("stationarity", "fdr1_raw", 1.0, name=("radial balance wd‖w‖²/[(η/2)(1+μ)‖v‖²]",
                                                     "径向平衡 wd‖w‖²/[(η/2)(1+μ)‖v‖²]")),
        Check("stationarity", "identity_residual", 0.0, tolerance=1e-10),
    ]  # fmt: skip


def _recorded() -> dict[str, Callable[[int], list[Row]]]:
    """Heavy ball, double well and scale-invariant layer trained by PyTorch, through recorder, store and pipeline."""

    def ball(process: Process, folder: Path, seed: int) -> tuple[Title, list[Check]]:
        from thermodl.record.quadratic import record_quadratic

        eta, mu = process.learning_rate, process.momentum
        record_quadratic(folder, learning_rate=eta, momentum=mu, dimensions=DIMENSIONS, steps=STEPS + 1, seed=seed)
        title = (f"recorded training, ηλ = {eta}, μ = {mu}", f"记录的训练，ηλ = {eta}，μ = {mu}")
        return title, heavy_ball_checks(process)

    def double_well(folder: Path, seed: int) -> tuple[Title, list[Check]]:
        from thermodl.record.nonlinear import record_double_well

        well = truth.DoubleWell(0.1, 3.0)
        record_double_well(
            folder, learning_rate=well.eta, noise=well.noise, dimensions=DIMENSIONS, steps=STEPS + 1, seed=seed
        )
        title = ("recorded training, double well, η = 0.1, T = 0.15", "记录的训练，双势阱，η = 0.1，T = 0.15")
        return title, double_well_checks(well)

    def scale_invariant(folder: Path, seed: int) -> tuple[Title, list[Check]]:
        from thermodl.record.nonlinear import record_scale_invariant

        eta, mu, decay = 0.1, 0.9, 0.01
        record_scale_invariant(
            folder,
            learning_rate=eta,
            momentum=mu,
            weight_decay=decay,
            dimensions=DIMENSIONS,
            steps=STEPS + 1,
            seed=seed,
        )
        title = ("recorded training, scale-invariant layer, η·wd = 0.001, μ = 0.9",
                 "记录的训练，尺度不变层，η·wd = 0.001，μ = 0.9")  # fmt: skip
        return title, scale_invariant_checks(eta, mu, decay)

    def make(record: Callable[[Path, int], tuple[Title, list[Check]]], seed: int) -> list[Row]:
        with TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            title, checks = record(run, 2 * seed)
            wanted = dict.fromkeys(check.analysis for check in checks)
            errors = analyze_run(run, list(wanted), AnalysisSettings(segment=f"1:{STEPS + 1}", windows=2))
            for error in errors.values():
                raise error
            return list(compare(title, checks, open_results(run)))

    recordings = {
        "recorded-0.2-0.9": partial(ball, Process(0.2, 0.9)),
        "recorded-0.8-0.0": partial(ball, Process(0.8)),
        "recorded-double-well": double_well,
        "recorded-scale-invariant": scale_invariant,
    }
    return {name: partial(make, record) for name, record in recordings.items()}


def _choose(only: str | None) -> dict[str, Callable[[int], list[Row]]]:
    known = systems()
    names = [name.strip() for name in only.split(",")] if only is not None else list(known)
    for name in names:
        if name not in known:
            raise AnalysisError(f"there is no system {name!r}; expected one of {', '.join(known)}")
    return {name: lambda seed, system=known[name]: measure(system, seed) for name in names}


def cells(row: Row, language: str) -> list[str]:
    """The line's texts, in the order of the heading."""
    words, at = _WORDS[language], language == "zh"
    numbers = [f"{row.value:.5g}", f"{row.error:.2g}", f"{row.exact:.5g}", f"{row.z:+.2f}"]
    shown = ["—" if number == "nan" or number == "+nan" else number for number in numbers]
    return [row.system[at], row.quantity[at], *shown, words[7 if row.agrees else 8]]


def as_text(rows: Sequence[Row], language: str) -> str:
    """A Markdown table, which is also plain to read."""
    lines = [_WORDS[language][:7], ["---"] * 7, *(cells(row, language) for row in rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", _NOTE[language]])


def as_html(rows: Sequence[Row], language: str) -> str:
    """One file that needs nothing else."""

    def line(texts: Sequence[str], tag: str, style: str = "") -> str:
        return f"<tr{style}>{''.join(f'<{tag}>{html.escape(text)}</{tag}>' for text in texts)}</tr>"

    body = [line(cells(row, language), "td", "" if row.agrees else ' class="off"') for row in rows]
    title = html.escape(_TITLE[language])
    return "\n".join(
        [
            f'<!DOCTYPE html><html lang="{"zh-CN" if language == "zh" else "en"}"><head><meta charset="utf-8">',
            f"<title>{title}</title><style>body{{font:15px/1.5 sans-serif;margin:2em auto;max-width:70em}}",
            "td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ccc}.off{background:#fdd}</style></head>",
            f"<body><h1>{title}</h1><p>{html.escape(_NOTE[language])}</p><table>",
            f"<thead>{line(_WORDS[language][:7], 'th')}</thead><tbody>",
            *body,
            "</tbody></table></body></html>",
        ]
    )
