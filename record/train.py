"""The built-in training: one loop, readable from top to bottom."""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .augment import augment
from .datasets import Dataset, draw_batches, load_dataset
from .models import check_model, make_model
from .recorder import Recorder
from .schedule import compile_schedule
from .settings import RunSettings, SettingsError

_EVALUATION_EXAMPLES = 2000
_EVALUATION_BATCH = 500
_AUGMENTATION = 2**40
"""streams of augmentation lie beyond those of the batches of any seed"""
_UNFIT = {
    "LBFGS": "it evaluates the loss many times per step, which has no single mini-batch gradient",
    "SparseAdam": "it takes sparse gradients only",
}


def train(
    settings: RunSettings,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Train a model and record it into a run folder; the model is saved as `model.safetensors`.

    Args:
        progress: called after every step with the number of steps done and the last evaluated training loss.

    Returns:
        The trained model.

    Raises:
        SettingsError: if a name is unknown or the data are not to be had.
        RunError: if the folder holds a recording and `overwrite` is false.
    """
    device = choose_device(settings.device)
    data = load_dataset(
        settings.data,
        settings.data_root,
        image_size=settings.image_size,
        test_fraction=settings.test_fraction,
        split_seed=settings.split_seed,
    ).to(device)
    forward_in = choose_precision(settings.precision, device)
    micro_batch, micro_batches = settings.batch_size // settings.accumulate, settings.accumulate
    torch.manual_seed(settings.seed)
    model = make_model(settings.model, data.shape, data.classes).to(device)
    check_model(model, settings.model, data.shape, data.classes, micro_batch)
    optimizer = make_optimizer(model, settings)
    size = len(data.train_labels)
    batches = draw_batches(size, settings.batch_size, settings.sampling, _generator(settings.seed, 1))
    probes = draw_batches(size, settings.batch_size, "replacement", _generator(settings.seed, 2))
    changes = _generator(settings.seed, _AUGMENTATION + 1)
    probe_changes = _generator(settings.seed, _AUGMENTATION + 2)
    steps_per_epoch = size // settings.batch_size

    def draw(indices: Tensor, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """The micro-batches of a batch, augmented."""
        indices = indices.to(device)
        images = augment(data.train_images[indices], settings.augmentation, generator)
        return list(zip(images.split(micro_batch), data.train_labels[indices].split(micro_batch), strict=True))

    def forward(images: Tensor) -> Tensor:
        with forward_in():
            output = model(data.normalize(images))
        return output.float() if settings.precision == "bf16" else output

    def mean_loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(forward(images), labels)

    def probe() -> Tensor:
        parts = draw(next(probes), probe_changes)
        if micro_batches == 1:
            return mean_loss(*parts[0])
        # One graph of all micro-batches would need the memory that accumulating saves.
        return torch.stack([checkpoint(mean_loss, *part, use_reentrant=False) for part in parts]).mean()

    recorder = Recorder(
        model,
        optimizer,
        folder,
        probe=probe,
        settings=settings.recorder,
        attributes=describe(settings, size),
        overwrite=overwrite,
    )
    evaluation_due = compile_schedule(settings.evaluate_every)
    with recorder:
        train_loss = evaluate(recorder, model, data, forward)
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * learning_rate_factor(settings, step)
            optimizer.zero_grad()
            loss = torch.zeros((), device=device)
            for images, labels in draw(next(batches), changes):
                part = mean_loss(images, labels) / micro_batches
                part.backward()
                loss += part.detach()
            clip_factor = clip(model, settings.clip_norm)
            optimizer.step()
            epoch, position = divmod(step, steps_per_epoch)
            recorder.log(loss=loss, epoch=epoch, epoch_position=position / steps_per_epoch)
            if settings.clip_norm:
                recorder.log(clip_factor=clip_factor)
            done = step + 1
            if evaluation_due(done) or done == settings.steps:
                train_loss = evaluate(recorder, model, data, forward)
            if progress is not None:
                progress(done, train_loss)
    save_model(model, folder)
    return model


def describe(settings: RunSettings, train_size: int) -> dict:
    """What the store keeps of the settings, with what analyses need to know of the sampling."""
    return {
        "run_id": settings.run_id(),
        "settings": settings.model_dump(exclude={"recorder"}),
        "sampling": settings.sampling,
        "augmentation": settings.augmentation,
        "batch_size": settings.batch_size,
        "train_size": train_size,
        "steps_per_epoch": train_size // settings.batch_size,
        "planned_steps": settings.steps,
    }


def make_optimizer(model: nn.Module, settings: RunSettings) -> torch.optim.Optimizer:
    """The optimizer of the settings; momentum, dampening and Nesterov go to SGD only.

    Raises:
        SettingsError: if torch.optim has no such class, it does not fit this loop, or it refuses the settings.
    """
    kind = getattr(torch.optim, settings.optimizer, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)) or kind is torch.optim.Optimizer:
        raise SettingsError(f"optimizer = {settings.optimizer!r}: expected a class of torch.optim such as SGD or AdamW")
    if reason := _UNFIT.get(settings.optimizer):
        raise SettingsError(f"optimizer = {settings.optimizer!r}: {reason}; choose another, such as SGD or AdamW")
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if kind is torch.optim.SGD:
        options |= {"momentum": settings.momentum, "dampening": settings.dampening, "nesterov": settings.nesterov}
    if "weight_decay" not in inspect.signature(kind).parameters:
        if settings.weight_decay:
            raise SettingsError(f"optimizer {settings.optimizer} has no weight decay; add --weight-decay 0")
        del options["weight_decay"]
    try:
        return kind(model.parameters(), **options)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"optimizer {settings.optimizer}: {error}") from error


def learning_rate_factor(settings: RunSettings, step: int) -> float:
    """What the learning rate is multiplied with at a step; see `schedule` in the settings."""
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "step":
        return 1.0 if 2 * step < settings.steps else 0.1 if 4 * step < 3 * settings.steps else 0.01
    warm = math.ceil(settings.steps / 20) if settings.schedule == "warmup-cosine" else 0
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / (settings.steps - warm))) / 2


def clip(model: nn.Module, norm: float | None) -> Tensor | float:
    """Clip the gradient to a norm; the factor that was applied, 1 where nothing was."""
    if norm is None:
        return 1.0
    found = nn.utils.clip_grad_norm_(model.parameters(), norm)
    return (norm / (found + 1e-6)).clamp(max=1.0)


def evaluate(recorder: Recorder, model: nn.Module, data: Dataset, forward: Callable[[Tensor], Tensor]) -> float:
    """Loss and accuracy on the first training examples and on the test data; returns the training loss.

    Images are as they are in the data, not augmented.
    """
    train_loss, train_accuracy = measure(model, forward, data.train_images, data.train_labels)
    test_loss, test_accuracy = measure(model, forward, data.test_images, data.test_labels)
    recorder.log_evaluation(
        train_loss=train_loss, train_accuracy=train_accuracy, test_loss=test_loss, test_accuracy=test_accuracy
    )
    return train_loss


@torch.no_grad()
def measure(
    model: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor
) -> tuple[float, float]:
    """Mean cross entropy and accuracy over at most 2,000 examples, in evaluation mode."""
    images, labels = images[:_EVALUATION_EXAMPLES], labels[:_EVALUATION_EXAMPLES]
    training = model.training
    model.eval()
    loss = correct = 0.0
    for part, expected in zip(images.split(_EVALUATION_BATCH), labels.split(_EVALUATION_BATCH), strict=True):
        output = forward(part)
        loss += float(F.cross_entropy(output, expected, reduction="sum"))
        correct += float((output.argmax(1) == expected).sum())
    model.train(training)
    return loss / len(labels), correct / len(labels)


def save_model(model: nn.Module, folder: Path) -> None:
    """Write the weights and buffers as `model.safetensors`."""
    from safetensors.torch import save_model as save

    save(model, str(folder / "model.safetensors"))


def choose_device(name: str) -> torch.device:
    """The device of the settings; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        SettingsError: if torch knows no such device or it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device = {name!r} is not to be had: {error}") from error


def choose_precision(name: str, device: torch.device) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """What a forward pass runs in: nothing for float32, autocast for bf16.

    Raises:
        SettingsError: if the device has no autocast.
    """
    if name == "float32":
        return contextlib.nullcontext
    if not torch.amp.is_autocast_available(device.type):
        raise SettingsError(f"precision = {name!r} is not to be had on {device.type}; expected float32")
    return functools.partial(torch.autocast, device.type, torch.bfloat16)


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 4 + stream)
