"""Why a recording lacks channels: the attribute `not_recorded`."""

from .observables import PROBE_PRODUCTS, PRODUCTS, SKETCHES, VELOCITY
from .settings import RecorderSettings

CHUNKS = ("chunk_noise_trace", "chunk_count")
PER_SAMPLE = ("per_sample_noise_trace", "per_sample_count")


def reasons(
    settings: RecorderSettings,
    optimizer: str,
    ranks: int,
    *,
    has_probe: bool,
    has_samples: bool,
    has_velocity: bool,
    keeps_parameters: bool,
) -> dict[str, str]:
    """The reason why there is none, by the arrays that would hold it.

    Args:
        settings: of the recorder.
        optimizer: name of its class.
        ranks: data-parallel processes.
        has_probe, has_samples: whether the recorder was given a probe, and samples with their loss.
        has_velocity: whether the heavy-ball velocity is defined for the optimizer.
        keeps_parameters: whether the recorder keeps θ_{t−1}, from which it takes the update.
    """
    found: dict[str, str] = {}
    if ranks > 1:
        found |= dict.fromkeys(CHUNKS, "gradients are exchanged among processes amid the micro-batches")
    if not settings.curvature_every:
        found["velocity_curvature"] = "curvature_every is 0"
    elif not has_probe:
        found["velocity_curvature"] = "there is no probe"
    if not settings.per_sample_every:
        found |= dict.fromkeys(PER_SAMPLE, "per_sample_every is 0")
    elif not has_samples:
        found |= dict.fromkeys(PER_SAMPLE, "the recorder needs both samples and sample_loss")
    elif ranks > 1:
        found |= dict.fromkeys(PER_SAMPLE, "single samples are measured in one process only")
    if not has_velocity:
        why = f"the heavy-ball velocity is not defined for {optimizer}"
        found = dict.fromkeys((*VELOCITY, "velocity_curvature"), why) | found
        found["sgd_time"] = f"SGD time is not defined for {optimizer}"
    if not settings.products_every:
        found |= dict.fromkeys((*PRODUCTS, *SKETCHES), "products_every is 0")
    elif not keeps_parameters:
        found["update_squared"] = "the velocity tells it: Δθ = −η v_{t+1}, with Nesterov −η(g + μ v_{t+1})"
    if not settings.moments_window:
        found |= dict.fromkeys(("gradient_mean", "gradient_second_moment"), "moments_window is 0")
    if not settings.sketch_size:
        found |= dict.fromkeys((*SKETCHES, "probe_sketch"), "sketch_size is 0")
    if not (has_probe and settings.probe_every):
        found |= dict.fromkeys(PROBE_PRODUCTS, "there is no probe")
    return found
