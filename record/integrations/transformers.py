"""Record a training by the Hugging Face Trainer.

The Trainer does not tell its callbacks when a training fails; used as a context manager, the callback sees it:

    with ThermoCallback("runs/mine") as thermo:
        Trainer(model, args, train_dataset=data, callbacks=[thermo]).train()
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import find_rank, mean_over_ranks
from ..per_sample import Samples
from ..recorder import Recorder
from ..settings import RecorderSettings

try:
    from transformers import TrainerCallback, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'{error}; pip install "thermodl[transformers]"', name=error.name) from error


class ThermoCallback(TrainerCallback):
    """Opens a `Recorder` when the training begins and closes it when it ends.

    `loss` is what the model returns as `loss`, over all batches that the step accumulates and all processes; it is not
    recorded where the Trainer computes it outside of the model. Without `with`, a training that fails leaves a run
    that says it is running, and is shown as silent. The batches that a step accumulates do not give its noise, since
    the Trainer clips their sum before it tells of the last of them.

    Args:
        folder, probe, samples, sample_loss, settings, attributes, overwrite: as for `Recorder`.
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
        self._step_losses: list[Tensor] = []
        self._summed = False
        self._hook: Any = None

    def on_train_begin(
        self,
        _: TrainingArguments,
        state: TrainerState,
        *__: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        **___: Any,
    ) -> None:
        """Open the recorder, and look at what the model returns."""
        attributes = {"planned_steps": state.max_steps} | dict(self._options["attributes"] or {})
        options: dict[str, Any] = self._options | {"attributes": attributes}
        self.recorder = Recorder(model, optimizer, self.folder, **options)
        self._hook = model.register_forward_hook(self._see_output, with_kwargs=True)
        self._losses = []

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """The step's batches end here; the probe that may follow is none of them."""
        self._step_losses, self._losses = self._losses, []

    def on_optimizer_step(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """Log the loss of the step just tried."""
        if self._step_losses and self.recorder is not None:
            losses = torch.stack(self._step_losses)
            # Divided by the number of tokens of the whole step, losses add; otherwise the Trainer averages them.
            loss = mean_over_ranks(losses.sum() if self._summed else losses.mean())
            if self._summed and args.average_tokens_across_devices:
                loss = loss * find_rank()[1]
            self.recorder.log(loss=loss)
        self._losses = []

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The training came to its end."""
        self.close("finished")

    def close(self, state: str) -> None:
        """End the recording as `finished`, `stopped` or `failed`; a second call does nothing."""
        if self.recorder is not None:
            self._hook.remove()
            self.recorder.close(state)

    def __enter__(self) -> "ThermoCallback":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.close("stopped" if issubclass(kind, KeyboardInterrupt) else "failed")

    def _see_output(self, model: nn.Module, _: tuple, kwargs: dict[str, Any], output: Any) -> None:
        loss = output.get("loss") if isinstance(output, Mapping) else output[0] if isinstance(output, tuple) else None
        if model.training and torch.is_grad_enabled() and isinstance(loss, Tensor):
            self._summed = kwargs.get("num_items_in_batch") is not None
            self._losses.append(loss.detach())
