"""The form of a product's description: every field with its type and range.

The form of the file is written down apart from the classes it becomes, so that a field renamed in one of them cannot
change the format unnoticed.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, FailFast, Field

from fewshot_ad.encoder import Fusion
from fewshot_ad.encoder.engine import Precision
from fewshot_ad.enrollment.calibration import Method, Status
from fewshot_ad.enrollment.presets import (
    DEFECT_SHARES,
    FALSE_REJECTS,
    MAX_BUDGET,
    MAX_IMAGE_SIZE,
    MAX_SCALES,
    MAX_SEED,
    MIN_IMAGE_SIZE,
    Choosable,
)
from fewshot_ad.enrollment.probes import DefectKind
from fewshot_ad.enrollment.views import MAX_VIEWS
from fewshot_ad.images import MAX_PIXELS, MIN_SIDE, LightingKind
from fewshot_ad.images.region_of_interest import MAX_STORED
from fewshot_ad.product import MAX_NAME
from fewshot_ad.product.history import MAX_CHANGES, MAX_KNOWN_DEFECTS, UNDO_BYTES, ChangeKind
from fewshot_ad.registration.parts import MAX_PARTS
from fewshot_ad.registration.template import MAX_TEMPLATE
from fewshot_ad.scoring import MAX_DISTANCE, MAX_NEIGHBORS, MAX_PATCHES, MAX_SIGMA, MIN_DISTANCE, ImageScore
from fewshot_ad.search.nearest import Metric

_FORM = ConfigDict(extra="forbid", frozen=True)
# Of a list of a million wrong values the first is enough: all of them would take gigabytes.
FIRST_ERROR = FailFast()

# JSON has arrays only, which become tuples; a number in place of a text, or a text in place of a number, stays refused.
Whole: TypeAlias = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
Share: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
Distance: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MAX_DISTANCE)]
Positive: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=MIN_DISTANCE, le=MAX_DISTANCE)]
GrayLevel: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=255)]
Divisor: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=1e-12, le=1e12)]
Finite: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Stride: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=1024)]
Channels: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Coordinate: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1, le=1)]
Extent: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=1e-3, le=16)]
Side: TypeAlias = Annotated[int, Field(strict=True, ge=MIN_SIDE, le=MAX_PIXELS // MIN_SIDE)]
Name: TypeAlias = Annotated[str, Field(strict=True, max_length=4096)]
Text: TypeAlias = Annotated[str, Field(strict=True, max_length=1_000_000)]
Sha256: TypeAlias = Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")]


class EncoderForm(BaseModel):
    """See `EncoderSpec`."""

    model_config = _FORM

    name: Annotated[Name, Field(min_length=1)]
    sha256: Sha256
    stages: Annotated[tuple[Whole, ...], FIRST_ERROR, Field(min_length=1, max_length=64)]
    strides: Annotated[tuple[Stride, ...], FIRST_ERROR]
    channels: Annotated[tuple[Channels, ...], FIRST_ERROR]
    fusion: Fusion
    precision: Precision
    norm_power: Share
    embedding: Whole | None = None
    deepest_stride: Stride = 1


class PreprocessingForm(BaseModel):
    """What `images.Geometry` did to the support images; compared as a whole with what it does here."""

    model_config = _FORM

    color: Name
    image_sizes: Annotated[tuple[Count, ...], FIRST_ERROR]
    multiple: Count
    shrink: Name
    enlarge: Name
    smoothing: Finite
    padding: Name


class MapScaleForm(BaseModel):
    """See `MapScale`."""

    model_config = _FORM

    median_good: Distance
    threshold: Positive


class ScoredDefectForm(BaseModel):
    """See `ScoredDefect`."""

    model_config = _FORM

    image: Whole
    kind: DefectKind
    size: Share
    seed: Whole
    score: Distance


class CalibrationForm(BaseModel):
    """See `Calibration`."""

    model_config = _FORM

    method: Method
    n: Count
    threshold: Positive
    false_reject_rate: Share
    status: Status
    scores: Annotated[tuple[Distance, ...], FIRST_ERROR, Field(min_length=1)]
    map_scale: MapScaleForm
    map_peaks: Annotated[tuple[Distance, ...], FIRST_ERROR] = ()
    false_reject_bound: Share | None = None
    distinct: Count | None = None
    nuisances: Annotated[tuple[Distance, ...], FIRST_ERROR] = ()
    defects: Annotated[tuple[ScoredDefectForm, ...], FIRST_ERROR] = ()
    further_scores: Annotated[tuple[Distance, ...], FIRST_ERROR] = ()
    bad_scores: Annotated[tuple[Distance, ...], FIRST_ERROR] = ()
    threshold_interval: tuple[Distance, Distance] | None = None
    escape_rate: Share | None = None
    escape_bound: Share | None = None
    review_threshold: Positive | None = None
    review_rate: Share | None = None


class ViewForm(BaseModel):
    """See `View`."""

    model_config = _FORM

    kind: Name
    value: Finite


class ScoringForm(BaseModel):
    """See `ScoringConfig`."""

    model_config = _FORM

    metric: Metric
    image_score: ImageScore
    top_fraction: Annotated[Share, Field(gt=0)]
    max_patches: Annotated[int, Field(strict=True, ge=1, le=MAX_PATCHES)] | None = None
    neighbors: Annotated[int, Field(strict=True, ge=2, le=MAX_NEIGHBORS)]
    edge_weight: Share
    sigma: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MAX_SIGMA)]


class RegistrationForm(BaseModel):
    """See `Registration`."""

    model_config = _FORM

    sha256: Sha256
    order: Literal[1, 2, 3, 4, 6]
    phase: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-7, le=7)]
    center: tuple[Coordinate, Coordinate] | None


class RegionOfInterestForm(BaseModel):
    """See `RegionOfInterest`; the picture in it is checked with the arrays."""

    model_config = _FORM

    image_hw: tuple[Side, Side]
    png: Annotated[str, Field(strict=True, max_length=MAX_STORED)]
    box: tuple[Share, Share, Share, Share]


class LightingForm(BaseModel):
    """See `Lighting`."""

    model_config = _FORM

    kind: LightingKind
    means: tuple[GrayLevel, GrayLevel, GrayLevel]


class PartLayoutForm(BaseModel):
    """See `PartLayout`; the picture in it is checked with the arrays."""

    model_config = _FORM

    size: tuple[Extent, Extent]
    center: tuple[Coordinate, Coordinate]
    area: Annotated[Share, Field(ge=1e-5)]
    reach: Extent
    largest_other: Share
    template: Annotated[str, Field(strict=True, max_length=MAX_TEMPLATE)]
    expected: Annotated[int, Field(strict=True, ge=1, le=MAX_PARTS)] | None = None


class SettingsForm(BaseModel):
    """See `EnrollmentSettings`; nothing is left to be chosen."""

    model_config = _FORM

    views: Annotated[tuple[ViewForm, ...], FIRST_ERROR, Field(max_length=MAX_VIEWS)]
    image_sizes: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=MIN_IMAGE_SIZE, le=MAX_IMAGE_SIZE)], ...],
        FIRST_ERROR,
        Field(min_length=1, max_length=MAX_SCALES),
    ]
    budget: Annotated[int, Field(strict=True, ge=1, le=MAX_BUDGET)]
    precision: Precision
    scoring: ScoringForm
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]
    auto: Annotated[tuple[Choosable, ...], FIRST_ERROR, Field(max_length=2)]
    min_defect: Annotated[float, Field(strict=True, ge=DEFECT_SHARES[0], le=DEFECT_SHARES[1])]
    max_ms: Positive | None
    max_false_reject: Annotated[float, Field(strict=True, ge=FALSE_REJECTS[0], le=FALSE_REJECTS[1])] | None
    registration: RegistrationForm | None = None
    roi: RegionOfInterestForm | None = None
    lighting: LightingForm | None = None
    parts: PartLayoutForm | None = None


class EnrollmentForm(BaseModel):
    """See `Enrollment`."""

    model_config = _FORM

    product_name: Annotated[str, Field(strict=True, max_length=MAX_NAME)]
    settings: SettingsForm
    support: Annotated[tuple[tuple[Name, Sha256], ...], FIRST_ERROR, Field(min_length=1)]
    notes: Annotated[tuple[Text, ...], FIRST_ERROR]
    reasons: Annotated[tuple[Text, ...], FIRST_ERROR]
    created: Annotated[str, Field(strict=True, max_length=64)]
    versions: dict[Name, Name]


class AppearanceForm(BaseModel):
    """See `Appearance`."""

    model_config = _FORM

    bright: GrayLevel
    contrast: GrayLevel
    saturated: Share
    sharpness: Distance
    red_minus_blue: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-255, le=255)]


class ExpectationsForm(BaseModel):
    """See `Expectations`."""

    model_config = _FORM

    appearances: Annotated[tuple[AppearanceForm, ...], FIRST_ERROR, Field(min_length=1)]
    closeness: Annotated[tuple[Distance, ...], FIRST_ERROR, Field(min_length=1)]


class KnownDefectForm(BaseModel):
    """See `KnownDefect`."""

    model_config = _FORM

    name: Name
    sha256: Sha256
    region: tuple[Whole, Whole, Count, Count] | None
    factor: Positive


class ChangeForm(BaseModel):
    """See `Change`; `undo_bytes` is the length of its array, 0 where that was dropped."""

    model_config = _FORM

    kind: ChangeKind
    time: Annotated[str, Field(strict=True, max_length=64)]
    text: Text
    before: Sha256
    previous: Sha256
    link: Sha256
    undo_sha256: Sha256
    undo_bytes: Annotated[int, Field(strict=True, ge=0, le=UNDO_BYTES)]


class Description(BaseModel):
    """The description of a product, format 3."""

    model_config = _FORM

    format_version: Literal[3]
    sha256: Sha256
    encoder: EncoderForm
    preprocessing: PreprocessingForm
    divisors: Annotated[tuple[Divisor, ...], FIRST_ERROR]
    level_scale: Annotated[tuple[Divisor, ...], FIRST_ERROR]
    threshold: Positive
    threshold_set_by_hand: bool = False
    calibration: CalibrationForm
    enrollment: EnrollmentForm
    references: Annotated[tuple[tuple[Side, Side], ...], FIRST_ERROR] = ()
    expectations: ExpectationsForm | None = None
    known_defects: Annotated[tuple[KnownDefectForm, ...], FIRST_ERROR, Field(max_length=MAX_KNOWN_DEFECTS)] = ()
    history: Annotated[tuple[ChangeForm, ...], FIRST_ERROR, Field(max_length=MAX_CHANGES)] = ()
