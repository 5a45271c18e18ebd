"""The pages of the app, in the order of the navigation. A new page is a module here and a line in `PAGES`."""

from types import ModuleType

from . import correlation, diffusion, dissipation, layers, overview, runs, stationarity, temperature

PAGES: tuple[ModuleType, ...] = (runs, overview, temperature, dissipation, diffusion, correlation, stationarity, layers)
