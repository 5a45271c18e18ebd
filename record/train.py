"""The built-in training: one loop, readable from top to bottom."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .datasets import Dataset, draw_batches, load_dataset
from .models import make_model
from .probe import probe_gradient
from .recorder import Recorder
from .schedule import compile_schedule
from .settings import RunSettings, SettingsError
from .store import LostError, RunError, first_line

_EVALUATION_EXAMPLES = 2000
_EVALUATION_BATCH = 500


def train(
    settings: RunSettings,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, Tensor], None] | None = None,
) -> nn.Module:
    """Train a model and record it into a run folder; the model is saved as `model.safetensors`.

    Args:
        progress: called after every step with the number of steps done and the mini-batch loss, on its device.

    Returns:
        The trained model.

    Raises:
        SettingsError: if a name is unknown, the data are not to be had, or the model does not fit them.
        RunError: if the folder holds a recording and `overwrite` is false, or it is being recorded.
        LostError: if the recording stopped before the training, or the model could not be saved.
    """
    device = choose_device(settings.device)
    data = load_dataset(settings.data, settings.data_root).to(device)
    torch.manual_seed(settings.seed)
    model = make_model(settings.model, data.shape, data.classes).to(device)
    optimizer = make_optimizer(model, settings)
    size = len(data.train_labels)
    batches = draw_batches(size, settings.batch_size, settings.sampling, _generator(settings.seed, 1))
    generator = _generator(settings.seed, 2)
    steps_per_epoch = size // settings.batch_size

    def batch_loss(indices: Tensor) -> Tensor:
        indices = indices.to(device)
        return F.cross_entropy(model(data.normalize(data.train_images[indices])), data.train_labels[indices])

    def probe() -> Tensor:
        # Drawn as the batches are, so that ½‖g−g′‖² is the noise of batches of this very kind; and each the first of a
        # new epoch, so that probes are independent of one another.
        return batch_loss(next(draw_batches(size, settings.batch_size, settings.sampling, generator)))

    try_step(model, settings, lambda: batch_loss(torch.arange(settings.batch_size)))
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
        evaluate(recorder, model, data)
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * learning_rate_factor(settings, step)
            loss = batch_loss(next(batches))
            optimizer.zero_grad()
            loss.backward()
            clip_factor = clip(model, settings.clip_norm)
            optimizer.step()
            epoch, position = divmod(step, steps_per_epoch)
            recorder.log(loss=loss, epoch=epoch, epoch_position=position / steps_per_epoch)
            if settings.clip_norm:
                recorder.log(clip_factor=clip_factor)
            done = step + 1
            if evaluation_due(done) or done == settings.steps:
                evaluate(recorder, model, data)
            if progress is not None:
                progress(done, loss.detach())
    if recorder.lost:
        with contextlib.suppress(RunError):
            save_model(model, folder)
        raise LostError(f"{recorder.lost} The training went on to its end.")
    save_model(model, folder)
    return model


def try_step(model: nn.Module, settings: RunSettings, batch_loss: Callable[[], Tensor]) -> None:
    """Try whether the model can be trained on the data, before a recording begins; it leaves no trace.

    Raises:
        SettingsError: if not, with the reason.
    """
    try:
        probe_gradient(model, [p for p in model.parameters() if p.requires_grad], batch_loss, 0)
    except Exception as error:  # whatever layers say to images that they were not made for
        raise SettingsError(
            f"--model {settings.model} cannot be trained on {settings.data} with --batch-size {settings.batch_size} "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error


def describe(settings: RunSettings, train_size: int) -> dict:
    """What the store keeps of the settings, with what analyses need to know of the sampling."""
    return {
        "run_id": settings.run_id(),
        "settings": settings.model_dump(exclude={"recorder"}),
        "sampling": settings.sampling,
        "batch_size": settings.batch_size,
        "train_size": train_size,
        "steps_per_epoch": train_size // settings.batch_size,
        "planned_steps": settings.steps,
    }


def make_optimizer(model: nn.Module, settings: RunSettings) -> torch.optim.Optimizer:
    """The optimizer of the settings; momentum, dampening and Nesterov go to SGD only.

    Raises:
        SettingsError: if torch.optim has no such class, or it refuses the settings.
    """
    kind = getattr(torch.optim, settings.optimizer, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise SettingsError(f"optimizer = {settings.optimizer!r}: expected a class of torch.optim such as SGD or AdamW")
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if kind is torch.optim.SGD:
        options |= {"momentum": settings.momentum, "dampening": settings.dampening, "nesterov": settings.nesterov}
    try:
        return kind(model.parameters(), **options)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"optimizer {settings.optimizer}: {error}") from error


def learning_rate_factor(settings: RunSettings, step: int) -> float:
    """1 for a constant schedule; half a cosine from 1 to 0 over the run."""
    return 1.0 if settings.schedule == "constant" else (1 + math.cos(math.pi * step / settings.steps)) / 2


def clip(model: nn.Module, norm: float | None) -> Tensor | float:
    """Clip the gradient to a norm; the factor that was applied, 1 where nothing was."""
    if norm is None:
        return 1.0
    found = nn.utils.clip_grad_norm_(model.parameters(), norm)
    return (norm / (found + 1e-6)).clamp(max=1.0)


def evaluate(recorder: Recorder, model: nn.Module, data: Dataset) -> None:
    """Log loss and accuracy on the first training examples and on the test data."""
    train_loss, train_accuracy = measure(model, data, data.train_images, data.train_labels)
    test_loss, test_accuracy = measure(model, data, data.test_images, data.test_labels)
    recorder.log_evaluation(
        train_loss=train_loss, train_accuracy=train_accuracy, test_loss=test_loss, test_accuracy=test_accuracy
    )


@torch.no_grad()
def measure(model: nn.Module, data: Dataset, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross entropy and accuracy over at most 2,000 examples, in evaluation mode."""
    images, labels = images[:_EVALUATION_EXAMPLES], labels[:_EVALUATION_EXAMPLES]
    training = model.training
    model.eval()
    loss = correct = 0.0
    for part, expected in zip(images.split(_EVALUATION_BATCH), labels.split(_EVALUATION_BATCH), strict=True):
        output = model(data.normalize(part))
        loss += float(F.cross_entropy(output, expected, reduction="sum"))
        correct += float((output.argmax(1) == expected).sum())
    model.train(training)
    return loss / len(labels), correct / len(labels)


def save_model(model: nn.Module, folder: Path) -> None:
    """Write the weights and buffers as `model.safetensors`.

    Raises:
        RunError: if it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_model as save

    path = folder / "model.safetensors"
    try:
        # safetensors makes a file for its owner only; one that is made here first has the usual rights.
        path.touch()
        mode = path.stat().st_mode
        save(model, str(path))
        path.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be written ({error}); the recording beside it is whole") from error


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


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 4 + stream)
