"""What is measured at every due step: exact inner products per layer, and sketches per group.

Before the step the optimizer holds θ_t, g_t and v_t, and the recorder θ_ref: one pass over them gives row t. Where the
optimizer keeps no velocity the recorder keeps θ_{t−1} too: the update Δθ_{t−1} = θ_t − θ_{t−1} stands in for v_t, and
its square completes row t − 1. All sums are accumulated in float64, because θ·g is far smaller than ‖θ‖‖g‖ and the
identities of the analysis live on the difference. On a CPU compiled kernels read the tensors where they lie, since
what recording costs there is reading memory; elsewhere the same sums are made of torch calls.

The gradient g is the one the optimizer descends: `sign·p.grad + weight_decay·θ`, where sign is −1 under `maximize`
and weight_decay is that of the coupled L2 penalty (0 where the decay is decoupled).
"""

from typing import NamedTuple

import numba
import numpy as np
import torch
from numba.core import cgutils, types
from numba.extending import intrinsic
from torch import Tensor

from .sketch import sketch

PRODUCTS = (
    "gradient_squared",
    "parameter_dot_gradient",
    "parameter_squared",
    "displacement_squared",
    "displacement_dot_gradient",
    "velocity_squared",
    "velocity_dot_gradient",
    "parameter_dot_velocity",
    "update_squared",
)
"""rows of the products; the last is that of the update before this step, NaN for a layer with a velocity of its own"""
VELOCITY = ("velocity_squared", "velocity_dot_gradient", "parameter_dot_velocity")
SKETCHES = ("gradient_sketch", "parameter_sketch")
PROBE_PRODUCTS = ("noise_trace", "gradient_dot", "probe_dot_displacement")
_ROWS, _BLOCK = 2, 2**9
"""rows that are folded into a sketch together, and elements of which products are summed before; they and what they are
read from must leave the nearest cache room for what the training reads next"""
# Sums may be reordered, but a NaN must stay a NaN.
_FASTMATH = {"reassoc", "contract", "nsz"}


class Now(NamedTuple):
    """What a layer holds at the moment of measuring; flat tensors of shape (n,), on one device."""

    parameter: Tensor
    gradient: Tensor | None
    """`p.grad`; None counts as zeros"""
    sign: float
    weight_decay: float
    velocity: Tensor | None
    """v_t where the optimizer keeps it"""
    velocity_per_update: float = 0.0
    """without `velocity`: v_t = velocity_per_update·Δθ_{t−1}, −1/η where there is no momentum, 0 if v is not defined"""


def measure(
    now: list[Now],
    layout: np.ndarray,
    reference: Tensor,
    previous: Tensor | None,
    signs: Tensor,
    products: Tensor,
    sketches: Tensor,
) -> None:
    """Sums over all layers before a step, never waited for on a device.

    Args:
        now: one per layer.
        layout: (layer, 4) start in the flat vector, size, group, offset within the group.
        reference: (parameter,) θ_ref, layer after layer.
        previous: (parameter,) θ_{t−1}, which becomes θ_t where a layer has no velocity and is not looked at elsewhere;
            it may be None if all have one.
        signs: (parameter,) int8, the sketch's.
        products: (`PRODUCTS`, layer) receives the inner products.
        sketches: (`SKETCHES`, group, k) receives Pg and P(θ−θ_ref).
    """
    if reference.device.type != "cpu":
        measure_on_device(now, layout, reference, previous, signs, products, sketches)
        return
    previous = reference[:0] if previous is None else previous
    _measure_compiled(
        np.array([_addresses(layer) for layer in now], dtype=np.int64),
        np.array([_scales(layer) for layer in now]),
        layout,
        *(tensor.numpy() for tensor in (reference, previous, signs, products, sketches)),
    )


def _addresses(layer: Now) -> tuple[int, int, int]:
    """Where θ, g and v lie; what is missing is read from θ, and counts as nothing by its scale."""
    at = layer.parameter.data_ptr()
    gradient = at if layer.gradient is None else layer.gradient.data_ptr()
    return at, gradient, at if layer.velocity is None else layer.velocity.data_ptr()


def _scales(layer: Now) -> tuple[float, float, float, float]:
    sign = 0.0 if layer.gradient is None else layer.sign
    return sign, layer.weight_decay, layer.velocity_per_update, float(layer.velocity is not None)


