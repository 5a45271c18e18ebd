"""Versions of the methods, and whether stored results still belong to them and to their recording.

Here and not with the methods, so that who only reads results need not import what computes them.
"""

from collections.abc import Mapping
from typing import Any

ANALYSES = {
    "ageing": 4,
    "correlation": 9,
    "diffusion": 11,
    "dissipation": 5,
    "entropy_production": 7,
    "events": 4,
    "flatness": 6,
    "noise": 5,
    "response": 3,
    "stationarity": 6,
    "temperature": 8,
}
"""of each analysis: raised when its numbers change"""

KERNELS = 8
"""raised when numbers of `series`, `displacements`, `dimensions`, `quantities`, `segments` or `errorbar` change"""


def find_changes(attributes: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """What has changed since results were made; [] if they are up to date.

    Args:
        attributes: of the run, as `read_attributes`.
        stored: attributes of one stored analysis.

    Returns:
        `other-recording` if they are of another one, `more-steps` if it has grown, `analysis` if its code is newer.
    """
    steps, covered = attributes["committed"]["step"], stored.get("committed_steps")
    same = all(stored.get(key, attributes.get(key, "")) == attributes.get(key, "") for key in ("run_id", "started"))
    changes = []
    if not same or (isinstance(covered, int) and covered > steps):
        changes.append("other-recording")
    elif isinstance(covered, int) and covered < steps:
        changes.append("more-steps")
    analysis = stored.get("analysis")
    # Results of an analysis that is not of this package are nobody's to judge.
    if isinstance(analysis, str) and analysis in ANALYSES:
        made_by = (stored.get("analysis_version"), stored.get("kernels_version", 1))
        if made_by != (ANALYSES[analysis], KERNELS):
            changes.append("analysis")
    return changes
