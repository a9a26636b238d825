"""Settings of an enrollment: presets that go together, and what the caller puts before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fewshot_ad.arguments import choice, whole_number
from fewshot_ad.encoder.engine import PRECISIONS, Precision
from fewshot_ad.enrollment.support import View, ViewsSpec, parse_views
from fewshot_ad.errors import SupportSetError
from fewshot_ad.scoring import ScoringConfig

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 64, 4096
MAX_BUDGET, MAX_SEED = 2**31 - 1, 2**63 - 1
# What `auto` starts from, and stays with where the support set does not call for more.
BASE_VIEWS = parse_views("hflip,vflip,rotate=180")
BASE_SIZE = 256
PresetName: TypeAlias = Literal["fast", "balanced", "accurate"]
Choosable: TypeAlias = Literal["views", "image_size"]


@dataclass(frozen=True)
class EnrollmentSettings:
    """How a product is enrolled; stored with it as it is.

    Attributes:
        views: Views of each support image besides the image itself.
        image_size: Working scale in pixels, see `images.Geometry`.
        budget: Vectors per memory bank, at most.
        precision: Of the network; `auto` until the faster one has been compared.
        scoring: How distances become a score and a map.
        seed: Of everything random.
        auto: Which of the settings above are chosen from the support set; until then they are what the choice starts
            from.
    """

    views: tuple[View, ...]
    image_size: int
    budget: int
    precision: Precision | Literal["auto"]
    scoring: ScoringConfig
    seed: int
    auto: tuple[Choosable, ...]

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EnrollmentSettings:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        views = tuple(View(**view) for view in fields["views"])
        return cls(
            **{**fields, "views": views, "scoring": ScoringConfig(**fields["scoring"]), "auto": tuple(fields["auto"])}
        )


@dataclass(frozen=True)
class Preset:
    """Settings of `Inspector.from_support` that go together; what the caller gives comes before them.

    Attributes:
        views: Views of the support images, see `support.parse_views`, or `"auto"`.
        image_size: Working scale in pixels, or `"auto"`.
        budget: Vectors per memory bank.
        precision: Of the network.
    """

    views: ViewsSpec
    image_size: int | Literal["auto"]
    budget: int
    precision: Precision | Literal["auto"]


# Figures: benchmarks/presets.py; docs/results/board.md, Presets.
PRESETS: dict[PresetName, Preset] = {
    "fast": Preset("hflip,vflip,rotate=180", 256, 1000, "auto"),
    "balanced": Preset("auto", "auto", 2000, "f32"),
    "accurate": Preset("hflip,vflip,rotate=45/90/135/180/225/270/315", 384, 8000, "f32"),
}


def enrollment_settings(
    preset: PresetName = "balanced",
    *,
    views: ViewsSpec | None = None,
    image_size: int | Literal["auto"] | None = None,
    budget: int | None = None,
    precision: Precision | Literal["auto"] | None = None,
    scoring: ScoringConfig | None = None,
    seed: int = 0,
) -> EnrollmentSettings:
    """The settings of a preset, with what the caller gives put before them; None takes the preset's.

    Raises:
        SupportSetError: There is no preset of that name, or a setting makes no sense.
    """
    choice(preset, "preset", tuple(PRESETS), error=SupportSetError)
    defaults = PRESETS[preset]
    views = defaults.views if views is None else views
    size = _checked_size(defaults.image_size if image_size is None else image_size)
    budget = defaults.budget if budget is None else budget
    hint = f"It is the number of vectors in a bank; the preset {preset} has {defaults.budget}."
    budget = whole_number(budget, "budget", 1, MAX_BUDGET, error=SupportSetError, hint=hint)
    precision = defaults.precision if precision is None else precision
    choice(precision, "precision", (*PRECISIONS, "auto"), error=SupportSetError)
    if not isinstance(scoring, ScoringConfig | None):
        raise SupportSetError(
            f"expected scoring as a ScoringConfig, got {type(scoring).__name__}. Give ScoringConfig(sigma=2.0), say."
        )
    auto: dict[Choosable, bool] = {"views": isinstance(views, str) and views == "auto", "image_size": size == "auto"}
    return EnrollmentSettings(
        views=BASE_VIEWS if auto["views"] else parse_views(views),
        image_size=BASE_SIZE if size == "auto" else size,
        budget=budget,
        precision=precision,
        scoring=scoring or ScoringConfig(),
        seed=whole_number(seed, "seed", 0, MAX_SEED, error=SupportSetError),
        auto=tuple(name for name, chosen in auto.items() if chosen),
    )


def _checked_size(image_size: int | Literal["auto"]) -> int | Literal["auto"]:
    if isinstance(image_size, str) and image_size == "auto":
        return "auto"
    hint = "Or 'auto', which chooses it from the support set."
    return whole_number(image_size, "image_size", MIN_IMAGE_SIZE, MAX_IMAGE_SIZE, error=SupportSetError, hint=hint)