def measure_on_device(
    now: list[Now],
    layout: np.ndarray,
    reference: Tensor,
    previous: Tensor | None,
    signs: Tensor,
    products: Tensor,
    sketches: Tensor,
) -> None:
    """`measure` in torch calls, for devices that the compiled kernel cannot reach."""
    wide = products.dtype
    sketches.zero_()
    for index, (layer, (start, size, group, offset)) in enumerate(zip(now, layout.tolist(), strict=True)):
        part = slice(start, start + size)
        p = layer.parameter.to(wide)
        g = layer.weight_decay * p
        if layer.gradient is not None:
            g = g + layer.sign * layer.gradient.to(wide)
        d = p - reference[part].to(wide)
        products[-1, index] = torch.nan
        if layer.velocity is None and previous is not None:
            update = p - previous[part].to(wide)
            v = layer.velocity_per_update * update
            products[-1, index] = torch.dot(update, update)
            previous[part] = layer.parameter
        elif layer.velocity is not None:
            v = layer.velocity.to(wide)
        else:
            raise ValueError("a layer without velocity needs the parameters of the step before")
        pairs = ((g, g), (p, g), (p, p), (d, d), (d, g), (v, v), (v, g), (p, v))
        products[:-1, index] = torch.stack([torch.dot(a, b) for a, b in pairs])
        for row, values in enumerate((g, d)):
            sketches[row, group] += sketch(values, signs[part], offset, sketches.shape[-1])


def measure_probe(
    now: list[Now],
    others: list[Tensor | None],
    layout: np.ndarray,
    reference: Tensor,
    signs: Tensor,
    products: Tensor,
    folded: Tensor,
) -> None:
    """Sums over all layers with the gradient g′ of an independent mini-batch.

    Args:
        now, layout, reference, signs: as for `measure`.
        others: flat g′ of each layer as autograd gives it; None counts as zeros.
        products: (`PROBE_PRODUCTS`, layer) receives ½‖g−g′‖², g·g′ and g′·(θ−θ_ref).
        folded: (group, k) receives Pg′.
    """
    if reference.device.type == "cpu":
        pairs = [layer._replace(velocity=other) for layer, other in zip(now, others, strict=True)]
        _measure_probe_compiled(
            np.array([_addresses(pair) for pair in pairs], dtype=np.int64),
            np.array([(*_scales(pair)[:2], pair.sign * (pair.velocity is not None)) for pair in pairs]),
            layout,
            *(tensor.numpy() for tensor in (reference, signs, products, folded)),
        )
    else:
        measure_probe_on_device(now, others, layout, reference, signs, products, folded)


def measure_probe_on_device(
    now: list[Now],
    others: list[Tensor | None],
    layout: np.ndarray,
    reference: Tensor,
    signs: Tensor,
    products: Tensor,
    folded: Tensor,
) -> None:
    """`measure_probe` in torch calls."""
    wide = products.dtype
    folded.zero_()
    for index, (layer, (start, size, group, offset)) in enumerate(zip(now, layout.tolist(), strict=True)):
        part = slice(start, start + size)
        p = layer.parameter.to(wide)
        g, other = (
            layer.weight_decay * p + (0.0 if raw is None else layer.sign * raw.to(wide))
            for raw in (layer.gradient, others[index])
        )
        d = p - reference[part].to(wide)
        products[:, index] = torch.stack(
            [torch.dot(g - other, g - other) / 2, torch.dot(g, other), torch.dot(other, d)]
        )
        folded[group] += sketch(other, signs[part], offset, folded.shape[-1])


