"""Record a training by Lightning: `Trainer(callbacks=[ThermoCallback("runs/mine")])`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..distributed import mean_over_ranks
from ..errors import RunError
from ..per_sample import Samples
from ..recorder import Recorder
from ..settings import RecorderSettings

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'{error}; pip install "thermodl[lightning]"', name=error.name) from error


class ThermoCallback(Callback):
    """Opens a `Recorder` when the training starts and closes it when it ends, whichever way.

    `loss` is what `training_step` returns: with gradient accumulation the mean over the step's batches, in
    data-parallel training over the processes; with manual optimization only what is returned as `loss` can be logged.
    Batches that a step accumulates give its noise, as `Recorder.micro_batch`, if they are equally large and gradients
    are neither clipped nor scaled.

    Args:
        folder, probe, samples, sample_loss, settings, attributes, overwrite: as for `Recorder`.

    Raises:
        RunError: at the start of the training, as `Recorder`, or if there is not exactly one optimizer.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        probe: Callable[[], Tensor] | None = None,
        samples: Samples | None = None,
        sample_loss: Callable[[Any, Any], Tensor] | None = None,
        settings: RecorderSettings | None = None,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ):
        self.folder = Path(folder)
        self._options: dict[str, Any] = {
            "probe": probe,
            "samples": samples,
            "sample_loss": sample_loss,
            "settings": settings,
            "attributes": attributes,
            "overwrite": overwrite,
        }
        self.recorder: Recorder | None = None
        self._losses: list[Tensor] = []
        self._tried = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the recorder: the optimizer is there, and the model on its device."""
        if len(trainer.optimizers) != 1:
            raise RunError(f"the callback records one optimizer, this training has {len(trainer.optimizers)}")
        self._losses, self._tried = [], False
        planned = trainer.estimated_stepping_batches
        length = {"planned_steps": int(planned)} if planned != float("inf") else {}
        options: dict[str, Any] = self._options | {"attributes": length | dict(self._options["attributes"] or {})}
        self.recorder = Recorder(pl_module, trainer.optimizers[0], self.folder, **options)

    def on_after_backward(self, trainer: Trainer, _: LightningModule) -> None:
        """Measure the batches that a step accumulates, of which there must be several for a spread."""
        if self.recorder is not None and trainer.accumulate_grad_batches > 1:
            self.recorder.micro_batch()

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Note that with this batch a step is tried."""
        self._tried = True

    def on_train_batch_end(self, _: Trainer, __: LightningModule, outputs: Any, *___: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Log the loss; Lightning has divided it by the number of batches that one step accumulates."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            self._losses.append(loss.detach())
        if self._tried and self._losses and self.recorder is not None:
            self.recorder.log(loss=mean_over_ranks(torch.stack(self._losses).sum()))
        if self._tried:
            self._losses, self._tried = [], False

    def on_train_end(self, *_: Any) -> None:
        """The training came to its end."""
        self._close("finished")

    def on_exception(self, _: Trainer, __: LightningModule, exception: BaseException) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """It did not."""
        self._close("stopped" if isinstance(exception, KeyboardInterrupt) else "failed")

    def _close(self, state: str) -> None:
        if self.recorder is not None:
            self.recorder.close(state)
