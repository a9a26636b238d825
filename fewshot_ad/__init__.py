"""Few-shot visual inspection on a CPU: enroll from a few good images, inspect the next one."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot_ad import datasets, metrics, zoo
    from fewshot_ad.check import Check
    from fewshot_ad.encoder import load_encoder
    from fewshot_ad.enrollment.calibration import Calibration
    from fewshot_ad.errors import (
        ArgumentError,
        ArtifactError,
        BenchmarkError,
        ClusterError,
        DatasetError,
        ExportError,
        FewshotADError,
        ImageError,
        NotEnrolledError,
        StationError,
        SupportSetError,
        TrainingError,
        WeightsError,
        ZooError,
    )
    from fewshot_ad.images import list_images, read_image
    from fewshot_ad.inspection.regions import MapScale, Region
    from fewshot_ad.inspection.result import Inspection
    from fewshot_ad.inspector import Inspector
    from fewshot_ad.scoring import ScoringConfig

__version__ = "0.2.0.dev0"

_HOMES = {
    "Calibration": "enrollment.calibration",
    "Check": "check",
    "Inspection": "inspection.result",
    "Inspector": "inspector",
    "MapScale": "inspection.regions",
    "Region": "inspection.regions",
    "ScoringConfig": "scoring",
    "list_images": "images",
    "load_encoder": "encoder",
    "read_image": "images",
    "ArgumentError": "errors",
    "ArtifactError": "errors",
    "BenchmarkError": "errors",
    "ClusterError": "errors",
    "DatasetError": "errors",
    "ExportError": "errors",
    "FewshotADError": "errors",
    "ImageError": "errors",
    "NotEnrolledError": "errors",
    "StationError": "errors",
    "SupportSetError": "errors",
    "TrainingError": "errors",
    "WeightsError": "errors",
    "ZooError": "errors",
}
_PACKAGES = ("datasets", "metrics", "zoo")

__all__ = [
    "ArgumentError",
    "ArtifactError",
    "BenchmarkError",
    "Calibration",
    "Check",
    "ClusterError",
    "DatasetError",
    "ExportError",
    "FewshotADError",
    "ImageError",
    "Inspection",
    "Inspector",
    "MapScale",
    "NotEnrolledError",
    "Region",
    "ScoringConfig",
    "StationError",
    "SupportSetError",
    "TrainingError",
    "WeightsError",
    "ZooError",
    "__version__",
    "datasets",
    "list_images",
    "load_encoder",
    "metrics",
    "read_image",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import fewshot_ad` itself stays instant."""
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"fewshot_ad.{_HOMES[name]}"), name)
    if name in _PACKAGES:
        return importlib.import_module(f"fewshot_ad.{name}")
    raise AttributeError(f"module 'fewshot_ad' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
