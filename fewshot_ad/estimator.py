"""The Inspector as an outlier detector of scikit-learn; needs the extra `sklearn`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float64Array
from fewshot_ad.encoder import DEFAULT_ENCODER
from fewshot_ad.enrollment.presets import PresetName, SizesSpec
from fewshot_ad.enrollment.views import ViewsSpec
from fewshot_ad.errors import FewshotADError, SupportSetError
from fewshot_ad.images import ImageSource, RegionSpec
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.inspector import Inspector
from fewshot_ad.product import ForegroundChoice, LightingChoice, PartsChoice

try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils import Tags
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise FewshotADError(
        f"FewShotDetector needs the extra 'sklearn' (no module {error.name}): pip install 'fewshot-ad[sklearn]'."
    ) from error


class FewShotDetector(OutlierMixin, BaseEstimator):
    """Good and bad images as scikit-learn's outlier detectors tell them: 1 is good, -1 is not.

    X is what `Inspector.from_support` takes: images as paths, arrays or PIL images, or an array (n, H, W, 3).

    Args:
        encoder: See `Inspector.from_support`, as for the settings that follow.
        preset: `fast`, `balanced` or `accurate`.
        views: Views of each image besides itself; None takes the preset's.
        image_size: Working scale in pixels, or several; None takes the preset's.
        budget: Vectors per memory bank; None takes the preset's.
        min_defect: Size of the smallest defect that matters, as a share of the image's side; None takes the default.
        max_false_reject: Share of good parts that may be rejected; None weighs rejects and escapes the same.
        register: Whether images are brought into one pose before they are compared.
        roi: Where images are looked at; None for all of them.
        foreground: Whether only the part on its plain background counts.
        lighting: Whether exposure and tint are taken out.
        parts: Whether several parts on an image are judged one by one.
        expect: How many parts each image shows; None for any number.
        random_state: Seed of everything random.
        threads: Number of CPU threads; None takes all.

    Attributes:
        inspector_: The `Inspector`, once fitted: heatmaps, `save`, and all else.
        offset_: `score_samples` below it is anomalous.

    Examples:
        >>> detector = FewShotDetector(image_size=256).fit(good_images)     # doctest: +SKIP
        >>> detector.predict(next_images)                                   # doctest: +SKIP
        array([ 1,  1, -1])
    """

    def __init__(  # noqa: PLR0913 - parameters of an estimator, each with a default
        self,
        *,
        encoder: str = DEFAULT_ENCODER,
        preset: PresetName = "balanced",
        views: ViewsSpec | None = None,
        image_size: SizesSpec | None = None,
        budget: int | None = None,
        min_defect: float | None = None,
        max_false_reject: float | None = None,
        register: bool = False,
        roi: RegionSpec | None = None,
        foreground: ForegroundChoice = "off",
        lighting: LightingChoice = "off",
        parts: PartsChoice = "off",
        expect: int | None = None,
        random_state: int = 0,
        threads: int | None = None,
    ) -> None:
        self.encoder = encoder
        self.preset = preset
        self.views = views
        self.image_size = image_size
        self.budget = budget
        self.min_defect = min_defect
        self.max_false_reject = max_false_reject
        self.register = register
        self.roi = roi
        self.foreground = foreground
        self.lighting = lighting
        self.parts = parts
        self.expect = expect
        self.random_state = random_state
        self.threads = threads

    def fit(self, X: ImageSource | Iterable[ImageSource], y: npt.ArrayLike | None = None) -> FewShotDetector:
        """Enroll good images.

        Args:
            X: The images.
            y: None, or 1 for each good image and -1 for each that is not, which is then left out.

        Raises:
            SupportSetError: No usable image, labels that are neither, or a setting that makes no sense.
        """
        images = self._good(X, y)
        settings = {name: value for name, value in self.get_params().items() if name != "random_state"}
        self.inspector_ = Inspector.from_support(images, seed=self.random_state, **settings)
        self.offset_ = -self.inspector_.threshold
        return self

    def score_samples(self, X: ImageSource | Iterable[ImageSource]) -> Float64Array:
        """The image scores with their sign turned, (n,) float64: higher is better.

        Raises:
            ImageError: An image cannot be used.
        """
        check_is_fitted(self, "inspector_")
        return np.array([-inspection.score for inspection in self._inspections(X)], np.float64)

    def decision_function(self, X: ImageSource | Iterable[ImageSource]) -> Float64Array:
        """`score_samples` less `offset_`, (n,) float64: below 0 is anomalous.

        Raises:
            ImageError: An image cannot be used.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: ImageSource | Iterable[ImageSource]) -> npt.NDArray[np.int64]:
        """1 for each good image, -1 for each that is anomalous or cannot be judged, (n,) int64.

        Raises:
            ImageError: An image cannot be used.
        """
        check_is_fitted(self, "inspector_")
        anomalous = [inspection.is_anomalous for inspection in self._inspections(X)]
        return np.where(anomalous, np.int64(-1), np.int64(1))

    def _inspections(self, X: ImageSource | Iterable[ImageSource]) -> Iterator[Inspection]:
        for inspection in self.inspector_.inspect_batch(X):
            if isinstance(inspection, Inspection):
                yield inspection

    def _good(self, X: Any, y: npt.ArrayLike | None) -> Any:
        if y is None:
            return X
        images, labels = list(X), np.asarray(y).ravel()
        if len(labels) != len(images) or not np.isin(labels, (1, -1)).all():
            raise SupportSetError(
                f"expected y with 1 (good) or -1 for each of {len(images)} images, got {len(labels)} label(s), among "
                f"them {np.unique(labels)[:5].tolist()}. Leave y out where all images are good."
            )
        return [image for image, label in zip(images, labels, strict=True) if label == 1]

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn's checks are to know: X is images, not a table of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
