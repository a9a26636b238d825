"""The exceptions of fewshot_ad. Every message says what was expected, what was found instead, and how to fix it."""

import warnings

from fewshot_ad.printable import printable


class FewshotADError(Exception):
    """Base class of all errors that this package raises on purpose.

    As text it is one line that any terminal takes: control characters, and bytes that are no UTF-8, which the name of a
    file may hold, are escaped, see `printable.printable`.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ArgumentError(FewshotADError, ValueError):
    """An argument of a call or of a command is of a wrong kind or value, or stands in another's place."""


class ImageError(FewshotADError, ValueError):
    """An image cannot be used: unreadable, truncated, of a wrong type, or of an impossible size."""


class SupportSetError(FewshotADError, ValueError):
    """The support set cannot be enrolled: it is empty, or its views or sizes make no sense."""


class NotEnrolledError(FewshotADError, RuntimeError):
    """A product is used before it is enrolled."""


class ArtifactError(FewshotADError, RuntimeError):
    """An artifact (`.fsad` file) cannot be written, is damaged, or does not fit this installation."""


class WeightsError(FewshotADError, RuntimeError):
    """An encoder's weights are missing, altered, or do not fit its architecture."""


class TrainingError(FewshotADError, RuntimeError):
    """An encoder cannot be trained: the data, the recipe or the machine does not allow it, or training collapsed."""


class ExportError(FewshotADError, RuntimeError):
    """A product cannot be exported, or the exported model does not agree with the product."""


class DatasetError(FewshotADError, ValueError):
    """A dataset cannot be read: its folder does not have the published layout, or a file is missing or damaged."""


class ZooError(FewshotADError, RuntimeError):
    """A baseline cannot be created or cannot work: unknown name or setting, missing extra, or unsuitable images."""


class BenchmarkError(FewshotADError, ValueError):
    """A benchmark plan makes no sense, or its records cannot be used."""


class ClusterError(FewshotADError, RuntimeError):
    """Work cannot be spread over processes: Ray is missing, or there is no cluster that can do it."""


class StationError(FewshotADError, RuntimeError):
    """A station cannot be started, or cannot do what it is asked: its settings, its journal, or who it publishes to."""


def sentence(message: object) -> str:
    """A message that another sentence is to follow, with one full stop at its end."""
    return str(message).rstrip(". ") + "."


def __getattr__(name: str) -> type[FewshotADError]:
    """Former names, until version 0.3."""
    if name == "ArtefactError":
        warnings.warn("ArtefactError is now ArtifactError.", DeprecationWarning, stacklevel=2)
        return ArtifactError
    raise AttributeError(f"module 'fewshot_ad.errors' has no attribute {name!r}")
