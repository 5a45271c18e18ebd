"""What is measured at every step: exact inner products per layer, and sketches per group.

Before the step the optimizer holds θ_t, g_t and v_t; after it θ_{t+1}. All sums are accumulated in float64, because
θ·g is far smaller than ‖θ‖‖g‖ and the identities of the analysis live on the difference. On a CPU two compiled
kernels read every parameter once; elsewhere the same sums are made of torch calls.

The gradient g is the one the optimizer descends: `sign·p.grad + weight_decay·θ`, where sign is −1 under `maximize`
and weight_decay is that of the coupled L2 penalty (0 where the decay is decoupled).
"""

import numba
import numpy as np
import torch
from torch import Tensor

from .sketch import sketch

BEFORE = (
    "gradient_squared",
    "parameter_dot_gradient",
    "parameter_squared",
    "displacement_squared",
    "displacement_dot_gradient",
    "velocity_squared",
    "velocity_dot_gradient",
    "parameter_dot_velocity",
)
AFTER = ("update_squared", "update_dot_gradient", "parameter_dot_update")
VELOCITY = ("velocity_squared", "velocity_dot_gradient", "parameter_dot_velocity")
# Sums may be reordered, but a NaN must stay a NaN.
_FASTMATH = {"reassoc", "contract", "nsz"}


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _before_step_compiled(
    gradient, sign, weight_decay, parameter, reference, velocity, signs, offset, out, gradient_sketch, displacement_sketch
):
    out[:] = 0.0
    size = gradient_sketch.size
    column, start = offset % size, 0
    while start < parameter.size:
        stop = min(parameter.size, start + size - column)
        g, p, r, v = gradient[start:stop], parameter[start:stop], reference[start:stop], velocity[start:stop]
        s, width = signs[start:stop], stop - start
        gg = pg = pp = dd = dg = vv = vg = pv = 0.0
        for j in range(width):
            pj = np.float64(p[j])
            gj = sign * np.float64(g[j]) + weight_decay * pj
            dj = pj - np.float64(r[j])
            vj = np.float64(v[j])
            gg += gj * gj
            pg += pj * gj
            pp += pj * pj
            dd += dj * dj
            dg += dj * gj
            vv += vj * vj
            vg += vj * gj
            pv += pj * vj
        out += np.array((gg, pg, pp, dd, dg, vv, vg, pv))
        gs, ds = gradient_sketch[column : column + width], displacement_sketch[column : column + width]
        for j in range(width):
            pj = np.float64(p[j])
            gs[j] += s[j] * (sign * np.float64(g[j]) + weight_decay * pj)
            ds[j] += s[j] * (pj - np.float64(r[j]))
        column, start = 0, stop


@numba.njit(cache=True, fastmath=_FASTMATH, nogil=True)
def _after_step_compiled(
    gradient, sign, weight_decay, parameter, previous, signs, offset, out, update_sketch
):
    out[:] = 0.0
    size = update_sketch.size
    column, start = offset % size, 0
    while start < parameter.size:
        stop = min(parameter.size, start + size - column)
        g, p, q = gradient[start:stop], parameter[start:stop], previous[start:stop]
        s, width = signs[start:stop], stop - start
        us = update_sketch[column : column + width]
        uu = ug = pu = 0.0
        for j in range(width):
            qj = np.float64(q[j])
            uj = np.float64(p[j]) - qj
            uu += uj * uj
            ug += uj * (sign * np.float64(g[j]) + weight_decay * qj)
            pu += qj * uj
        out += np.array((uu, ug, pu))
        for j in range(width):
            uj = p[j] - q[j]
            us[j] += s[j] * np.float64(uj)
            q[j] = uj
        column, start = 0, stop


def before_step(
    gradient: Tensor,
    sign: float,
    weight_decay: float,
    parameter: Tensor,
    reference: Tensor,
    velocity: Tensor,
    signs: Tensor,
    offset: int,
    out: Tensor,
    gradient_sketch: Tensor,
    displacement_sketch: Tensor,
) -> None:
    """Sums over one layer before the step; all tensors flat and on one device, never waited for.

    Args:
        gradient, parameter, reference, velocity: (n,) `p.grad`, θ_t, θ_ref, v_t.
        sign, weight_decay: make g = sign·gradient + weight_decay·θ.
        signs: (n,) int8; offset: the layer's place in its group.
        out: (8,) receives `BEFORE`.
        gradient_sketch, displacement_sketch: (k,) Pg and P(θ−θ_ref) of the layer are added.
    """
    if parameter.device.type == "cpu":
        arrays = (parameter.numpy(), reference.numpy(), velocity.numpy(), signs.numpy())
        sums = (out.numpy(), gradient_sketch.numpy(), displacement_sketch.numpy())
        _before_step_compiled(gradient.numpy(), sign, weight_decay, *arrays, offset, *sums)
        return
    wide = out.dtype
    p, v = parameter.to(wide), velocity.to(wide)
    g = sign * gradient.to(wide) + weight_decay * p
    d = p - reference.to(wide)
    pairs = ((g, g), (p, g), (p, p), (d, d), (d, g), (v, v), (v, g), (p, v))
    out.copy_(torch.stack([torch.dot(a, b) for a, b in pairs]))
    gradient_sketch += sketch(g, signs, offset, gradient_sketch.numel())
    displacement_sketch += sketch(d, signs, offset, displacement_sketch.numel())


def after_step(
    gradient: Tensor,
    sign: float,
    weight_decay: float,
    parameter: Tensor,
    previous: Tensor,
    signs: Tensor,
    offset: int,
    out: Tensor,
    update_sketch: Tensor,
) -> None:
    """Sums over one layer after the step; `previous` holds θ_t and is overwritten with Δθ = θ_{t+1} − θ_t.

    Args:
        gradient, parameter, previous: (n,) `p.grad`, θ_{t+1}, θ_t.
        out: (3,) receives `AFTER`.
        update_sketch: (k,) PΔθ of the layer is added.
    """
    if parameter.device.type == "cpu":
        arrays = (parameter.numpy(), previous.numpy(), signs.numpy())
        _after_step_compiled(gradient.numpy(), sign, weight_decay, *arrays, offset, out.numpy(), update_sketch.numpy())
        return
    wide = out.dtype
    q = previous.to(wide)
    u = parameter.to(wide) - q
    g = sign * gradient.to(wide) + weight_decay * q
    out.copy_(torch.stack([torch.dot(u, u), torch.dot(u, g), torch.dot(q, u)]))
    update_sketch += sketch(u, signs, offset, update_sketch.numel())
    previous.copy_(parameter - previous)
