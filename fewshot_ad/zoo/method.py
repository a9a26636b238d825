"""What a baseline is: two calls, a card, and a registry by decorator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from fewshot_ad.arrays import BoolArray, Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError

Family: TypeAlias = Literal[
    "memory bank",
    "distribution",
    "registration",
    "normalizing flow",
    "teacher-student",
    "reconstruction",
    "restoration",
    "generative",
    "diffusion",
    "synthetic anomalies",
    "vision-language",
    "detector",
]
Supervision: TypeAlias = Literal["good images", "none", "labeled defects"]
Source: TypeAlias = Literal["fewshot_ad", "anomalib", "ultralytics"]
Task: TypeAlias = Literal["classification", "localization", "detection"]


@dataclass(frozen=True, eq=False)
class Labeled:
    """An image of a defective part, for the methods that learn from such.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, True where it is defective.
        defect_type: Name of the kind of defect.
    """

    image: Uint8Array
    mask: BoolArray
    defect_type: str = "defect"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a method says of some images.

    Attributes:
        scores: (n,) float32 image scores, higher = worse; comparable within one fitted method only.
        maps: One (H, W) float32 anomaly map an image, in its own size; None of a method that gives none.
        rejected: (n,) bool decisions at the method's own threshold; None of a method that has none.
    """

    scores: Float32Array
    maps: tuple[Float32Array, ...] | None = None
    rejected: BoolArray | None = None


class Method(Protocol):
    """A baseline. Its factory has set the seed and all hyper-parameters; nothing of it survives a second `fit`."""

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Learn what good looks like.

        Args:
            normal: Images of good parts, (H, W, 3) uint8 RGB each, of any sizes. May be read from disk item by
                item, so go through it as seldom as possible and hold resized copies.
            labeled: Images of defective parts; looked at only where the card says `labeled defects`.
            progress: Called as `progress(stage, done, total)`.

        Raises:
            ZooError: The method cannot work with what it was given.
        """

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score images, (H, W, 3) uint8 RGB each, of any sizes; each as if it came alone."""

    def model_bytes(self) -> int:
        """Size of what an inspection needs: weights, statistics, memory bank; in bytes."""


@dataclass(frozen=True)
class Card:
    """What to know of a baseline before running it.

    Attributes:
        name: The name users give: lower case, words joined by `_`.
        title: As the paper spells it.
        paper: Authors, year, title, and venue or arXiv number.
        year: Of the paper.
        family: How it works.
        supervision: What it learns from.
        source: Whose implementation runs.
        license: SPDX identifier of that implementation.
        maps: Whether it gives anomaly maps.
        needs_masks: Whether `fit` needs masks of defects.
        needs_internet: Whether its published form loads weights that are not at hand offline.
        trains: Whether `fit` takes gradient steps.
        weights: What it runs on here, and how that differs from the paper.
    """

    name: str
    title: str
    paper: str
    year: int
    family: Family
    supervision: Supervision
    source: Source
    license: str
    maps: bool
    needs_masks: bool
    needs_internet: bool
    trains: bool
    weights: str

    @property
    def task(self) -> Task:
        """What its answer is: boxes of defects; a score and where it comes from; or a score alone."""
        if self.family == "detector":
            return "detection"
        return "localization" if self.maps else "classification"


Factory = Callable[..., Method]
Decorated = TypeVar("Decorated", bound=Factory)
_REGISTRY: dict[str, tuple[Card, Factory]] = {}


def baseline(card: Card) -> Callable[[Decorated], Decorated]:
    """Register a factory: keyword arguments only, `seed` among them, the published hyper-parameters as defaults."""

    def register(factory: Decorated) -> Decorated:
        if card.name in _REGISTRY:
            raise ValueError(f"two baselines are called {card.name!r}.")
        _REGISTRY[card.name] = (card, factory)
        return factory

    return register


def cards() -> dict[str, Card]:
    """The cards of all baselines, by name."""
    return {name: card for name, (card, _) in sorted(_REGISTRY.items())}


def options(name: str) -> dict[str, Any]:
    """The hyper-parameters of a baseline and their defaults, `seed` left out.

    Raises:
        ZooError: There is none of that name.
    """
    parameters = inspect.signature(_factory(name)).parameters
    return {key: p.default for key, p in parameters.items() if key != "seed"}


def create(name: str, *, seed: int = 0, **settings: Any) -> Method:
    """A baseline, ready to `fit`.

    Args:
        name: A name in `cards()`.
        seed: Of everything random.
        settings: Hyper-parameters other than the published ones, see `options`.

    Raises:
        ZooError: There is none of that name, it has no such hyper-parameter, or a library or file it needs is missing.
    """
    factory = _factory(name)
    unknown = sorted(set(settings) - set(options(name)))
    if unknown:
        raise ZooError(f"{name}: expected hyper-parameters among {sorted(options(name))}, got {unknown}.")
    return factory(seed=seed, **settings)


def _factory(name: str) -> Factory:
    if name not in _REGISTRY:
        raise ZooError(f"expected a baseline among {sorted(_REGISTRY)}, got {name!r}. `fewshot-ad zoo` describes them.")
    return _REGISTRY[name][1]
