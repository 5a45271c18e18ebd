"""Processes with exact answers: what every estimator of ThermoDL is held against; beside those of `analyze/truth.py`.

Each function returns series of shape (..., N) drawn from an explicit generator, started in the stationary state; the
exact answers are functions beside it. Formulas are those of physics.md, section 1.5, where each was checked.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import signal

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


def gradient_descent(rng: np.random.Generator, shape: tuple[int, ...], learning_rate: float) -> tuple[Floats, Floats]:
    """SGD on ½θ² with unit white gradient noise, stationary: θ and g of every step; θ_{t+1} = θ_t − η g_t."""
    decay, burn = 1 - learning_rate, round(10 / learning_rate)
    noise = rng.standard_normal((*shape[:-1], shape[-1] + burn))
    theta = signal.lfilter([0.0, -learning_rate], [1.0, -decay], noise, axis=-1)[..., burn:]
    return theta, theta + noise[..., burn:]


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
