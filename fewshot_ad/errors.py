"""The exceptions of fewshot_ad. Every message says what was expected, what was got and how to fix it."""


class FewshotADError(Exception):
    """Base of all errors this package raises on purpose."""


class ImageError(FewshotADError, ValueError):
    """An image cannot be used: unreadable, truncated, of a wrong type, or of an impossible size."""


class SupportSetError(FewshotADError, ValueError):
    """The support set cannot be enrolled: empty, or its views or sizes make no sense."""


class NotEnrolledError(FewshotADError, RuntimeError):
    """An inspection was asked of a product that has not been enrolled."""


class ArtifactError(FewshotADError, RuntimeError):
    """An artifact (`.fsad` file) cannot be written, is damaged, or does not fit this installation."""


class WeightsError(FewshotADError, RuntimeError):
    """An encoder's weights are missing, altered, or do not fit its architecture."""


class TrainingError(FewshotADError, RuntimeError):
    """An encoder cannot be trained: the data, the recipe or the machine does not allow it, or training collapsed."""


class ExportError(FewshotADError, RuntimeError):
    """A product cannot be exported, or the exported model does not say what the product says."""


class DatasetError(FewshotADError, ValueError):
    """A dataset cannot be read: the folder is not laid out as published, or a file of it is missing or damaged."""


class ZooError(FewshotADError, RuntimeError):
    """A baseline cannot be had or cannot work: an unknown name or setting, a missing extra, or unfit images."""


class BenchmarkError(FewshotADError, ValueError):
    """A benchmark plan makes no sense, or its records cannot be used."""
