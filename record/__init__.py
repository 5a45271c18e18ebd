"""Record a training run: the recorder, the built-in training, and the run format.

The names below are loaded when first used, so that reading a run (`thermodl.record.store`) never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recorder import Recorder
    from .settings import RecorderSettings, RunSettings
    from .store import open_run

__all__ = ["Recorder", "RecorderSettings", "RunSettings", "open_run"]

_HOME = {
    "Recorder": "recorder",
    "RecorderSettings": "settings",
    "RunSettings": "settings",
    "open_run": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'thermodl.record' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
