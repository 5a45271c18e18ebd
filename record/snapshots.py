"""Snapshots of all parameters as whole numbers: exact, or to a stated part of the way between two snapshots.

The low bits of a float32 parameter are noise that no lossless code can shorten. What the physics needs is the motion,
so the grid on which a snapshot is stored follows the motion. Let θ_n be the parameters of a layer at snapshot n and

    d_n = rms(θ_n − θ_{n−1})            the rms displacement of the layer since the snapshot before
    q_n = 2·tolerance·d_n               the quantum
    c_n = round((θ_n − θ̂_{n−1})/q_n)    the whole numbers that are stored
    θ̂_n = θ̂_{n−1} + q_n c_n             what a reader gets, rounded to the parameters' own type

The differences are taken against what the reader has, so errors do not add up: |θ̂_n − θ_n| ≤ q_n/2 = tolerance·d_n for
every parameter (plus half a spacing of floats). Fine against the motion, the error is uniform and independent of it:
its rms is tolerance·d_n/√3, and the mean squared displacement between neighbours comes out larger by 2/3·tolerance²
(0.67 % at 0.1); the measured rms in units of d_n is stored beside. In every 64th snapshot the initial parameters θ_ref
stand for θ̂_{n−1}, so that damage ends there. The chunks need not be as wide: a large model has one snapshot in each,
and what is committed is not written again. Gaussian displacements of one size need at least
log₂(√3/tolerance) bits each at this error, the rate-distortion bound; real ones differ in size and need less.

A layer is stored exactly where d_n does not give a usable quantum: at the first snapshot of a run, where the layer has
not moved, where something is not finite, and throughout for tolerance 0. Then q_n is NaN, and c_n is the second
difference of the bit patterns b_n of the floats, as whole numbers that wrap around:

    c_n = b_n − (2 b_{n−1} − b_{n−2})   with b_ref at every 64th snapshot, and b_{n−1} alone right after it

since with momentum the velocity lasts. Whole numbers of either sign are stored as 2c for c ≥ 0 and −2c − 1 for c < 0,
which leaves the high bits zero for the bit shuffle to collect. Everything depends on the past alone: what was
committed is never coded anew. Delta coding and the tie to an absolute error follow the practice of molecular
trajectories (Lundborg et al., J. Comput. Chem. 35, 260 (2014)), the bits' difference that of Lindstrom & Isenburg,
IEEE Trans. Vis. Comput. Graph. 12, 1245 (2006). This module knows nothing of torch.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

# Readers must get the same bits from the same formula, in numpy too: sums may be reordered, but nothing fused.
_jit = numba.njit(cache=True, nogil=True)
_jit_nearest = numba.njit(cache=True, nogil=True, fastmath={"reassoc"})
_jit_sums = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
PERIOD = 64
"""snapshots from one that is coded against the initial parameters to the next"""
_LARGEST_COUNT = {4: 2.0**30, 8: 2.0**52}
"""of quanta, by the bytes of a float: within the whole numbers of that size"""


class SnapshotEncoder:
    """Codes snapshot after snapshot; holds three vectors of all parameters beside the reference.

    Args:
        reference: (parameter,) the initial parameters, float32 or float64; kept, not copied.
        sizes: parameters of each layer.
        tolerance: largest error in units of the rms displacement between two snapshots; 0 is lossless.
        period: snapshots from one that starts anew to the next.
    """

    def __init__(self, reference: np.ndarray, sizes: list[int], tolerance: float, period: int):
        edges = np.cumsum([0, *sizes])
        self._layers = [slice(start, stop) for start, stop in pairwise(edges.tolist())]
        self._tolerance, self._period = tolerance, period
        self._count = 0
        self._reference, self._previous = reference, np.full_like(reference, np.nan)
        self._last, self._before = reference.copy(), reference.copy()

    def encode(self, parameters: np.ndarray) -> tuple[np.ndarray, NDArray[np.float64], NDArray[np.float32]]:
        """Code the next snapshots.

        Args:
            parameters: (parameter, n), read fastest if consecutive in memory along the first dimension.

        Returns:
            Codes (parameter, n), quanta (layer, n), and rms errors in units of the rms displacement (layer, n).
        """
        dtype = self._last.dtype
        rows = np.ascontiguousarray(parameters.T, dtype)
        codes = np.empty(rows.shape, f"u{dtype.itemsize}")
        quanta = np.full((len(self._layers), len(rows)), np.nan)
        errors = np.zeros(quanta.shape, np.float32)
        for n, now in enumerate(rows):
            if self._count % self._period == 0:
                self._last[:] = self._before[:] = self._reference
            for layer, part in enumerate(self._layers):
                quanta[layer, n], errors[layer, n] = self._encode_layer(now[part], part, codes[n, part])
            if self._count % self._period == 0:
                # No velocity is known from one snapshot.
                self._before[:] = self._last
            self._previous[:] = now
            self._count += 1
        return codes.T, quanta, errors

    def state_dict(self) -> dict[str, Any]:
        """How many snapshots there were, and what the next one is coded against; arrays of their own."""
        vectors = {"previous": self._previous, "last": self._last, "before": self._before}
        return {"count": self._count} | {name: vector.copy() for name, vector in vectors.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._count = int(state["count"])
        for name, vector in (("previous", self._previous), ("last", self._last), ("before", self._before)):
            vector[:] = np.asarray(state[name])

    def _encode_layer(self, now: np.ndarray, part: slice, codes: np.ndarray) -> tuple[float, float]:
        last, before, whole = self._last[part], self._before[part], f"i{now.itemsize}"
        squares, largest = _distances(now, self._previous[part], last)
        moved = math.sqrt(squares / max(1, now.size))
        quantum = 2 * self._tolerance * moved
        if not (math.isfinite(quantum) and quantum > 0 and largest <= _LARGEST_COUNT[now.itemsize] * quantum):
            _encode_exactly(now.view(whole), last.view(whole), before.view(whole), 64 - 8 * now.itemsize, codes)
            return math.nan, 0.0
        squares = _encode_nearest(now, last, before, quantum, codes.view(whole))
        return quantum, math.sqrt(squares / now.size) / moved


def decode(codes: np.ndarray, quanta: np.ndarray, layer: np.ndarray, reference: np.ndarray, period: int) -> np.ndarray:
    """Parameters from their codes.

    Args:
        codes: (parameter, snapshot), from a snapshot that starts anew.
        quanta: (layer, snapshot) of the same snapshots.
        layer: (parameter,) the layer of each parameter.
        reference: (parameter,) the initial parameters.
        period: snapshots from one that starts anew to the next.

    Returns:
        (parameter, snapshot), float32 or float64 as the codes have 4 or 8 bytes.
    """
    parameters = np.empty(codes.shape, f"f{codes.itemsize}")
    whole = f"i{codes.itemsize}"
    reference = np.ascontiguousarray(reference, parameters.dtype)
    _decode(codes, quanta, layer, reference, reference.view(whole), period, parameters, parameters.view(whole))
    return parameters


@_jit_sums
def _distances(now: np.ndarray, previous: np.ndarray, last: np.ndarray) -> tuple[float, float]:
    """Σ(θ_n − θ_{n−1})², and the largest of |θ_n| and |θ_n − θ̂_{n−1}|; NaN shows in the first."""
    squares, largest = 0.0, 0.0
    for i in range(now.size):
        value = np.float64(now[i])
        moved = value - previous[i]
        squares += moved * moved
        largest = max(largest, abs(value), abs(value - last[i]))
    return squares, largest


@_jit_nearest
def _encode_nearest(now: np.ndarray, last: np.ndarray, before: np.ndarray, quantum: float, codes: np.ndarray) -> float:
    """Code on the grid and step on: θ̂_{n−1}, θ̂_{n−2} become θ̂_n, θ̂_{n−1}. Returns the sum of squared errors."""
    squares, per_quantum = 0.0, 1 / quantum
    for i in range(now.size):
        value = np.float64(last[i])
        count = np.rint((now[i] - value) * per_quantum)
        codes[i] = 2 * count if count >= 0 else -2 * count - 1
        before[i] = last[i]
        last[i] = value + quantum * count
        error = np.float64(last[i]) - now[i]
        squares += error * error
    return squares


@_jit
def _encode_exactly(now: np.ndarray, last: np.ndarray, before: np.ndarray, spare: int, codes: np.ndarray) -> None:
    """Code bit patterns and step on; `spare` is how many bits of 64 a pattern leaves free."""
    for i in range(now.size):
        change = np.int64(now[i]) - 2 * np.int64(last[i]) + np.int64(before[i])
        change = (change << spare) >> spare
        codes[i] = (change << 1) ^ (change >> 63)
        before[i] = last[i]
        last[i] = now[i]


@_jit
def _decode(
    codes: np.ndarray,
    quanta: np.ndarray,
    layer: np.ndarray,
    reference: np.ndarray,
    reference_bits: np.ndarray,
    period: int,
    values: np.ndarray,
    bits: np.ndarray,
) -> None:
    """`bits` is the memory of `values`, seen as whole numbers."""
    for j in range(codes.shape[0]):
        for n in range(codes.shape[1]):
            code = np.uint64(codes[j, n])
            whole = np.int64(code >> np.uint64(1)) ^ -np.int64(code & np.uint64(1))
            place = n % period
            quantum = quanta[layer[j], n]
            if np.isnan(quantum):
                last = np.int64(bits[j, n - 1] if place else reference_bits[j])
                before = np.int64(bits[j, n - 2]) if place > 1 else last
                bits[j, n] = whole + 2 * last - before
            else:
                near = np.float64(values[j, n - 1] if place else reference[j])
                values[j, n] = near + quantum * np.float64(whole)
