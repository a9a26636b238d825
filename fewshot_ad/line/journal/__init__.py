"""The journal of a station: a database of every inspection, and the pictures that belong to it."""

from fewshot_ad.line.journal.database import DiskFullError, InUseError, JournalError
from fewshot_ad.line.journal.entries import Correction, CorrectionAction, Event, Lost, Picture, Selection
from fewshot_ad.line.journal.journal import Journal
from fewshot_ad.line.journal.pictures import PictureFolder, media_type

__all__ = [
    "Correction",
    "CorrectionAction",
    "DiskFullError",
    "Event",
    "InUseError",
    "Journal",
    "JournalError",
    "Lost",
    "Picture",
    "PictureFolder",
    "Selection",
    "media_type",
]
