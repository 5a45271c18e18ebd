"""Colour of the gradient noise: whether it remembers, as that of shuffled epochs does.

It is that of g−g′ against the gradients of the steps before, through the sketch. Nothing before step s knows of noise
that is drawn anew there, so that with T = tr C

    A(h) = ⟨(g_s − g′_s)·g_{s−h}⟩/T = 0 of white noise                           at every lag, of any loss and optimizer
    A(h) = −(M−h)/(M(N/B−1)) for h < M,   0 beyond                                  of epochs of M shuffled batches
    S(ω)/T = 1 + 2 Σ_{h<M} A(h) cos ωh                                              1 if white; S(0) ≈ 0 if shuffled

(physics.md 1.6, where N/B = M; of the probes at hand the part that has s−h in the epoch of s stands for (M−h)/M where
epochs were recorded, or probes that always fall on the same place in an epoch would be read wrongly). Later gradients
hold the response to the noise, and are left alone. The second line is that of flat directions: where the motion relaxes
within an epoch, λ above 3(1−μ)/(η(M+1)), ∇L follows the noise of the epoch and hides in g what S lacks at ω → 0, so
that S(0)/T comes out between 0 and 1. A value that differs from 1 is evidence against white noise; a value near 1 under
shuffled epochs is no evidence for it. A mean gradient far above the noise widens the error.
"""

from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from . import errorbar, series
from .blocks import as_estimate, over_groups
from .quantities import sgd_time_per_step, steps_per_epoch

NAMES = {
    "noise_autocovariance": ("1", "autocovariance of the noise over tr C", "噪声自协方差与 tr C 之比"),
    "noise_spectrum": ("1", "spectrum of the noise over tr C", "噪声谱与 tr C 之比"),
    "low_frequency_weight": ("1", "weight of the noise at low frequency S(0)/tr C", "噪声的低频权重 S(0)/tr C"),
}
_PROBES = 4096
"""most probes, evenly chosen, that are held against the past"""
_LONGEST_PAST = 1000
"""steps of the past where the length of an epoch is not known"""
_FREQUENCIES = 12


def noise_colour(part: xr.Dataset) -> dict[str, xr.DataArray]:
    """Autocovariance, spectrum and low-frequency weight of the noise, and what shuffled epochs make of them.

    Args:
        part: of a run, with gradient and probe sketches.

    Returns:
        `noise_autocovariance` (group, lag), means over factors of lags, `noise_spectrum` (group, frequency), in cycles
        per step, and `low_frequency_weight` (group,), with errors, each with that of epochs in `_shuffled`; and
        `steps_per_epoch`. Nothing where fewer than four probes have a past.
    """
    epoch, enough = steps_per_epoch(part), part.sizes["step"] // 4
    reach = min(epoch - 1 if epoch else _LONGEST_PAST, enough)
    places = part["probe_step"].values - int(part["step"].values[0])
    late = np.flatnonzero(places >= reach)
    if reach < 1 or len(late) < 4:
        return {}
    late = late[np.unique(np.linspace(0, len(late) - 1, min(len(late), _PROBES)).round().astype(int))]
    past, places = np.arange(1, reach + 1), places[late]
    edges = np.append(series.log_lags(reach, 8), reach + 1)
    bins = np.stack([(past >= low) & (past < high) for low, high in pairwise(edges)])
    frequency = np.geomspace(1 / (2 * reach), 0.5, _FREQUENCIES) if reach > 1 else np.array([0.5])
    weights = np.concatenate(
        [
            bins / bins.sum(1, keepdims=True),
            2 * np.cos(2 * np.pi * frequency[:, None] * past),
            np.full((1, reach), 2.0),
        ]
    )

    def add(_: int, gradients: np.ndarray, probes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        difference = gradients[:, places].astype(float) - probes[:, late]
        return _products_with_past(difference, gradients, places, weights)

    def finish(_: int, sums: np.ndarray, traces: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
        return {"ratio": series.ratio_and_error(sums, np.broadcast_to(traces, sums.shape))}

    measured = over_groups(add, finish, [part["gradient_sketch"], part["probe_sketch"]])["ratio"]
    value, error, n_eff = as_estimate(measured, part, "weight")
    shuffled = weights @ _shuffled(part, places, past, epoch)
    lag = xr.DataArray(edges[:-1] + (np.diff(edges) - 1) / 2, dims="lag")
    spans = {
        "noise_autocovariance": (slice(len(bins)), {"lag": lag, "lag_sgd_time": lag * sgd_time_per_step(part)}, 0.0),
        "noise_spectrum": (slice(len(bins), -1), {"frequency": ("frequency", frequency)}, 1.0),
        "low_frequency_weight": (-1, {}, 1.0),
    }
    found: dict[str, xr.DataArray] = {}
    for name, (where, coordinates, white) in spans.items():
        dim = {"weight": next(iter(coordinates), None)}
        one = [values.isel(weight=where) for values in (value + white, error, n_eff)]
        one = [values.rename(dim).assign_coords(coordinates) if coordinates else values for values in one]
        found |= errorbar.named(name, (one[0], one[1], one[2]), *NAMES[name], samples=not coordinates)
        units, en, zh = NAMES[name]
        found[f"{name}_shuffled"] = xr.DataArray(
            shuffled[where] + white,
            dims=[dim["weight"]] if coordinates else [],
            attrs={
                "units": units,
                "long_name": f"{en}, of shuffled epochs",
                "long_name_zh": f"打乱采样时的{zh}",
            },
        )
    found["steps_per_epoch"] = xr.DataArray(
        float(epoch or np.nan) if part.attrs.get("sampling") == "shuffle" else np.nan,
        attrs={"units": "step", "long_name": "steps per epoch", "long_name_zh": "每轮步数"},
    )
    return found


def _shuffled(part: xr.Dataset, places: np.ndarray, past: np.ndarray, epoch: int | None) -> np.ndarray:
    """A(h) of the probes at hand if batches are shuffled anew in every epoch; NaN if its length is not known."""
    if not epoch:
        return np.full(len(past), np.nan)
    batch, size = part.attrs.get("batch_size"), part.attrs.get("train_size")
    batches = size / batch if batch and size else epoch
    number = part["epoch"].values if "epoch" in part else np.array([-1])
    if np.all(number >= 0):
        together = np.array([np.mean(number[places] == number[places - lag]) for lag in past])
    else:
        together = np.maximum(1 - past / epoch, 0.0)
    return -together / (batches - 1)


def _products_with_past(
    differences: series.Floats, gradients: series.Floats, places: NDArray[np.int64], weights: series.Floats
) -> tuple[series.Floats, series.Floats]:
    """Weighted sums over lags of x(s)·g(s−h), and ½‖x(s)‖², each at its own place s in a series g.

    Args:
        differences: x of shape (coordinate, n). gradients: (coordinate, N).
        places: (n,) of each x in the series, at least H. weights: (F, H) at the lags h = 1 … H.

    Returns:
        (F, n) and (n,).
    """
    reach = weights.shape[1]
    # Lags grow as time goes back.
    weights = np.ascontiguousarray(weights[:, ::-1].T, dtype=np.float64)
    sums = np.empty((weights.shape[1], len(places)))
    for column, (place, x) in enumerate(zip(places, np.asarray(differences.T, dtype=np.float64), strict=True)):
        sums[:, column] = (x @ gradients[:, place - reach : place]) @ weights
    return sums, np.sum(np.asarray(differences, dtype=np.float64) ** 2, axis=0) / 2
