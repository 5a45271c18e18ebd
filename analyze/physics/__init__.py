"""One module per analysis; its file name is the command's argument and the name of the result group.

Each module has `estimate(run, settings)`, and says of itself: `USES` (the settings it depends on), `TITLE`,
`TITLE_ZH`, `FORMULA` (LaTeX), `EXPLANATION`, `EXPLANATION_ZH` (what is shown and how it is estimated; when not to trust
it), `METHOD`, `METHOD_ZH` and `REFERENCE`. Its version stands in `versions.ANALYSES`.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def names() -> list[str]:
    """The analyses there are, by name."""
    return sorted(module.name for module in iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The module of an analysis."""
    return import_module(f"{__name__}.{name}")
