"""Training with exact answers: SGD with momentum on ½λθ² under known noise, as a run that the analyses read.

    g_t = (λ+w)θ_t + G + ξ_t,   v_{t+1} = μv_t + (1−ν)g_t,   θ_{t+1} = θ_t − ηv_{t+1}   (Nesterov: g_t + μv_{t+1})

w is coupled weight decay, G a constant slope, ⟨ξ²⟩ = C. ξ is white, or drawn as in epochs of M batches without
replacement: it then sums to zero over each, with Cov(ξ_i, ξ_j) = −C/(M−1). All formulas are exact for this loss and
noise at every ηλ below the limit of stability, and for no other (Liu, Ziyin & Ueda 2021, ICML; Kühn & Rosenow 2023,
arXiv 2306.05300). Those of heavy ball hold with η(1−ν) for η and λ+w for λ.

Two losses that are not quadratic have exact answers as well: the double well, by quadrature, and the scale-invariant
layer, whose noise drives it along a sphere while weight decay holds its radius.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class HeavyBall:
    """SGD with momentum on ½λθ² with white gradient noise of variance C (Liu, Ziyin & Ueda 2021).

    Args:
        learning_rate, momentum: η, μ. curvature: λ. noise: C.
    """

    def __init__(self, learning_rate: float, momentum: float, curvature: float = 1.0, noise: float = 1.0):
        self.eta, self.mu, self.lam, self.noise = learning_rate, momentum, curvature, noise
        self.x = learning_rate * curvature

    @property
    def temperature(self) -> float:
        """ηC/(2(1−μ))."""
        return self.eta * self.noise / (2 * (1 - self.mu))

    @property
    def variance(self) -> float:
        """Σ = ηC(1+μ)/[λ(1−μ)(2(1+μ) − ηλ)]."""
        mu = self.mu
        return self.eta * self.noise * (1 + mu) / (self.lam * (1 - mu) * (2 * (1 + mu) - self.x))

    @property
    def mid_velocity_squared(self) -> float:
        """⟨v_mid²⟩ = C/(2(1−μ)), whatever the curvature."""
        return self.noise / (2 * (1 - self.mu))

    def correlation(self, longest: int) -> Floats:
        """ρ(0…longest): ρ(k) = (1+μ−x)ρ(k−1) − μρ(k−2), ρ(1) = (1+μ−x)/(1+μ)."""
        first = 1 + self.mu - self.x
        rho = [1.0, first / (1 + self.mu)]
        while len(rho) <= longest:
            rho.append(first * rho[-1] - self.mu * rho[-2])
        return np.array(rho[: longest + 1])

    def mean_squared_displacement(self, longest: int) -> Floats:
        """2Σ(1 − ρ(τ)) for τ = 0…longest."""
        return 2 * self.variance * (1 - self.correlation(longest))


def nesterov_variance(learning_rate: float, momentum: float, curvature: float = 1.0, noise: float = 1.0) -> float:
    """Σ = η²C[((1+μ)²+μ²)(1+μq) − 2μ(1+μ)²q] / [(1−μq) ηλ (1+(1+2μ)q)], q = 1−ηλ."""
    mu, x = momentum, learning_rate * curvature
    q = 1 - x
    top = ((1 + mu) ** 2 + mu**2) * (1 + mu * q) - 2 * mu * (1 + mu) ** 2 * q
    return learning_rate**2 * noise * top / ((1 - mu * q) * x * (1 + (1 + 2 * mu) * q))


def nesterov_temperature(frequency: Floats, learning_rate: float, momentum: float, noise: float = 1.0) -> Floats:
    """T(ω) = (ηC/2)[1+2μ(1+μ)(1−cos ω)]/[1−μ+2μ(1−cos ω)]; ηC/(2(1−μ)) at ω → 0."""
    mu, turn = momentum, 1 - np.cos(frequency)
    return learning_rate * noise / 2 * (1 + 2 * mu * (1 + mu) * turn) / (1 - mu + 2 * mu * turn)


def free_displacement(lag: int, learning_rate: float, momentum: float, noise: float = 1.0) -> float:
    """MSD(τ) = η²C/(1−μ)² [τ − 2μ(1−μ^τ)/(1−μ²)] of heavy ball without curvature."""
    forgotten = 2 * momentum * (1 - momentum**lag) / (1 - momentum**2)
    return learning_rate**2 * noise / (1 - momentum) ** 2 * (lag - forgotten)


def epoch_variance(learning_rate: float, steps: int, curvature: float = 1.0, noise: float = 1.0) -> float:
    """Σ = η²C/(1−a²)·{1 − 2s/(M(M−1))}, s = [M−(M+1)a+a^{M+1}]/(1−a)² − M, a = 1−ηλ; no momentum, M = `steps`."""
    a = 1 - learning_rate * curvature
    s = (steps - (steps + 1) * a + a ** (steps + 1)) / (1 - a) ** 2 - steps
    return learning_rate**2 * noise / (1 - a**2) * (1 - 2 * s / (steps * (steps - 1)))


def epoch_plateau(learning_rate: float, steps: int, noise: float = 1.0) -> float:
    """η²C(M+1)/3, where the MSD stays after one epoch of M = `steps` without curvature and momentum."""
    return learning_rate**2 * noise * (steps + 1) / 3


def decoupled_dissipation(
    velocity_squared: float, parameter_squared: float, learning_rate: float, momentum: float, decay: float
) -> float:
    """⟨θ·g⟩ of stationary θ′ = aθ − ηv′, a = 1 − η·wd: (η⟨v²⟩/2)(1/a+μ) − ((1−a²)⟨θ²⟩/(2η))(1/a−μ), for any loss.

    That is FDR1 under decoupled weight decay, without dampening; of heavy ball it would be (1+μ)η⟨v²⟩/2.
    """
    a = 1 - learning_rate * decay
    lost = (1 - a**2) * parameter_squared / (2 * learning_rate)
    return learning_rate * velocity_squared / 2 * (1 / a + momentum) - lost * (1 / a - momentum)


def angular_step(learning_rate: float, momentum: float, weight_decay: float) -> float:
    """√(η²⟨v²⟩/⟨w²⟩) = √(2η·wd/(1+μ)) of a scale-invariant layer under coupled weight decay (Wan et al. 2021).

    For g·w = 0 it is FDR1, which says there wd⟨‖w‖²⟩ = (η/2)(1+μ)⟨‖v‖²⟩ and no more: the radial balance.
    """
    return float(np.sqrt(2 * learning_rate * weight_decay / (1 + momentum)))


class DoubleWell:
    """SGD without momentum on x⁴/4 − x²/2 under white Gaussian gradient noise, stationary, every number by quadrature.

    A step takes x to y with the density K(x, y) = N(y; x − ηU′(x), η²C). On a grid finer than η√C the trapezoidal rule
    is exact to rounding, and averages over the stationary density p = pK are sums: no small η is assumed.

    Args:
        learning_rate: η. noise: C.
    """

    def __init__(self, learning_rate: float, noise: float):
        self.eta, self.noise = learning_rate, noise
        width = learning_rate * np.sqrt(noise)
        self.x = np.linspace(-3, 3, 2 * int(np.ceil(9 / width)) + 1)
        self.force = self.x**3 - self.x
        """U′(x)"""
        jump = (self.x[None] - (self.x - learning_rate * self.force)[:, None]) / width
        kernel = np.exp(-(jump**2) / 2)
        self.kernel = kernel / kernel.sum(axis=1, keepdims=True)
        self.density = np.linalg.matrix_power(self.kernel, 2**20)[len(self.x) // 2]

    @property
    def temperature(self) -> float:
        """ηC/2."""
        return self.eta * self.noise / 2

    @property
    def force_squared(self) -> float:
        """⟨U′²⟩, which is ‖∇L‖² per parameter."""
        return float(self.density @ self.force**2)

    @property
    def kinetic_temperature(self) -> float:
        """η⟨v_mid²⟩ = (η/2)(⟨g²⟩ + ⟨g_t g_{t+1}⟩), with g_t = (x_t − x_{t+1})/η."""
        gradient = (self.x[:, None] - self.x[None]) / self.eta
        following = float(self.density @ (self.kernel * gradient) @ self.force)
        return self.eta / 2 * (self.force_squared + self.noise + following)

    def correlation(self, longest: int) -> Floats:
        """⟨x_0 x_τ⟩ for τ = 0…longest."""
        return (self.density * self.x) @ self._means(longest)

    def response(self, longest: int) -> Floats:
        """R(τ) = −⟨x_τ ξ_0⟩/C for τ = 1…longest, the answer to a push, since the noise is Gaussian (Novikov 1965)."""
        noise = (self.x[:, None] - self.x[None]) / self.eta - self.force[:, None]
        return -(self.density @ (self.kernel * noise)) @ self._means(longest - 1) / self.noise

    def _means(self, longest: int) -> Floats:
        """Mean place τ = 0…longest steps after each place, (place, τ)."""
        means = [self.x]
        for _ in range(longest):
            means.append(self.kernel @ means[-1])
        return np.stack(means, axis=1)


@dataclass(frozen=True)
class Process:
    """A training: η, μ, λ, C, ν, w, G, Nesterov, and the steps of an epoch, None for independent batches.

    `decoupled_decay` shrinks θ by 1 − η·wd in every step, beside the gradient (SGDW).
    """

    learning_rate: float
    momentum: float = 0.0
    curvature: float = 1.0
    noise: float = 1.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    slope: float = 0.0
    nesterov: bool = False
    epoch: int | None = None
    decoupled_decay: float = 0.0

    @property
    def ball(self) -> HeavyBall:
        """The heavy ball that it is, but for slope, Nesterov and epochs."""
        rate, stiffness = self.learning_rate * (1 - self.dampening), self.curvature + self.weight_decay
        return HeavyBall(rate, self.momentum, stiffness, self.noise)


def simulate(
    rng: np.random.Generator, process: Process, *, dimensions: int = 64, steps: int = 10_000, probe_every: int = 5
) -> xr.Dataset:
    """A run as `open_run` gives it, of independent parameters that all do the same, recorded once stationary.

    The sketch is exact: it has a coordinate for each parameter. vᵀHv is taken where the probes are.
    """
    theta, velocity, gradient, noise = (np.empty((steps, dimensions)) for _ in range(4))
    x, v = np.zeros(dimensions), np.zeros(dimensions)
    eta, mu, stiffness = process.learning_rate, process.momentum, process.curvature + process.weight_decay
    burn_in = 20 * round(1 / (1 - mu) + (1 / (eta * stiffness) if stiffness else 1))
    # Whole epochs, so that the recording begins with one.
    burn_in += -burn_in % (process.epoch or 1)
    drawn = _noise(rng, process, burn_in + steps, dimensions)
    for step in range(burn_in + steps):
        g = stiffness * x + process.slope + drawn[step]
        if step >= burn_in:
            row = step - burn_in
            theta[row], velocity[row], gradient[row], noise[row] = x, v, g, drawn[step]
        v = mu * v + (1 - process.dampening) * g
        x = (1 - eta * process.decoupled_decay) * x - eta * (g + mu * v if process.nesterov else v)
    probe_step = np.arange(0, steps, probe_every)
    mean = (gradient - noise)[probe_step]
    probe = mean + np.sqrt(process.noise) * rng.standard_normal(mean.shape)
    moments = {
        "parameter_squared": (theta, theta),
        "displacement_squared": (theta - theta[0], theta - theta[0]),
        "gradient_squared": (gradient, gradient),
        "velocity_squared": (velocity, velocity),
        "parameter_dot_gradient": (theta, gradient),
        "parameter_dot_velocity": (theta, velocity),
        "velocity_dot_gradient": (velocity, gradient),
    }
    constants = {name: getattr(process, name) for name in ("learning_rate", "momentum", "dampening", "weight_decay")}
    of_step = {name: (("layer", "step"), np.sum(a * b, axis=1)[None]) for name, (a, b) in moments.items()}
    of_probe = {
        "noise_trace": (("layer", "probe"), 0.5 * np.sum((gradient[probe_step] - probe) ** 2, axis=1)[None]),
        "gradient_dot": (("layer", "probe"), np.sum(gradient[probe_step] * probe, axis=1)[None]),
        "velocity_curvature": (("layer", "curvature"), stiffness * np.sum(velocity[probe_step] ** 2, axis=1)[None]),
    }
    sketches = {
        f"{name}_sketch": (("group", "sketch", "step"), values.T[None])
        for name, values in (("parameter", theta), ("gradient", gradient))
    } | {"probe_sketch": (("group", "sketch", "probe"), probe.T[None])}
    rows = {name: (("optimizer_group", "step"), np.full((1, steps), value)) for name, value in constants.items()}
    loss = np.sum((0.5 * process.curvature * theta + process.slope + noise) * theta, axis=1)
    optimizer = {"class": "SGDW" if process.decoupled_decay else "SGD", "nesterov": process.nesterov}
    sampling = {"sampling": "shuffle" if process.epoch else "replacement", "steps_per_epoch": process.epoch}
    return xr.Dataset(
        of_step | of_probe | sketches | rows | {"loss": ("step", loss)},
        coords={
            "group": ["theta"],
            "layer": ["theta"],
            "step": np.arange(steps),
            "probe_step": ("probe", probe_step),
            "curvature_step": ("curvature", probe_step),
            "sgd_time": ("step", process.ball.eta / (1 - mu) * np.arange(steps)),
            "layer_group": ("layer", ["theta"]),
            "layer_size": ("layer", [dimensions]),
            "layer_optimizer_group": ("layer", [0]),
        },
        attrs={"optimizer": optimizer, "parameter_dtype": "float64"}
        | {key: value for key, value in sampling.items() if value is not None},
    )


def _noise(rng: np.random.Generator, process: Process, steps: int, dimensions: int) -> Floats:
    """ξ of every step, (step, dimension)."""
    white = rng.standard_normal((steps + -steps % (process.epoch or 1), dimensions)) * np.sqrt(process.noise)
    if process.epoch is None:
        return white
    epochs = white.reshape(-1, process.epoch, dimensions)
    scale = np.sqrt(process.epoch / (process.epoch - 1))
    return ((epochs - epochs.mean(axis=1, keepdims=True)) * scale).reshape(white.shape)[:steps]
