"""What the address bar says: run, second run, axis, interval, group and language, as canonical ids and nothing else.

The address is the only place where the view is kept, so that a link shows another reader the same page. Ids are
language-neutral, and whatever cannot be read gives the default: a link never breaks a page.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from thermodl.record.format import NAME, is_run_name

VERSION = "1"
AXES = ("step", "sgd_time", "epoch", "wall_time", "noise_time")
SCALES = ("", "x", "y", "xy")
LANGUAGES = ("en", "zh")
BETWEEN_RUNS = "/"
_LONGEST_NAME, _LONGEST_ENTRIES = 256, 2000


@dataclass(frozen=True)
class ViewState:
    """One view."""

    run: str = ""
    """name of the run's folder; empty: the first one"""
    other: str = ""
    """a second run to compare with, or empty"""
    axis: str = "step"
    """time axis, one of `AXES`"""
    steps: str = ""
    """first and last step that charts over time show, `1000-2000`, or empty: all; on whatever axis they are drawn"""
    scale: str = ""
    """which axes of charts over time are logarithmic whatever the chart: `x`, `y`, `xy`, or empty: none"""
    group: str = "all"
    """group of layers, or `all`"""
    results: str = ""
    """settings name of the results, or empty: `default`, or whatever there is"""
    lang: str = "en"
    quantity: str = ""
    """recorded array on the page of layers, or empty: the first there is"""
    layer: str = ""
    """layer whose line is shown, or empty: the first"""
    runs: str = ""
    """names of the runs beside the chosen one on the page that compares, joined by a slash; empty: the first few"""
    curve: str = ""
    """what is drawn over time or lag there: a recorded array, or `analysis/variable`"""
    number: str = ""
    """what is drawn for each run there: `analysis/variable`"""
    by: str = ""
    """setting by which its runs are sorted, or empty"""
    part: str = ""
    """the training or an analysis, of which the page of exports shows a chart; empty: the training"""
    figure: str = ""
    """id of that chart, or empty: the first"""
    base: str = ""
    """run whose settings a new recording starts from, or empty: the defaults"""
    entries: str = ""
    """what was typed into its boxes and differs from there, as a query string: `steps=500&probe_every=log%3A10`"""

    def to_query(self) -> dict[str, str]:
        """Query parameters: the version, and each field that is not empty."""
        return {"v": VERSION, **{key: value for key, value in asdict(self).items() if value}}

    @property
    def interval(self) -> tuple[int, int] | None:
        """First and last step of the interval that is shown; None for all."""
        if not self.steps:
            return None
        first, last = map(int, self.steps.split("-"))
        return first, last

    @classmethod
    def from_query(cls, query: Mapping[str, Any], lang: str = "en") -> "ViewState":
        """Read query parameters; `lang` is the language of a reader whose link names none."""
        state = replace(cls(), lang=lang if lang in LANGUAGES else "en")
        if query.get("v", VERSION) != VERSION:
            return state
        valid = {
            field.name: query[field.name]
            for field in fields(cls)
            if isinstance(query.get(field.name), str) and _CHECKS[field.name](query[field.name])
        }
        return replace(state, **valid)


def is_interval(text: str) -> bool:
    """Whether these are a first and a last step, `1000-2000`."""
    parts = re.fullmatch(r"([0-9]{1,15})-([0-9]{1,15})", text)
    return parts is not None and int(parts[1]) < int(parts[2])


def _is_name(text: str) -> bool:
    """A name that a model or an analysis gave; it only ever chooses among those that there are."""
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable()


_CHECKS: dict[str, Callable[[str], bool]] = {
    "run": is_run_name,
    "other": is_run_name,
    "axis": lambda text: text in AXES,
    "steps": is_interval,
    "scale": lambda text: text in SCALES,
    "group": _is_name,
    "results": lambda text: bool(NAME.fullmatch(text)),
    "lang": lambda text: text in LANGUAGES,
    "quantity": _is_name,
    "layer": _is_name,
    "runs": lambda text: all(map(is_run_name, text.split(BETWEEN_RUNS))),
    "curve": _is_name,
    "number": _is_name,
    "by": _is_name,
    "part": _is_name,
    "figure": _is_name,
    "base": is_run_name,
    "entries": lambda text: 0 < len(text) <= _LONGEST_ENTRIES and text.isprintable(),
}
