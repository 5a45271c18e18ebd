"""How irreversible a motion in a few directions looks: the entropy production of the autoregression that fits it.

A vector autoregression x_t = Σ_j A_j x_{t−j} + ε of order p with ⟨εεᵀ⟩ = S produces, as a stationary Gaussian process,
exactly

    σ = ½{tr[S⁻¹ R] − d},   R = ⟨rrᵀ⟩,   r_t = x_t − Σ_j A_j x_{t+j}

nats per step: the rate of the divergence between the path and the reversed one (residual form; for p = 1 it is
tr[S⁻¹(Σ − A²Σ)] − d). p is the one whose predictions are best in the half of the motion that it was not fitted to.

In equilibrium Nσ̂/2 of order 1 is χ² with d(d−1)/2 degrees of freedom, so that σ̂ is b = d(d−1)/N too large; for higher
orders bias and null are those of fits to N steps of the reversible process whose moments are the mean of those of the
fit and of its reverse, and the tail beyond the few fits that of a gamma variable.

The variance of σ̂ is v₀ by chance, as 1/N², and a part gσ, g as 1/N, both from fits scattered as N steps let them
(Lütkepohl 2005, section 3.2). As it grows with σ itself, the error would come out low where σ̂ does. It is therefore
the half-width of the score interval (Wilson 1927), of all σ with |σ̂ − b − σ| ≤ z√(v₀ + gσ), over z = 1.96:

    √(v₀ + g·max(σ̂ − b, 0) + (zg/2)²)

It covers 95 % of currents that chance alone seldom makes; those that could be chance, and equilibrium, nearly always:
no bar symmetric about σ̂ − b covers both what is a little stronger than chance and equilibrium in 95 %.

Motion between the directions turns by Im eig(QΣ⁻¹) per step, Q = ½(Γ(1)ᵀ − Γ(1)) = ½⟨x_t x_{t+1}ᵀ − x_{t+1} x_tᵀ⟩. The
fastest is a modulus: of more than two directions, chance makes it larger where it is not well above what equilibrium
stays below, and its error bar holds from twice that level on; of two it always does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from . import series

Floats = NDArray[np.float64]
ORDERS = (1, 2, 3, 4, 6, 8)
"""orders of the autoregression that are tried"""
_DRAWS = 200
"""scattered fits from which errors and null are taken"""
_TAIL = 0.05
"""probability below which that of the null is the tail of a gamma variable of its mean and variance"""
_NUMBERS = (
    *("entropy_production", "entropy_production_stderr", "entropy_production_n_eff", "entropy_production_plugin"),
    *("entropy_production_bias", "entropy_production_p", "autoregression_order"),
    *("cycling_frequency", "cycling_frequency_stderr", "cycling_frequency_null"),
)
_NEARER = 10
"""times nearer than N steps let them scatter: errors are to lowest order in 1/N"""


def turning(positions: Floats, rng: np.random.Generator) -> dict[str, Floats]:
    """σ, cycling and their errors, bias and null of a motion, by the autoregression that predicts it best.

    Args:
        positions: (d, N).

    Returns:
        Numbers, and `circulation` (d, d); NaN for fewer than two coordinates and for a fit that is not stationary, or
        nearly not.
    """
    d, steps = positions.shape
    found = {name: np.array(np.nan) for name in _NUMBERS} | {"circulation": np.full((d, d), np.nan)}
    found |= {"circulation_stderr": np.full((d, d), np.nan)}
    if d < 2:
        return found
    whitened = (positions - positions.mean(-1, keepdims=True)) / positions.std(-1, keepdims=True)
    tau, _ = series.integrated_time(series.autocovariance(whitened), oscillating=True)
    found["entropy_production_n_eff"] = np.array(steps / (2 * max(float(np.max(tau)), 0.5)))
    try:
        order = best_order(whitened)
        fit = autoregression(gram(whitened, order), d)
    except np.linalg.LinAlgError:  # a coordinate rests for half of the motion
        return found
    found["autoregression_order"] = np.array(float(order))
    sigma, rates, circulation = irreversibility(*fit)
    if np.isnan(sigma):
        return found
    moments = stationary_moments(*fit)
    # As far as a short motion lets them scatter, some would be next to not stationary, with a σ out of all proportion.
    near = _NEARER**2 * steps
    sampled = irreversibility(*scattered(moments, d, near, rng, mirrored=True))
    null = irreversibility(*scattered((moments + _reversed(moments, d)) / 2, d, near, rng))
    if not (np.isfinite(sampled[0]).all() and np.isfinite(null[0]).all()):
        return found
    by_chance = _NEARER**2 * null[0]
    if order == 1:
        bias, of_chance = d * (d - 1) / steps, 4 * d * (d - 1) / steps**2
        chance = stats.chi2.sf(steps * sigma / 2, d * (d - 1) / 2)
    else:
        bias, of_chance = np.mean(by_chance), np.var(by_chance)
        chance = (1 + np.sum(by_chance >= sigma)) / (1 + _DRAWS)
        # Few draws tell no small probability: what chance gives is a sum of squares, much like a gamma variable.
        if chance < _TAIL:
            chance = stats.gamma.sf(sigma, bias**2 / of_chance, scale=of_chance / bias)
    # What is even in the scatter is chance, and does not grow with σ.
    odd = (sampled[0][: _DRAWS // 2] - sampled[0][_DRAWS // 2 :]) / 2
    growth = _NEARER**2 * np.mean(odd**2) / sigma if sigma > 0 else 0.0
    frequency, turned = _fastest(rates, sampled[1])
    numbers = {
        "entropy_production": sigma - bias,
        "entropy_production_stderr": np.sqrt(
            of_chance + growth * max(sigma - bias, 0.0) + (series.NORMAL / 2 * growth) ** 2
        ),
        "entropy_production_plugin": sigma,
        "entropy_production_bias": bias,
        "entropy_production_p": chance,
        "cycling_frequency": frequency,
        "cycling_frequency_stderr": _NEARER * np.std(turned),
        "cycling_frequency_null": _NEARER * np.quantile(np.max(np.linalg.eigvals(null[1]).imag, axis=-1), 0.95),
    }
    found |= {name: np.array(float(value)) for name, value in numbers.items()}
    return found | {"circulation": circulation, "circulation_stderr": _NEARER * np.std(sampled[2], axis=0)}


def best_order(positions: Floats) -> int:
    """The order whose fit to one half of the motion (d, N) gives the other the largest likelihood, both ways."""
    d, steps = positions.shape
    orders = [order for order in ORDERS if d * order <= steps // 20] or [1]
    halves = [gram(half, orders[-1]) for half in np.array_split(positions, 2, axis=1)]

    def loss(order: int) -> float:
        total, size = 0.0, d * (order + 1)
        for fitted, other in (halves, halves[::-1]):
            coefficients, noise = autoregression(fitted[:size, :size], d)
            filtered = np.concatenate([np.eye(d), -coefficients], axis=1)
            missed = filtered @ other[:size, :size] @ filtered.T
            total += np.linalg.slogdet(noise)[1] + np.trace(np.linalg.solve(noise, missed))
        return total

    return min(orders, key=loss)


def gram(positions: Floats, order: int) -> Floats:
    """⟨z zᵀ⟩ of z_t = (x_t, x_{t−1}, …, x_{t−p}), (d(p+1), d(p+1)), of centred positions (d, N)."""
    steps = positions.shape[1] - order
    lagged = np.concatenate([positions[:, order - lag : order - lag + steps] for lag in range(order + 1)])
    return lagged @ lagged.T / steps


def autoregression(moments: Floats, d: int) -> tuple[Floats, Floats]:
    """Least squares x_t = Σ_j A_j x_{t−j} + ε from `gram`: A (d, dp) side by side, and S = ⟨εεᵀ⟩ (d, d)."""
    coefficients = np.asarray(np.linalg.solve(moments[d:, d:], moments[d:, :d]).T, dtype=np.float64)
    return coefficients, moments[:d, :d] - coefficients @ moments[d:, :d]


def stationary_moments(coefficients: Floats, noise: Floats) -> Floats:
    """⟨z zᵀ⟩ of z_t = (x_t, x_{t−1}, …, x_{t−p}), (…, d(p+1), d(p+1)), as `gram` would find them in the long run.

    Args:
        coefficients: (…, d, dp). noise: (…, d, d).

    Returns:
        NaN where the autoregression is not stationary.
    """
    d, past = coefficients.shape[-2:]
    # One more in the state than the recursion needs, for the reversed residual.
    step, moments = np.zeros((2, *coefficients.shape[:-2], past + d, past + d))
    step[..., :d, :past], step[..., d:, :past] = coefficients, np.eye(past)
    moments[..., :d, :d] = noise
    stationary = np.max(np.abs(np.linalg.eigvals(step)), axis=-1) < 1 - 1e-9
    step[~stationary] = 0
    while np.max(np.abs(step)) > 1e-16:
        moments, step = moments + step @ moments @ _transposed(step), step @ step
    moments[~stationary] = np.nan
    return moments


def irreversibility(coefficients: Floats, noise: Floats) -> tuple[Floats, Floats, Floats]:
    """σ per step, QΣ⁻¹ per step and Q over the standard deviations of stationary autoregressions.

    Args:
        coefficients: (…, d, dp). noise: (…, d, d).

    Returns:
        (…,), (…, d, d) and (…, d, d); NaN where they are not stationary.
    """
    d = noise.shape[-1]
    moments = stationary_moments(coefficients, noise)
    one = np.broadcast_to(np.eye(d), noise.shape)
    filtered = np.concatenate([one, -coefficients], axis=-1)
    residual = filtered @ _reversed(moments, d) @ _transposed(filtered)
    sigma = (np.trace(np.linalg.solve(noise, residual), axis1=-2, axis2=-1) - d) / 2
    equal, later = moments[..., :d, :d], moments[..., :d, d : 2 * d]
    area = (_transposed(later) - later) / 2
    deviation = np.sqrt(np.diagonal(equal, axis1=-2, axis2=-1))
    rates = _transposed(np.linalg.solve(equal, _transposed(area)))
    return sigma, rates, area / (deviation[..., :, None] * deviation[..., None, :])


def scattered(
    moments: Floats, d: int, steps: int, rng: np.random.Generator, *, mirrored: bool = False
) -> tuple[Floats, Floats]:
    """Least squares fits to `steps` steps of a Gaussian autoregression, by their distribution for many steps.

    Coefficients are normal with covariance S ⊗ ⟨z zᵀ⟩⁻¹/N, z the values regressed on, and independent of S, whose
    relative error is that of a covariance of N samples (Lütkepohl 2005, proposition 3.2 and section 3.4).

    Args:
        moments: (d(p+1), d(p+1)), from `stationary_moments`.
        mirrored: let the second half of the fits be off by as much as the first, in the other sense.

    Returns:
        `_DRAWS` of A (…, d, dp) and of S (…, d, d).
    """
    coefficients, noise = autoregression(moments, d)
    kick = np.linalg.cholesky(noise)
    # Smooth motion hardly moves along some of them, which may come out as less than nothing.
    sizes, directions = np.linalg.eigh(moments[d:, d:])
    known = directions / np.sqrt(steps * np.maximum(sizes, 1e-15 * sizes[-1]))
    draws = _DRAWS // 2 if mirrored else _DRAWS
    normal, square = (rng.standard_normal((draws, d, size)) for size in (len(sizes), d))
    if mirrored:
        normal, square = (np.concatenate([one, -one]) for one in (normal, square))
    spread = np.eye(d) + (square + _transposed(square)) / np.sqrt(2 * steps)
    return coefficients + kick @ normal @ known.T, kick @ spread @ kick.T


def _fastest(rates: Floats, others: Floats) -> tuple[float, Floats]:
    """The fastest of the frequencies Im eig of (d, d), and how it changes in others (…, d, d), to first order.

    With its sign: the modulus itself would scatter less the nearer it is to 0.
    """
    values, right = np.linalg.eig(rates)
    index = np.argmax(np.imag(values))
    left = np.linalg.inv(right)[index]
    return float(np.imag(values[index])), np.imag(left @ others @ right[:, index])


def _reversed(moments: Floats, d: int) -> Floats:
    """Moments (…, d(p+1), d(p+1)) of the process played backwards."""
    size = moments.shape[-1]
    blocks = moments.reshape(*moments.shape[:-2], size // d, d, size // d, d)
    return blocks[..., ::-1, :, ::-1, :].reshape(moments.shape)


def _transposed(matrices: NDArray[Any]) -> Floats:
    return np.swapaxes(matrices, -1, -2)
