"""The pages of the app, in the order of the navigation. A new page is a module here and a line in `PAGES`."""

from types import ModuleType

from . import correlation, diffusion, dissipation, entropy_production, overview, runs, stationarity, temperature

PAGES: tuple[ModuleType, ...] = (
    runs,
    overview,
    temperature,
    dissipation,
    entropy_production,
    diffusion,
    correlation,
    stationarity,
)