@intrinsic
def _pointer(_, address):  # noqa: ARG001 - numba looks at its type
    """An address as a pointer; numba can otherwise not reach what a tensor holds without a call for each."""

    def code(_, builder, __, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


@numba.njit(cache=True)
def _at(address, size, like):
    return numba.carray(_pointer(address), size, like.dtype)  # type: ignore[reportCallIssue, reportPrivateImportUsage]


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _measure_compiled(addresses, scales, layout, reference, previous, signs, products, sketches):
    sketches[:] = 0.0
    width = sketches.shape[-1]
    for index in range(len(layout)):
        start, size, group, offset = layout[index]
        sign, weight_decay, per_update, has_velocity = scales[index]
        parameter = _at(addresses[index, 0], size, reference)
        gradient = _at(addresses[index, 1], size, reference)
        velocity = _at(addresses[index, 2], size, reference)
        sums = products[:, index]
        sums[:] = 0.0
        if has_velocity:
            sums[-1] = np.nan
        begin = 0
        while begin < size:
            # The block stays in the cache until its rows are folded.
            end = min(size, begin + _BLOCK)
            here, there = slice(begin, end), slice(start + begin, start + end)
            g, p, r = gradient[here], parameter[here], reference[there]
            if has_velocity:
                _add(sums, _products(g, sign, weight_decay, p, r, velocity[here]))
            else:
                q = previous[there]
                _add(sums, _products_by_update(g, sign, weight_decay, p, r, q, per_update))
                q[:] = p
            row, column = begin, (offset + begin) % width
            while row < end:
                whole = column == 0 and row + _ROWS * width <= end
                following = row + _ROWS * width if whole else min(end, row + width - column)
                here, there = slice(row, following), slice(start + row, start + following)
                columns = slice(column, column + min(width, following - row))
                g, p, r, s = gradient[here], parameter[here], reference[there], signs[there]
                of_gradient, of_displacement = sketches[0, group, columns], sketches[1, group, columns]
                if whole:
                    _fold_rows(g, sign, weight_decay, p, r, s, of_gradient, of_displacement)
                else:
                    _fold_row(g, sign, weight_decay, p, r, s, of_gradient, of_displacement)
                row, column = following, 0
            begin = end


@numba.njit(cache=True)
def _add(sums, more):
    for index in range(len(more)):
        sums[index] += more[index]


# Separate loops for products and sketches: with more arrays in one, the compiler can no longer tell that they do not
# overlap, and gives up on vector instructions.


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _products(gradient, sign, weight_decay, parameter, reference, velocity):
    gg = pg = pp = dd = dg = vv = vg = pv = 0.0
    for j in range(parameter.size):
        p = np.float64(parameter[j])
        g = sign * np.float64(gradient[j]) + weight_decay * p
        d = p - np.float64(reference[j])
        v = np.float64(velocity[j])
        gg += g * g
        pg += p * g
        pp += p * p
        dd += d * d
        dg += d * g
        vv += v * v
        vg += v * g
        pv += p * v
    return gg, pg, pp, dd, dg, vv, vg, pv


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _products_by_update(gradient, sign, weight_decay, parameter, reference, previous, velocity_per_update):
    gg = pg = pp = dd = dg = ug = pu = uu = 0.0
    for j in range(parameter.size):
        p = np.float64(parameter[j])
        g = sign * np.float64(gradient[j]) + weight_decay * p
        d = p - np.float64(reference[j])
        u = p - np.float64(previous[j])
        gg += g * g
        pg += p * g
        pp += p * p
        dd += d * d
        dg += d * g
        ug += u * g
        pu += p * u
        uu += u * u
    c = velocity_per_update
    return gg, pg, pp, dd, dg, c * c * uu, c * ug, c * pu, uu


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _measure_probe_compiled(addresses, scales, layout, reference, signs, products, folded):
    folded[:] = 0.0
    width = folded.shape[-1]
    for index in range(len(layout)):
        start, size, group, offset = layout[index]
        sign, weight_decay, other_sign = scales[index]
        parameter = _at(addresses[index, 0], size, reference)
        gradient = _at(addresses[index, 1], size, reference)
        other = _at(addresses[index, 2], size, reference)
        sums = products[:, index]
        sums[:] = 0.0
        begin, column = 0, offset % width
        while begin < size:
            end = min(size, begin + width - column)
            here, there = slice(begin, end), slice(start + begin, start + end)
            g, h, p, r = gradient[here], other[here], parameter[here], reference[there]
            _add(sums, _probe_products(g, sign, h, other_sign, weight_decay, p, r))
            out = folded[group, column : column + end - begin]
            _add_gradient_sketch(h, other_sign, weight_decay, p, signs[there], out)
            begin, column = end, 0


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _probe_products(gradient, sign, other, other_sign, weight_decay, parameter, reference):
    noise = dot = along = 0.0
    for j in range(parameter.size):
        p = np.float64(parameter[j])
        g = sign * np.float64(gradient[j]) + weight_decay * p
        h = other_sign * np.float64(other[j]) + weight_decay * p
        noise += (g - h) * (g - h) / 2
        dot += g * h
        along += h * (p - np.float64(reference[j]))
    return noise, dot, along


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _add_gradient_sketch(gradient, sign, weight_decay, parameter, signs, out):
    for j in range(out.size):
        out[j] += signs[j] * (sign * np.float64(gradient[j]) + weight_decay * np.float64(parameter[j]))


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _fold_row(gradient, sign, weight_decay, parameter, reference, signs, of_gradient, of_displacement):
    for j in range(of_gradient.size):
        p, s = np.float64(parameter[j]), np.float64(signs[j])
        of_gradient[j] += s * (sign * np.float64(gradient[j]) + weight_decay * p)
        of_displacement[j] += s * (p - np.float64(reference[j]))


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _fold_rows(gradient, sign, weight_decay, parameter, reference, signs, of_gradient, of_displacement):
    """`_fold_row` for `_ROWS` rows one after the other, whose sums are read and written once."""
    width = of_gradient.size
    for j in range(width):
        gradients = displacements = 0.0
        for i in range(_ROWS):
            k = i * width + j
            p, s = np.float64(parameter[k]), np.float64(signs[k])
            gradients += s * (sign * np.float64(gradient[k]) + weight_decay * p)
            displacements += s * (p - np.float64(reference[k]))
        of_gradient[j] += gradients
        of_displacement[j] += displacements
