"""What a product finds and what it cannot see, by the defects that were drawn on its support images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.prediction import ScoredDefect
from fewshot_ad.enrollment.probes import CONTRAST, DEFECT_KINDS, SCRATCH_WIDTH, DefectKind
from fewshot_ad.metrics import auroc

# A size counts as found if so many of its drawn defects are caught, and so many of all larger ones.
FOUND = 0.75
# Below this AUROC of the smallest defects against good images, a product hardly sees them.
BLIND = 0.7
# Where fewer of the largest drawn defects are caught, the threshold passes most of what comes.
MOSTLY_PASSED = 0.5


@dataclass(frozen=True)
class Sensitivity:
    """Which drawn defects a product catches at its threshold.

    Attributes:
        min_defect: Size of the smallest defect that matters, as a share of the image's side.
        caught: Share of the drawn defects of that size that are caught.
        auroc: AUROC of their scores against those of good images and their nuisances, 0..1.
        caught_largest: Share of the largest drawn defects that are caught.
        found_from: By kind, the smallest drawn size, as a share of the image's side, from which on they are found; None
            if the largest is not. Of a scratch, its width.
        largest: By kind, the largest size that was drawn.
        contrast: Of the drawn defects: how far they are from their surroundings on the way to the opposite color.
    """

    min_defect: float
    caught: float
    auroc: float
    caught_largest: float
    found_from: dict[DefectKind, float | None]
    largest: dict[DefectKind, float]
    contrast: float = CONTRAST

    @property
    def is_blind(self) -> bool:
        """Whether defects of that size are near chance."""
        return self.auroc < BLIND

    def explain(self, image_hw: tuple[int, int] | None = None) -> str:
        """One paragraph for the engineer.

        Args:
            image_hw: Height and width of the images in pixels; None tells sizes as shares of their side.
        """
        found = []
        for kind, size in self.found_from.items():
            word = {"spot": "spots", "scratch": "scratches", "patch": "displaced patches"}[kind]
            wide = " wide" if kind == "scratch" else ""
            if size is None:
                found.append(f"not the largest {word} drawn ({length(self.largest[kind], image_hw)}{wide})")
            else:
                found.append(f"{word} from {length(size, image_hw)}{wide}")
        return (
            f"finds {', '.join(found)}; of drawn defects of {length(self.min_defect, image_hw)} {self.caught:.0%} are "
            "caught."
        )

    def warning(self, image_hw: tuple[int, int] | None = None) -> str | None:
        """What the engineer must know before the product is relied on; None if there is nothing."""
        if not self.is_blind:
            if self.caught_largest >= MOSTLY_PASSED:
                return None
            largest = length(max(self.largest.values()), image_hw)
            return (
                f"the threshold passes most defects: of drawn ones of {largest} only {self.caught_largest:.0%} are "
                "caught. Look whether one of the images was bad, give more of them, or calibrate."
            )
        return (
            f"this product hardly sees defects of {length(self.min_defect, image_hw)}: drawn ones stand out from good "
            f"images with AUROC {self.auroc:.2f} (0.5 is chance), and {self.caught:.0%} are caught. Give more good "
            "images, larger photographs or a closer view, or a larger min_defect if such defects do not matter."
        )


def sensitivity(calibration: Calibration, threshold: float, min_defect: float) -> Sensitivity | None:
    """What a product finds at a threshold; None if no defects were drawn (products of earlier versions).

    Args:
        calibration: The product's, with its drawn defects.
        threshold: The threshold that holds.
        min_defect: Size of the smallest defect that matters, as a share of the image's side.
    """
    smallest = [d for d in calibration.defects if math.isclose(d.size, min_defect, abs_tol=1e-6)]
    if not smallest:
        return None
    by_kind = {kind: [d for d in calibration.defects if d.kind == kind] for kind in DEFECT_KINDS}
    good = [*calibration.scores, *calibration.nuisances]
    scores = [d.score for d in smallest]
    size = max(d.size for d in calibration.defects)
    return Sensitivity(
        min_defect=min_defect,
        caught=_share_caught(smallest, threshold),
        auroc=auroc([0] * len(good) + [1] * len(scores), [*good, *scores]),
        caught_largest=_share_caught([d for d in calibration.defects if d.size == size], threshold),
        found_from={kind: _found_from(kind, drawn, threshold) for kind, drawn in by_kind.items() if drawn},
        largest={kind: shown_size(kind, max(d.size for d in drawn)) for kind, drawn in by_kind.items() if drawn},
    )


def _found_from(kind: DefectKind, defects: Sequence[ScoredDefect], threshold: float) -> float | None:
    smallest = None
    for size in sorted({d.size for d in defects}, reverse=True):
        if _share_caught([d for d in defects if d.size == size], threshold) < FOUND:
            break
        smallest = shown_size(kind, size)
    return smallest


def shown_size(kind: DefectKind, size: float) -> float:
    """The size that is told of a drawn defect of that size, as a share of the image's side: of a scratch, its width."""
    return size * SCRATCH_WIDTH if kind == "scratch" else size


def _share_caught(defects: Sequence[ScoredDefect], threshold: float) -> float:
    return sum(d.score > threshold for d in defects) / len(defects)


def length(share: float, image_hw: tuple[int, int] | None) -> str:
    """A share of the image's side in pixels; as a share, if height and width of the image are None."""
    if image_hw is None:
        return f"{share:.1%} of the image's side"
    pixels = share * (image_hw[0] * image_hw[1]) ** 0.5
    return f"{max(1, round(pixels))} px"
