"""Settings of an enrollment: presets that go together, and what the caller puts before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fewshot_ad.arguments import choice, number, whole_number
from fewshot_ad.encoder.engine import PRECISIONS, Precision
from fewshot_ad.enrollment.views import View, ViewsSpec, parse_views
from fewshot_ad.errors import SupportSetError
from fewshot_ad.images import Lighting, RegionOfInterest
from fewshot_ad.registration import Framing, Registration
from fewshot_ad.registration.parts import PartLayout
from fewshot_ad.scoring import ScoringConfig

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 64, 4096
MAX_BUDGET, MAX_SEED = 2**31 - 1, 2**63 - 1
# What `auto` starts from, and stays with where the support set does not call for more.
BASE_VIEWS = parse_views("hflip,vflip,rotate=180")
BASE_SIZES = (256, 512)
MAX_SCALES = 3
# Size of the smallest defect that matters unless told, and limits of what may be told, as shares of the image's side.
MIN_DEFECT = 0.02
DEFECT_SHARES = (0.001, 0.5)
FALSE_REJECTS = (0.0001, 0.5)
SizesSpec: TypeAlias = int | Sequence[int] | Literal["auto"]
PresetName: TypeAlias = Literal["fast", "balanced", "accurate"]
Choosable: TypeAlias = Literal["views", "image_size"]


@dataclass(frozen=True)
class EnrollmentSettings:
    """How a product is enrolled; stored with it as it is.

    Attributes:
        views: Views of each support image besides the image itself.
        image_sizes: Working scales in pixels, ascending, see `images.Geometry`; an image is compared at each.
        budget: Vectors per memory bank, at most.
        precision: Of the network; `auto` until the faster one has been compared.
        scoring: How distances become a score and a map.
        seed: Of everything random.
        auto: Which of the settings above are chosen from the support set; until then they are what the choice starts
            from.
        min_defect: Size of the smallest defect that matters, as a share of the image's side (the square root of its
            area).
        max_ms: Milliseconds that an inspection may take on this machine, decoding aside; None sets no limit.
        max_false_reject: Share of good parts that may be rejected; None weighs rejects and escapes against each other.
        registration: How images are brought into one pose; None leaves them as they lie.
        roi: Where images are looked at; None for all of them. The memory bank holds nothing of what lies outside.
        lighting: How the light of images is taken out; None leaves it as it is.
        parts: What each of several parts on an image looks like; None for images that are looked at as a whole. All
            else is then said of a part's own image.
    """

    views: tuple[View, ...]
    image_sizes: tuple[int, ...]
    budget: int
    precision: Precision | Literal["auto"]
    scoring: ScoringConfig
    seed: int
    auto: tuple[Choosable, ...]
    min_defect: float = MIN_DEFECT
    max_ms: float | None = None
    max_false_reject: float | None = None
    registration: Registration | None = None
    roi: RegionOfInterest | None = None
    lighting: Lighting | None = None
    parts: PartLayout | None = None

    @property
    def framing(self) -> Framing:
        """How an image is brought before the encoder."""
        return Framing(self.registration, self.roi, self.lighting)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EnrollmentSettings:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        views = tuple(View(**view) for view in fields["views"])
        # Products that do not say it averaged a share of all patches.
        scoring = ScoringConfig(**{"max_patches": None, **fields["scoring"]})
        names = ("registration", "roi", "lighting", "parts")
        registration, roi, lighting, parts = (fields.get(name) for name in names)
        return cls(
            **{
                **fields,
                "views": views,
                "image_sizes": tuple(fields["image_sizes"]),
                "scoring": scoring,
                "auto": tuple(fields["auto"]),
                "registration": None if registration is None else Registration.from_dict(registration),
                "roi": None if roi is None else RegionOfInterest.from_dict(roi),
                "lighting": None if lighting is None else Lighting.from_dict(lighting),
                "parts": None if parts is None else PartLayout.from_dict(parts),
            }
        )


@dataclass(frozen=True)
class Preset:
    """Settings of `Inspector.from_support` that go together; what the caller gives comes before them.

    Attributes:
        views: Views of the support images, see `support.parse_views`, or `"auto"`.
        image_size: Working scales in pixels, or `"auto"`.
        budget: Vectors per memory bank.
        precision: Of the network.
    """

    views: ViewsSpec
    image_size: SizesSpec
    budget: int
    precision: Precision | Literal["auto"]


# Figures: benchmarks/presets.py; docs/results/board.md, Presets.
PRESETS: dict[PresetName, Preset] = {
    "fast": Preset("hflip,vflip,rotate=180", 256, 1000, "auto"),
    "balanced": Preset("auto", "auto", 1500, "f32"),
    # The network reads any size as it is, so a larger scale needs no tiles.
    "accurate": Preset("hflip,vflip,rotate=45/90/135/180/225/270/315", (256, 512), 8000, "f32"),
}


def enrollment_settings(
    preset: PresetName = "balanced",
    *,
    views: ViewsSpec | None = None,
    image_size: SizesSpec | None = None,
    budget: int | None = None,
    precision: Precision | Literal["auto"] | None = None,
    scoring: ScoringConfig | None = None,
    seed: int = 0,
    min_defect: float | None = None,
    max_ms: float | None = None,
    max_false_reject: float | None = None,
) -> EnrollmentSettings:
    """The settings of a preset, with what the caller gives put before them; None takes the preset's.

    Raises:
        SupportSetError: There is no preset of that name, or a setting makes no sense.
    """
    choice(preset, "preset", tuple(PRESETS), error=SupportSetError)
    defaults = PRESETS[preset]
    views = defaults.views if views is None else views
    sizes = checked_sizes(defaults.image_size if image_size is None else image_size)
    budget = defaults.budget if budget is None else budget
    hint = f"It is the number of vectors in a bank; the preset {preset} has {defaults.budget}."
    budget = whole_number(budget, "budget", 1, MAX_BUDGET, error=SupportSetError, hint=hint)
    precision = defaults.precision if precision is None else precision
    choice(precision, "precision", (*PRECISIONS, "auto"), error=SupportSetError)
    if not isinstance(scoring, ScoringConfig | None):
        raise SupportSetError(
            f"expected scoring as a ScoringConfig, got {type(scoring).__name__}. Give ScoringConfig(sigma=2.0), say."
        )
    if max_ms is not None and sizes != "auto":
        raise SupportSetError(
            f"expected max_ms or image_size, got both (max_ms={max_ms}, image_size={sizes}): max_ms chooses the "
            "working scale. Leave one out; of a preset with a scale of its own, give image_size='auto' "
            "(--image-size auto)."
        )
    auto: dict[Choosable, bool] = {"views": isinstance(views, str) and views == "auto", "image_size": sizes == "auto"}
    return EnrollmentSettings(
        views=BASE_VIEWS if auto["views"] else parse_views(views),
        image_sizes=BASE_SIZES if sizes == "auto" else sizes,
        budget=budget,
        precision=precision,
        scoring=scoring or ScoringConfig(),
        seed=whole_number(seed, "seed", 0, MAX_SEED, error=SupportSetError),
        auto=tuple(name for name, chosen in auto.items() if chosen),
        min_defect=MIN_DEFECT
        if min_defect is None
        else round(number(min_defect, "min_defect", *DEFECT_SHARES, error=SupportSetError), 6),
        max_ms=None if max_ms is None else number(max_ms, "max_ms", 0.1, 1e6, error=SupportSetError),
        max_false_reject=None
        if max_false_reject is None
        else number(max_false_reject, "max_false_reject", *FALSE_REJECTS, error=SupportSetError),
    )


def defect_share(
    image_hw: tuple[int, int],
    min_defect: float | None = None,
    min_defect_px: float | None = None,
    min_defect_mm: float | None = None,
    mm_per_px: float | None = None,
) -> float | None:
    """The size of the smallest defect that matters as a share of the image's side; None if it was not given.

    Args:
        image_hw: Height and width of the support images in pixels.
        min_defect: The size as a share of the side, the square root of the image's area.
        min_defect_px: The size in pixels of the image.
        min_defect_mm: The size in millimeters.
        mm_per_px: Millimeters per pixel of the image.

    Raises:
        SupportSetError: It was given in more than one way, millimeters without a scale, or out of range.
    """
    given = {"min_defect": min_defect, "min_defect_px": min_defect_px, "min_defect_mm": min_defect_mm}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise SupportSetError(f"expected one of {', '.join(given)}, got {' and '.join(names)}. Give one.")
    if (min_defect_mm is None) != (mm_per_px is None):
        raise SupportSetError(
            "expected min_defect_mm and mm_per_px together, got one of them. Give the millimeters that one pixel of "
            "the image covers, too: mm_per_px=0.05."
        )
    pixels = min_defect_px
    if min_defect_mm is not None and mm_per_px is not None:
        scale = number(mm_per_px, "mm_per_px", 0, low_counts=False, error=SupportSetError)
        pixels = number(min_defect_mm, "min_defect_mm", 0, low_counts=False, error=SupportSetError) / scale
    if pixels is None:
        return min_defect
    side = (image_hw[0] * image_hw[1]) ** 0.5
    low, high = DEFECT_SHARES
    share = number(pixels, "min_defect_px", 0, low_counts=False, error=SupportSetError) / side
    if not low <= share <= high:
        raise SupportSetError(
            f"expected a smallest defect of {low:.1%} to {high:.0%} of the image's side, {low * side:.1f} to "
            f"{high * side:.0f} pixels, got {pixels:g} pixels. Give a size within, or crop the images to what matters."
        )
    return share


def checked_sizes(image_size: SizesSpec) -> tuple[int, ...] | Literal["auto"]:
    """Working scales, ascending, or `auto`.

    Raises:
        SupportSetError: One is out of range, or there are none or too many.
    """
    if isinstance(image_size, str) and image_size == "auto":
        return "auto"
    hint = "Or 'auto', which chooses it from the support set."
    given = list(image_size) if isinstance(image_size, (tuple, list)) else [image_size]
    if not 1 <= len(given) <= MAX_SCALES:
        raise SupportSetError(f"expected 1 to {MAX_SCALES} working scales in image_size, got {len(given)}. {hint}")
    sizes = {
        whole_number(size, "image_size", MIN_IMAGE_SIZE, MAX_IMAGE_SIZE, error=SupportSetError, hint=hint)
        for size in given
    }
    return tuple(sorted(sizes))
