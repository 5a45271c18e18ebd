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
from .checkpoint import Stateful, Streams, interruptible, write_checkpoint
from .datasets import Batches, Dataset, load_dataset
from .errors import LostError, RunError, first_line
from .format import CHECKPOINT, SETTINGS_OF_SGD
from .models import advice, make_model
from .probe import probe_gradient
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
    resume: dict[str, Any] | None = None,
    progress: Callable[[int, Tensor], None] | None = None,
) -> nn.Module:
    """Train a model and record it into a run folder; the model is saved as `model.safetensors`.

    Args:
        resume: the checkpoint to go on from; the run is then bit for bit the one that was not interrupted.
        progress: called after every step with the number of steps done and the mini-batch loss, on its device.

    Returns:
        The trained model.

    Raises:
        SettingsError: if a name is unknown, the data are not to be had, or the model does not fit them.
        RunError: if the folder holds a recording and `overwrite` is false, or it is being recorded.
        LostError: if the recording stopped before the training, or the model could not be saved.
        KeyboardInterrupt: at Ctrl-C, after the step that it falls into and a checkpoint.
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
    optimizer = make_optimizer(model, settings)
    size = len(data.train_labels)
    batches = Batches(size, settings.batch_size, settings.sampling, _generator(settings.seed, 1))
    probes, singles = (_generator(settings.seed, stream) for stream in (2, 3))
    changes, probe_changes, single_changes = (_generator(settings.seed, _AUGMENTATION + stream) for stream in (1, 2, 3))
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

    def batch_loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        parts = draw(indices, generator)
        if len(parts) == 1:
            return mean_loss(*parts[0])
        # One graph of all micro-batches would need the memory that accumulating saves.
        return torch.stack([checkpoint(mean_loss, *part, use_reentrant=False) for part in parts]).mean()

    def probe() -> Tensor:
        # Drawn as the batches are, so that ½‖g−g′‖² is the noise of batches of this very kind; and each the first of a
        # new epoch, so that probes are independent of one another. Its images are changed from a stream of their own.
        indices = next(Batches(size, settings.batch_size, settings.sampling, probes))
        return batch_loss(indices, probe_changes)

    def samples() -> tuple[Tensor, Tensor]:
        indices = torch.randint(size, (settings.batch_size,), generator=singles)
        images = augment(data.train_images[indices.to(device)], settings.augmentation, single_changes)
        return data.normalize(images), data.train_labels[indices.to(device)]

    try_step(model, settings, data, lambda indices: batch_loss(indices, torch.Generator()))
    parts: dict[str, Stateful] = {
        "model": model,
        "optimizer": optimizer,
        "batches": batches,
        "streams": Streams(
            probes=probes, singles=singles, changes=changes, probe_changes=probe_changes, single_changes=single_changes
        ),
    }
    if resume:
        restore(parts, resume, folder)
    recorder = Recorder(
        model,
        optimizer,
        folder,
        probe=probe,
        samples=samples,
        sample_loss=F.cross_entropy,
        settings=settings.recorder,
        attributes=describe(settings, size),
        overwrite=overwrite,
        resume=resume and resume["recorder"],
    )
    checkpoint_due = compile_schedule(settings.checkpoint_every)
    evaluation_due = compile_schedule(settings.evaluate_every)
    with recorder, interruptible() as interrupted:
        if not resume:
            evaluate(recorder, model, data, forward)
        for step in range(recorder.step, settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * learning_rate_factor(settings, step)
            optimizer.zero_grad()
            loss = torch.zeros((), device=device)
            for images, labels in draw(next(batches), changes):
                part = mean_loss(images, labels) / micro_batches
                part.backward()
                if micro_batches > 1:
                    recorder.micro_batch()
                loss += part.detach()
            clip_factor = clip(model, settings.clip_norm)
            optimizer.step()
            epoch, position = divmod(step, steps_per_epoch)
            recorder.log(loss=loss, epoch=epoch, epoch_position=position / steps_per_epoch)
            if settings.clip_norm:
                recorder.log(clip_factor=clip_factor)
            done = step + 1
            if evaluation_due(done) or done == settings.steps:
                evaluate(recorder, model, data, forward)
            if progress is not None:
                progress(done, loss.detach())
            stopping = interrupted() and done < settings.steps
            if (checkpoint_due(done) or (stopping and settings.checkpoint_every)) and not recorder.lost:
                write_checkpoint(folder, settings.run_id(), recorder.state_dict(), parts)
            if stopping:
                raise KeyboardInterrupt
    if recorder.lost:
        with contextlib.suppress(RunError):
            save_model(model, folder)
        raise LostError(f"{recorder.lost} The training went on to its end.")
    save_model(model, folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return model


def restore(parts: dict[str, Stateful], checkpoint: dict[str, Any], folder: Path) -> None:
    """Put model, optimizer, sampling and random numbers where a checkpoint has them.

    Raises:
        RunError: if it does not fit them.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"the checkpoint of {folder} does not fit its model ({first_line(error)})") from error


def try_step(model: nn.Module, settings: RunSettings, data: Dataset, batch_loss: Callable[[Tensor], Tensor]) -> None:
    """Try whether the model can be trained on the data, before a recording begins; it leaves no trace.

    Raises:
        SettingsError: if not, with the reason.
    """
    # The highest label among them: a model that has too few logits has none for it.
    indices = torch.arange(settings.batch_size)
    indices[-1] = data.train_labels.argmax()
    try:
        probe_gradient(model, [p for p in model.parameters() if p.requires_grad], lambda: batch_loss(indices), 0)
    except Exception as error:  # whatever layers say to images that they were not made for
        raise SettingsError(
            f"--model {settings.model} cannot be trained on {settings.data} ({data.classes} classes, images of "
            f"{' × '.join(map(str, data.shape))}) with --batch-size {settings.batch_size} "
            f"({type(error).__name__}: {first_line(error)}){advice(model, data.shape)}"
        ) from error


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
        options |= {name: getattr(settings, name) for name in SETTINGS_OF_SGD}
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


def evaluate(recorder: Recorder, model: nn.Module, data: Dataset, forward: Callable[[Tensor], Tensor]) -> None:
    """Log loss and accuracy on the first training examples and on the test data, as they are, not augmented."""
    train_loss, train_accuracy = measure(model, forward, data.train_images, data.train_labels)
    test_loss, test_accuracy = measure(model, forward, data.test_images, data.test_labels)
    recorder.log_evaluation(
        train_loss=train_loss, train_accuracy=train_accuracy, test_loss=test_loss, test_accuracy=test_accuracy
    )


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
