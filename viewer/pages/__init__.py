"""The pages of the app, in the order of the navigation. A new page is a module here and a line in `PAGES`."""

from types import ModuleType

from . import (
    compare,
    correlation,
    diffusion,
    dissipation,
    layers,
    overview,
    runs,
    stationarity,
    temperature,
)

ANALYSES = (temperature, dissipation, diffusion, correlation, stationarity)
PAGES: tuple[ModuleType, ...] = (runs, overview, *ANALYSES, layers, compare)
