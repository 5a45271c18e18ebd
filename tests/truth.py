"""Processes with exact answers: what every estimator of ThermoDL is held against; beside those of `analyze/truth.py`.

Each function returns series of shape (..., N) drawn from an explicit generator, started in the stationary state; the
exact answers are functions beside it. Formulas are those of physics.md, section 1.5, where each was checked.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, signal

from thermodl.analyze.truth import HeavyBall

__all__ = ["HeavyBall"]
Floats = NDArray[np.float64]


def ornstein_uhlenbeck(rng: np.random.Generator, shape: tuple[int, ...], correlation_time: float) -> Floats:
    """Unit-variance Ornstein–Uhlenbeck process, an AR(1) at unit steps."""
    decay = np.exp(-1 / correlation_time)
    noise = rng.standard_normal(shape) * np.sqrt(1 - decay**2)
    start = rng.standard_normal(shape[:-1])
    series, _ = signal.lfilter([1.0], [1.0, -decay], noise, axis=-1, zi=(decay * start)[..., None])
    return series


def ornstein_uhlenbeck_integrated_time(correlation_time: float) -> float:
    """τ_int = ½(1+a)/(1−a), a = e^{−1/τ}."""
    decay = np.exp(-1 / correlation_time)
    return 0.5 * (1 + decay) / (1 - decay)


def ar2(rng: np.random.Generator, shape: tuple[int, ...], phi1: float, phi2: float) -> Floats:
    """x_t = φ₁x_{t−1} + φ₂x_{t−2} + ε with unit-variance ε; a transient is dropped."""
    burn = 500
    noise = rng.standard_normal((*shape[:-1], shape[-1] + burn))
    return signal.lfilter([1.0], [1.0, -phi1, -phi2], noise, axis=-1)[..., burn:]


def ar2_integrated_time(phi1: float, phi2: float) -> float:
    """τ_int of an AR(2): spectral density at zero over twice the variance."""
    variance = (1 - phi2) / ((1 + phi2) * ((1 - phi2) ** 2 - phi1**2))
    return 1 / (1 - phi1 - phi2) ** 2 / (2 * variance)


def brownian(rng: np.random.Generator, shape: tuple[int, ...], diffusion: float) -> Floats:
    """Free diffusion, ⟨Δx(τ)²⟩ = 2Dτ per coordinate."""
    return np.cumsum(rng.standard_normal(shape) * np.sqrt(2 * diffusion), axis=-1)


def brownian_shared(rng: np.random.Generator, coordinates: int, steps: int, sources: int, diffusion: float) -> Floats:
    """Brownian coordinates driven by only `sources` independent noises; each still has ⟨Δx(τ)²⟩ = 2Dτ on average."""
    mixing = rng.standard_normal((coordinates, sources))
    mixing *= np.sqrt(coordinates / np.sum(mixing**2))
    return mixing @ brownian(rng, (sources, steps), diffusion)


def fractional_brownian(rng: np.random.Generator, coordinates: int, steps: int, hurst: float) -> Floats:
    """Fractional Brownian motion, ⟨Δx(τ)²⟩ = τ^{2H}, by circulant embedding of its increments (Davies & Harte 1987)."""
    lag = np.arange(steps)
    covariance = 0.5 * (np.abs(lag + 1) ** (2 * hurst) - 2 * lag ** (2 * hurst) + np.abs(lag - 1) ** (2 * hurst))
    ring = np.concatenate([covariance, [0.0], covariance[:0:-1]])
    weights = np.sqrt(np.maximum(np.fft.fft(ring).real, 0) / len(ring))
    noise = rng.standard_normal((coordinates, len(ring))) + 1j * rng.standard_normal((coordinates, len(ring)))
    return np.cumsum(np.fft.fft(weights * noise, axis=-1)[:, :steps].real, axis=-1)


def scaled_brownian(rng: np.random.Generator, shape: tuple[int, ...], exponent: float) -> Floats:
    """Scaled Brownian motion from the origin: independent increments, ⟨x(t)²⟩ = t^α per coordinate, t = 0, 1, …"""
    grown = np.arange(shape[-1]) ** exponent
    return np.cumsum(rng.standard_normal(shape) * np.sqrt(np.diff(grown, prepend=0.0)), axis=-1)


def gradient_descent(rng: np.random.Generator, shape: tuple[int, ...], learning_rate: float) -> tuple[Floats, Floats]:
    """SGD on ½θ² with unit white gradient noise, stationary: θ and g of every step; θ_{t+1} = θ_t − η g_t."""
    decay, burn = 1 - learning_rate, round(10 / learning_rate)
    noise = rng.standard_normal((*shape[:-1], shape[-1] + burn))
    theta = signal.lfilter([0.0, -learning_rate], [1.0, -decay], noise, axis=-1)[..., burn:]
    return theta, theta + noise[..., burn:]


def double_well(
    rng: np.random.Generator, walkers: int, steps: int, temperature: float, learning_rate: float
) -> NDArray[np.float32]:
    """Overdamped motion in U = x⁴/4 − x²/2 from the left well, (walkers, steps): x′ = x − ηU′(x) + √(2ηT) ξ.

    SGD time is ηt, the mobility 1 (physics.md 1.12).
    """
    x = np.full(walkers, -1.0)
    out = np.empty((steps, walkers), np.float32)
    kick = np.sqrt(2 * learning_rate * temperature)
    for step in range(steps):
        out[step] = x
        x += learning_rate * (x - x**3) + kick * rng.standard_normal(walkers)
    return out.T


def double_well_first_passage(temperature: float, start: float = -1.0, end: float = 1.0) -> float:
    """Mean SGD time from one place of the double well to another, 1/T ∫ dy e^{U(y)/T} ∫_{−∞}^y dz e^{−U(z)/T}."""
    z = np.linspace(-3.5, end, 40_001)
    potential = z**4 / 4 - z**2 / 2
    below = integrate.cumulative_trapezoid(np.exp(-potential / temperature), z, initial=0)
    inside = z >= start
    return float(integrate.trapezoid((np.exp(potential / temperature) * below)[inside], z[inside]) / temperature)


def scale_invariant_layer(
    rng: np.random.Generator,
    replicates: int,
    dimensions: int,
    steps: int,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> tuple[Floats, Floats, Floats]:
    """‖w_t‖², ‖v_{t+1}‖² and the angle from w_t to w_{t+1}, each (replicate, N), of a layer before a normalization.

    g = (ξ − ŵŵ·ξ)/‖w‖ with white ξ of unit variance: all noise, along the sphere, less on a larger one (physics.md 4).
    """
    radius = (learning_rate * (dimensions - 1) / (2 * weight_decay * (1 - momentum))) ** 0.25
    w, v = rng.standard_normal((replicates, dimensions)), np.zeros((replicates, dimensions))
    w *= radius / np.linalg.norm(w, axis=1, keepdims=True)
    burn_in = round(20 / (learning_rate * weight_decay))
    out = np.empty((3, steps, replicates))
    for step in range(-burn_in, steps):
        xi, square = rng.standard_normal(w.shape), np.sum(w * w, axis=1)
        gradient = (xi - w * (np.sum(xi * w, axis=1) / square)[:, None]) / np.sqrt(square)[:, None]
        v = momentum * v + gradient + weight_decay * w
        before, w = w, w - learning_rate * v
        if step >= 0:
            cosine = np.sum(before * w, axis=1) / np.sqrt(square * np.sum(w * w, axis=1))
            out[:, step] = square, np.sum(v * v, axis=1), np.arccos(cosine)
    squared, moved, angle = out.swapaxes(1, 2)
    return squared, moved, angle


def coverage(
    estimator: Callable[[Floats], tuple[Floats, Floats]], replicates: Floats, truth: float, level: float = 1.959964
) -> float:
    """Fraction of replicates whose interval value ± level·stderr holds the truth.

    Args:
        estimator: from one replicate to (value, stderr).
        replicates: replicate first.
    """
    hits = []
    for replicate in replicates:
        value, error = estimator(replicate)
        hits.append(abs(value - truth) <= level * error)
    return float(np.mean(hits))


class LinearDescent:
    """SGD with momentum down the force −Hθ with white gradient noise of covariance C (physics.md 1.5, 1.9).

    A symmetric H that does not commute with C is a Brownian gyrator, H = kI + wJ with C ∝ I turns: neither is in
    equilibrium.

    Args:
        learning_rate, momentum, dampening: η, μ, ν. curvature: H (d, d). noise: C (d, d).
    """

    def __init__(self, learning_rate: float, momentum: float, curvature: Floats, noise: Floats, dampening: float = 0.0):
        self.eta, self.mu, self.nu = learning_rate, momentum, dampening
        self.curvature, self.noise = np.asarray(curvature, float), np.asarray(noise, float)
        self.size = len(self.curvature)

    @property
    def moments(self) -> Floats:
        """Stationary covariance of (v_t, θ_t), (2d, 2d)."""
        one = np.eye(self.size)
        pull = np.block([[self.mu * one, (1 - self.nu) * self.curvature], [np.zeros_like(one), one]])
        step = np.block([[one, np.zeros_like(one)], [-self.eta * one, one]]) @ pull
        kick = np.concatenate([one, -self.eta * one]) * (1 - self.nu)
        covariance = kick @ self.noise @ kick.T
        for _ in range(40):
            covariance, step = covariance + step @ covariance @ step.T, step @ step
        return covariance

    @property
    def mid_velocity(self) -> Floats:
        """⟨v_mid v_midᵀ⟩, (d, d); v_t + v_{t+1} = (1+μ)v_t + (1−ν)(Hθ_t + ξ_t)."""
        both = np.concatenate([(1 + self.mu) * np.eye(self.size), (1 - self.nu) * self.curvature.T]) / 2
        return both.T @ self.moments @ both + (1 - self.nu) ** 2 * self.noise / 4

    @property
    def heat(self) -> Floats:
        """q = (1−μ)(T_kin − T_noise) of each coordinate, (d,)."""
        kinetic = self.eta * np.diag(self.mid_velocity) / (1 - self.nu)
        return (1 - self.mu) * kinetic - self.eta * (1 - self.nu) * np.diag(self.noise) / 2

    @property
    def entropy_production(self) -> float:
        """σ = (1−μ)[2(1−μ) tr(C⁻¹⟨v_mid v_midᵀ⟩)/(1−ν)² − d] per step."""
        excess = 2 * (1 - self.mu) * np.trace(np.linalg.solve(self.noise, self.mid_velocity)) / (1 - self.nu) ** 2
        return (1 - self.mu) * (excess - self.size)

    @property
    def entropy_production_of_the_spectrum(self) -> float:
        """σ = ½∫dω/2π {tr[S(−ω)⁻¹S(ω)] − d} of the positions."""
        shift = np.exp(-1j * 2 * np.pi * np.arange(2**14) / 2**14)[:, None, None]
        turn, one = (1 - self.nu) * self.eta * self.curvature, np.eye(self.size)
        inverse = np.linalg.inv(one - ((1 + self.mu) * one - turn) * shift + self.mu * one * shift**2)
        spectrum = inverse @ self.noise @ inverse.conj().swapaxes(1, 2)
        ratio = np.trace(np.linalg.solve(spectrum.conj(), spectrum), axis1=1, axis2=2).real
        return float(np.mean(ratio - self.size) / 2)

    def simulate(self, rng: np.random.Generator, replicates: int, steps: int) -> tuple[Floats, Floats, Floats, Floats]:
        """θ_t, v_t before the step, g_t and an independent g′_t, each (replicate, coordinate, N)."""
        d = self.size
        start = rng.multivariate_normal(np.zeros(2 * d), self.moments, replicates, method="cholesky")
        velocity, theta = start[:, :d], start[:, d:]
        out = np.empty((4, steps, replicates, d))
        noise = rng.standard_normal((2, steps, replicates, d)) @ np.linalg.cholesky(self.noise).T
        for t in range(steps):
            force = theta @ self.curvature.T
            out[:, t] = theta, velocity, force + noise[0, t], force + noise[1, t]
            velocity = self.mu * velocity + (1 - self.nu) * out[2, t]
            theta = theta - self.eta * velocity
        return tuple(np.moveaxis(out, 1, 3))
