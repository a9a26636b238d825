"""Few-shot visual inspection on a CPU: enroll from a few good images, inspect the next one."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot_ad.encoder import load_encoder
    from fewshot_ad.enrollment.calibration import Calibration
    from fewshot_ad.inspection import Inspection, Region
    from fewshot_ad.inspector import Inspector
    from fewshot_ad.scoring import ScoringConfig

__version__ = "0.1.0"
__all__ = ["Calibration", "Inspection", "Inspector", "Region", "ScoringConfig", "__version__", "load_encoder"]

_HOMES = {
    "Calibration": "enrollment.calibration",
    "Inspection": "inspection",
    "Inspector": "inspector",
    "Region": "inspection",
    "ScoringConfig": "scoring",
    "load_encoder": "encoder",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import fewshot_ad` itself stays instant."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"fewshot_ad.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fewshot_ad' has no attribute {name!r}")
