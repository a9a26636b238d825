"""What images come from: folders and cameras."""

from fewshot_ad.line.sources.camera import CameraSource
from fewshot_ad.line.sources.folder import FolderSource
from fewshot_ad.line.sources.source import BusyError, Source, SourceState, Submit

__all__ = ["BusyError", "CameraSource", "FolderSource", "Source", "SourceState", "Submit"]
