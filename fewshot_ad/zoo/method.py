"""The contract of a baseline: two calls, a card, and a registry by decorator."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from fewshot_ad.arrays import BoolArray, Float32Array, Progress, Uint8Array
from fewshot_ad.documents.naming import unknown
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.stopping import STOPPING, STOPPING_TYPES, Monitored

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
Task: TypeAlias = Literal["classification", "localization", "detection"]


# Options that name pretrained weights; a card's `Original.pretrained` is about the first one that the method has.
WEIGHTS = ("weights", "teacher_weights", "latent_weights", "points_weights")
# How a baseline runs, whatever it is: options of every one that has none of that name itself, with their defaults.
RUNNING: Mapping[str, Any] = {"device": "cpu", "precision": "f32"}
RUNNING_TYPES: Mapping[str, Any] = {"device": str, "precision": Literal["f32", "bf16"]}
# In place of a file of weights: those that timm fetches from the internet.
FROM_TIMM = "timm"
# Pixels of a side, below which the backbones have not one feature.
LEAST_SIDE = 16
# Of the larger sides, one image alone takes gigabytes in any of them.
MOST_SIDE = 8192


@dataclass(frozen=True, eq=False)
class Labeled:
    """An image of a defective part, for the methods that learn from defects.

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
    """Scores of a batch of images, with maps and decisions where the method gives them.

    Attributes:
        scores: (n,) float32 image scores, higher = worse; comparable within one fitted method only.
        maps: One (H, W) float32 anomaly map per image, in the image's own size; None if the method gives no maps.
        rejected: (n,) bool decisions at the method's own threshold; None if the method has no threshold.
    """

    scores: Float32Array
    maps: tuple[Float32Array, ...] | None = None
    rejected: BoolArray | None = None


class Method(Protocol):
    """A baseline, created with its seed and hyper-parameters; a second `fit` replaces all that the first learned."""

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Learn what good looks like.

        Args:
            normal: Images of good parts, (H, W, 3) uint8 RGB each, of any sizes; (H, W, 6) float32 if the card says
                `needs_points`. May be read from disk item by item, so go through it as seldom as possible and hold
                resized copies.
            labeled: Images of defective parts; used only if the card says `labeled defects`.
            progress: Called as `progress(stage, done, total)`; `done` rises to `total` before the next stage begins.

        Raises:
            ZooError: The method cannot learn from these images.
        """

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score images, of the form that `fit` takes and of any sizes; each as if it came alone.

        Raises:
            ZooError: `fit` has not been called, see `require_fitted`.
        """

    def model_bytes(self) -> int:
        """Size in bytes of what an inspection needs: weights, statistics, memory bank.

        Raises:
            ZooError: `fit` has not been called, see `require_fitted`.
        """


class Storable(Method, Protocol):
    """A baseline that can be stored after its `fit`."""

    def skeleton(self) -> Mapping[str, Any]:
        """The attributes that `fit` leaves behind, by name, each with a blank: what their tensors cannot say.

        A fitted method is stored by these attributes, and another with the same hyper-parameters takes them over, with
        random weights wherever files of weights were used; see `components.freezing` for what a blank is.
        """


State = TypeVar("State")


def require_fitted(state: State | None, name: str) -> State:
    """The state that `fit` leaves behind.

    Args:
        state: None before `fit`.
        name: Name of the baseline, for the message.

    Raises:
        ZooError: `fit` has not been called.
    """
    if state is None:
        raise ZooError(f"{name}: expected a fitted method, got one that has learned from no images; fit it first.")
    return state


