"""The pages of the app, in the order of the navigation. A new page is a module here and a line in `PAGES`."""

from types import ModuleType

from . import (
    ageing,
    compare,
    correlation,
    data,
    diffusion,
    dissipation,
    entropy_production,
    events,
    flatness,
    layers,
    new,
    noise,
    overview,
    response,
    runs,
    stationarity,
    temperature,
)

PAGES: tuple[ModuleType, ...] = (
    runs,
    overview,
    temperature,
    dissipation,
    noise,
    diffusion,
    correlation,
    response,
    stationarity,
    ageing,
    entropy_production,
    events,
    flatness,
    layers,
    compare,
    data,
    new,
)
