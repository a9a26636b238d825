"""Extensions that other installed packages bring: baselines and readers of datasets, by entry points."""

from __future__ import annotations

import importlib.metadata
import logging

logger = logging.getLogger(__name__)

# A module named under one of these groups registers what is in it when it is imported.
BASELINES, DATASETS = "fewshot_ad.baselines", "fewshot_ad.datasets"


def load_plugins(group: str) -> None:
    """Import the modules that installed packages name in an entry point group.

    One that cannot be imported is named in a warning and left out: it must not keep the others from working.

    Args:
        group: `BASELINES` or `DATASETS`.
    """
    for point in sorted(importlib.metadata.entry_points(group=group), key=lambda point: point.name):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # whatever a foreign module raises
            package = point.dist.name if point.dist is not None else "an unknown package"
            logger.warning(
                "%s: its entry point %s in %s cannot be loaded (%s: %s), so what it brings is missing. Update or "
                "uninstall it.",
                package,
                point.value,
                group,
                type(error).__name__,
                error,
            )