@dataclass(frozen=True, kw_only=True)
class Original:
    """How a method was published, as far as what runs here by default differs; see `configuration.differences`.

    Attributes:
        options: Hyper-parameters whose published value is not the default here.
        pretrained: Weights that the published method starts from; empty where it starts from random ones.
        at_hand: Weights that run here in their place when no file is given.
        departs: What differs whatever the hyper-parameters.
        unless: What differs unless an option is given, by the option.
        further: Values of hyper-parameters that were published beside the first one.
        lengths: Hyper-parameters whose published value is not to be had as a number here, with it in words: of a number
            of steps, where the number of epochs was published.
        in_file: Hyper-parameters that an option, which names a file, decides in their place.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    pretrained: str = ""
    at_hand: str = "distilled by this package"
    departs: tuple[str, ...] = ()
    unless: Mapping[str, str] = field(default_factory=dict)
    further: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    lengths: Mapping[str, str] = field(default_factory=dict)
    in_file: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts about a baseline that a user needs before running it.

    Attributes:
        name: Key of the registry: lower case, words joined by `_`.
        title: Name of the method as the paper spells it.
        paper: Authors, year, title, and venue or arXiv number.
        year: Year of the paper.
        family: Working principle.
        supervision: Images that it learns from.
        source: Package whose implementation runs, by the name that is imported.
        license: SPDX identifier of that implementation.
        maps: Whether it gives anomaly maps.
        needs_masks: Whether `fit` needs masks of defects.
        needs_internet: Whether its published form loads weights that are not available offline.
        trains: Whether `fit` takes gradient steps.
        zero_shot: Whether it also judges without good images of the product.
        needs_points: Whether its images have the position of each pixel beside the color, see
            `components.colored_points`.
        weights: Weights that it runs on here, and how they differ from the paper's.
        stops_early: Whether its training can stop before its end, see `running_options`.
        loss_tells: Whether its loss says how far a training is; not where it steps its optimizers itself.
        original: How it was published, where that differs.
    """

    name: str
    title: str
    paper: str
    year: int
    family: Family
    supervision: Supervision = "good images"
    source: str = "fewshot_ad"
    license: str = "Apache-2.0"
    maps: bool = True
    needs_masks: bool = False
    needs_internet: bool
    trains: bool
    zero_shot: bool = False
    needs_points: bool = False
    stops_early: bool = False
    loss_tells: bool = True
    weights: str
    original: Original = field(default_factory=Original)

    @property
    def monitors(self) -> tuple[Monitored, ...]:
        """What may tell when its training stops; nothing where it cannot."""
        if not self.stops_early:
            return ()
        loss: tuple[Monitored, ...] = ("loss",) if self.loss_tells else ()
        return (*loss, "image_auroc", "pixel_auroc") if self.maps else (*loss, "image_auroc")

    @property
    def task(self) -> Task:
        """Kind of answer: boxes of defects (detection), a score with a map (localization), or a score alone."""
        if self.family == "detector":
            return "detection"
        return "localization" if self.maps else "classification"


Factory = Callable[..., Method]
Registered = TypeVar("Registered", bound=Factory)
_REGISTRY: dict[str, tuple[Card, Factory]] = {}


def baseline(card: Card) -> Callable[[Registered], Registered]:
    """Register a method under the name on its card.

    Goes on a `@dataclass(kw_only=True)` whose fields are the hyper-parameters, with the published values as defaults,
    and `seed: int = 0`; or on a function with such keyword arguments that returns a `Method`.

    Raises:
        ValueError: The name is taken.
    """

    def register(factory: Registered) -> Registered:
        if card.name in _REGISTRY:
            raise ValueError(f"two baselines are called {card.name!r}.")
        _REGISTRY[card.name] = (card, factory)
        return factory

    return register


def cards() -> dict[str, Card]:
    """The cards of all baselines, by name."""
    return {name: card for name, (card, _) in sorted(_REGISTRY.items())}


def options(name: str) -> dict[str, Any]:
    """The hyper-parameters of a baseline and their defaults, without `seed`.

    Raises:
        ZooError: No baseline has that name.
    """
    parameters = inspect.signature(_factory(name)).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key != "seed"}


def option_types(name: str) -> dict[str, Any]:
    """The types of a baseline's hyper-parameters, without `seed`, and of `running_options`.

    `Any` where its factory names none.

    Raises:
        ZooError: No baseline has that name.
    """
    factory = _factory(name)
    hints = typing.get_type_hints(factory)
    kinds = {key: hints.get(key, Any) for key in options(name)}
    return {**{key: {**RUNNING_TYPES, **STOPPING_TYPES}[key] for key in running_options(name)}, **kinds}


