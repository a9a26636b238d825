"""Whether the lines of a station drift: a monitor for each product that is inspected, fed with what it inspects."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

from fewshot_ad.catalog import Catalog
from fewshot_ad.inspection.drift import Drift, DriftMonitor
from fewshot_ad.inspection.result import Inspection

logger = logging.getLogger(__name__)

# Products that are watched at a time; those inspected longest ago are forgotten first.
WATCHED = 64


class LineWatch:
    """Watches the lines of a catalog's products. It may be used on several threads.

    Args:
        catalog: Where the products are.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        # By product: the hash of the file that judged, and the monitor.
        self._monitors: OrderedDict[str, tuple[str, DriftMonitor]] = OrderedDict()
        self._lock = threading.Lock()

    def see(self, product: str, artifact: str, inspection: Inspection) -> None:
        """Take an inspection along; that must never keep a verdict from being given.

        Args:
            product: Name of the product.
            artifact: SHA-256 of its file that judged.
            inspection: The verdict.
        """
        try:
            with self._lock:
                known = self._monitors.get(product)
            # One that has changed is another product: what it was enrolled from may be, too.
            if known is not None and known[0] == artifact:
                monitor = known[1]
            else:
                monitor = self._catalog.load(product).new_monitor()
            with self._lock:
                self._monitors[product] = (artifact, monitor)
                self._monitors.move_to_end(product)
                while len(self._monitors) > WATCHED:
                    self._monitors.popitem(last=False)
                monitor.see(inspection.one_part)
        except Exception as error:  # whatever it is: the verdict stands
            logger.warning("%s is not watched for drift: %s", product, error)

    def drift(self, product: str) -> Drift:
        """Whether light, camera or part have changed since the station was started.

        Raises:
            NotEnrolledError: There is no such product.
            ArtifactError: It is damaged.
        """
        with self._lock:
            known = self._monitors.get(product)
            if known is not None:
                return known[1].drift()
        # Nothing was inspected yet.
        return self._catalog.load(product).new_monitor().drift()