def running_options(name: str) -> dict[str, Any]:
    """How a baseline can be told to run, beside its hyper-parameters, and the defaults.

    `device` is `cpu`, `cuda` or `cuda:N`; `precision` is `f32`, or `bf16` for mixed precision by torch.autocast. Those
    whose card says `stops_early` also have `patience`, epochs without a better figure after which training stops, and
    `validation`, the share of the good images that are held out for it, 0 to 0.5. `monitor` is that figure: `loss`,
    with `validation=0` the training's own; `image_auroc` or `pixel_auroc` of the held-out images against copies of them
    with drawn defects, for no image of the test tells when to stop.

    Raises:
        ZooError: No baseline has that name.
    """
    own = options(name)
    stopping = STOPPING if cards()[name].stops_early else {}
    return {key: value for key, value in {**RUNNING, **stopping}.items() if key not in own}


def create(
    name: str, *, seed: int = 0, published: bool = False, allow_download: bool = False, **settings: Any
) -> Method:
    """A baseline, ready to `fit`.

    Args:
        name: A name in `cards()`.
        seed: Seed of everything random.
        published: Take the published value of each hyper-parameter that `settings` leaves out, instead of this
            package's default: the paper's backbone, whose weights must then be given.
        allow_download: Whether timm may fetch weights from the internet, as `weights="timm"` asks for.
        settings: Hyper-parameters that differ from the defaults, see `options`, and how it runs, see
            `running_options`.

    Raises:
        ZooError: No baseline has that name, it has no such hyper-parameter, a library or file it needs is missing, or
            there is no such device.
        WeightsError: Its weights are not at hand, or asked to be fetched without permission.
    """
    factory = _factory(name)
    known = options(name)
    if published:
        check_published_weights(name, settings)
        settings = {**cards()[name].original.options, **settings}
    if settings.get("weights") == FROM_TIMM and not allow_download:
        raise WeightsError(
            f"{name}: expected permission to fetch weights from the internet, which weights='{FROM_TIMM}' asks for, "
            "got none. Give allow_download=True (--allow-download), or weights=FILE."
        )
    default = running_options(name)
    for setting in settings:
        if setting not in known and setting not in default:
            what = unknown(setting, {**known, **default}, "a hyper-parameter")
            raise ZooError(f"{name}: {what}. `fewshot-ad zoo {name}` lists them.")
    _check_size(name, settings.get("image_size"))
    running = {key: settings.pop(key, value) for key, value in default.items()}
    if running == default:
        return factory(seed=seed, **settings)
    stopping = {key: running.pop(key) for key in STOPPING if key in running}
    # Here, since it needs torch, and this module is read where only the cards are.
    from fewshot_ad.zoo.placement import made_on

    method = made_on(lambda: factory(seed=seed, **settings), **{**RUNNING, **running})
    if stopping:
        method.stop_early(**stopping)
    return method


def _check_size(name: str, side: object) -> None:
    """Refuse images that no network has a feature of, or none has memory for; what a method needs it says itself.

    Raises:
        ZooError: They are that small or large.
    """
    if isinstance(side, int) and side < LEAST_SIDE:
        raise ZooError(f"{name}: expected an image_size of at least {LEAST_SIDE} pixels, got {side}.")
    if isinstance(side, int) and side > MOST_SIDE:
        raise ZooError(f"{name}: expected an image_size of at most {MOST_SIDE} pixels, got {side}.")


def check_published_weights(name: str, settings: Mapping[str, Any]) -> None:
    """Make sure that a baseline that is to run as published is given the weights that it starts from.

    Raises:
        WeightsError: It is not.
    """
    pretrained = cards()[name].original.pretrained
    option = next((option for option in WEIGHTS if option in options(name)), None)
    # Whoever asks for other regions than the detector's needs none.
    lacks_detector = "detector" in options(name) and not {"detector", "proposals"} & settings.keys()
    if pretrained and option is not None and (settings.get(option) is None or lacks_detector):
        # Those with a backbone take it, and its weights, from timm.
        from_timm = option == "weights" and "backbone" in options(name)
        fetched = f", or {option}='{FROM_TIMM}' to let timm fetch them" if from_timm else ""
        detector = ", and detector=FILE" if "detector" in options(name) else ""
        raise WeightsError(
            f"{name}: expected the published weights ({pretrained}), which do not ship, got none. Give "
            f"{option}=FILE{fetched}{detector}."
        )


def _factory(name: str) -> Factory:
    if name not in _REGISTRY:
        raise ZooError(f"{unknown(name, _REGISTRY, 'a baseline')}. `fewshot-ad zoo` describes them.")
    return _REGISTRY[name][1]
