"""A fitted baseline that a user stores and inspects with, as with a product of this package."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save

from fewshot_ad import __version__, arguments
from fewshot_ad.arrays import Float32Array, Progress
from fewshot_ad.batch import Reading, read
from fewshot_ad.documents.json_text import parse_json
from fewshot_ad.enrollment.presets import FALSE_REJECTS
from fewshot_ad.enrollment.support import read_support
from fewshot_ad.errors import ArgumentError, FewshotADError, ImageError, ZooError
from fewshot_ad.images import ColorOrder, ImageSource, expand_sources
from fewshot_ad.inspection.regions import MapScale, find_regions
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.storage import check_folder, replace_folder, write_failure
from fewshot_ad.zoo.components.freezing import Tensors, freeze, thaw
from fewshot_ad.zoo.components.score_scale import (
    ScoreScale,
    by_hand,
    finite,
    fit_for_a_threshold_by_hand,
    fit_with_held_out,
    map_scale_of,
    score_scale,
)
from fewshot_ad.zoo.configuration import check_settings, differences
from fewshot_ad.zoo.method import WEIGHTS, Labeled, Method, cards, create, options

SCHEMA = "fewshot-ad/baseline/1"
MANIFEST, TENSORS = "baseline.json", "tensors.safetensors"
MAX_FALSE_REJECT = 0.05
# A threshold from fewer good images than this is provisional.
ENOUGH = 20


@dataclass(eq=False)
class Baseline:
    """A baseline, fitted to one product, with a threshold from good images.

    Attributes:
        name: Name in the zoo.
        settings: Hyper-parameters that differ from its defaults.
        seed: Of everything random.
        product: Name of the product.
        method: The fitted method.
        scores: What its scores mean.
        map_scale: What its maps mean.
        support: Names of the images it was fitted on.
        notes: What was noticed while fitting.
    """

    name: str
    settings: Mapping[str, Any]
    seed: int
    product: str
    method: Method = field(repr=False)
    scores: ScoreScale
    map_scale: MapScale = field(repr=False)
    support: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(  # noqa: PLR0913 - keywords of a facade, each with a default
        cls,
        name: str,
        images: ImageSource | Iterable[ImageSource],
        *,
        product: str = "product",
        labeled: Sequence[Labeled] = (),
        threshold: float | None = None,
        max_false_reject: float = MAX_FALSE_REJECT,
        seed: int = 0,
        published: bool = False,
        allow_download: bool = False,
        color: ColorOrder = "rgb",
        progress: Progress | None = None,
        **settings: Any,
    ) -> Baseline:
        """Fit a baseline, and set its threshold.

        The threshold comes from the scores of good images that it was not fitted on. A method without gradient steps is
        fitted several times without some of them, then once on all. One that takes gradient steps is fitted once, on
        three quarters; the others are judged in small variations, since the scores of two trainings do not compare.
        Above the threshold, by Student's t distribution, is a share `max_false_reject` of good parts.

        Args:
            name: A baseline other than `fewshot_ad`, whose products `Inspector` makes.
            images: Good images, in any form `Inspector.from_support` takes.
            product: Name of the product.
            labeled: Images of defective parts, for baselines that learn from them.
            threshold: Set by hand; the baseline is then fitted once, on all images, and small variations of these stand
                for good images that it has not seen.
            max_false_reject: Share of good parts that may be rejected, 0.0001 to 0.5.
            seed: Of everything random.
            published: See `create`.
            allow_download: See `create`.
            color: Channel order of arrays.
            progress: Called as `progress(stage, done, total)`.
            settings: Hyper-parameters.

        Raises:
            ZooError: There is no such baseline, it cannot learn from these images, or cannot be stored.
            SupportSetError: There are no usable images.
        """
        if name == "fewshot_ad":
            raise ZooError(
                "expected a baseline of others, got fewshot_ad: enroll products of it (Inspector.from_support)."
            )
        arguments.number(max_false_reject, "max_false_reject", *FALSE_REJECTS)
        arguments.whole_number(seed, "seed", 0)
        # What is wrong with name or settings is said before images are read.
        check_settings(name, settings)
        create(name, published=published, allow_download=allow_download, **settings)
        if cards()[name].supervision == "labeled defects" and not labeled:
            raise ZooError(
                f"{name}: expected images of defects with masks, from which it learns, got none. Give labeled= "
                "(--defects and --masks)."
            )
        asked: dict[str, Any] = {"seed": seed, "published": published, "allow_download": allow_download, **settings}
        if published:
            settings = {**cards()[name].original.options, **settings}
        support = read_support(images, color, progress)
        pixels = [image.pixels for image in support.images]
        with _explained(name):
            if threshold is None:
                fitted = fit_with_held_out(name, asked, pixels, labeled, progress)
                scale = score_scale(name, fitted, max_false_reject)
            else:
                arguments.number(threshold, "threshold", -1e30, 1e30)
                fitted = fit_for_a_threshold_by_hand(name, asked, pixels, labeled, progress)
                scale = by_hand(name, fitted, float(threshold), max_false_reject)
        notes = support.notes
        if threshold is None and fitted.held_out < ENOUGH:
            notes = (
                *notes,
                f"the threshold is provisional: it rests on {fitted.held_out} good image(s) that the method was not "
                "fitted on. Judge further good ones with it before relying on it.",
            )
        names = tuple(support.images[i].name for i in fitted.fitted_on)
        map_scale = map_scale_of(fitted.maps, max_false_reject)
        return cls(name, dict(settings), seed, product, fitted.method, scale, map_scale, names, notes)

    @property
    def threshold(self) -> float:
        """Scores above it are anomalous."""
        return self.scores.threshold

    def inspect(self, image: ImageSource, *, color: ColorOrder = "rgb") -> Inspection:
        """Inspect one image.

        Args:
            image: In any form `Inspector.inspect` takes.
            color: Channel order of an array.

        Returns:
            The verdict. Its severity is 0 for a median good image and 1 at the threshold, since scores of baselines
            have no zero; `encoder` is the baseline's name, and all of its time is `encode`.

        Raises:
            ImageError: The image cannot be used.
        """
        arguments.choice(color, "color", get_args(ColorOrder), ImageError)
        return self._judged(read(image, color))

    def inspect_batch(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        color: ColorOrder = "rgb",
        errors: Literal["raise", "return"] = "raise",
    ) -> Iterator[Inspection | ImageError]:
        """Inspect many images, in order; as `Inspector.inspect_batch`."""
        if errors not in ("raise", "return"):
            raise ArgumentError(f"expected errors='raise' or 'return', got {errors!r}.")
        arguments.choice(color, "color", get_args(ColorOrder), ImageError)
        for source in expand_sources(arguments.image_sources(images, ImageError), keep_errors=True):
            try:
                yield self._judged(read(source, color))
            except ImageError as error:
                if errors == "raise":
                    raise
                yield error

    def _judged(self, reading: Reading) -> Inspection:
        image = reading.pixels
        if isinstance(image, ImageError):
            raise image
        start = time.perf_counter()
        predicted = finite(self.name, self.method.predict([image]))
        predict_ms = (time.perf_counter() - start) * 1e3
        score = float(predicted.scores[0])
        # A method without maps says nothing of where.
        heat = predicted.maps[0] if predicted.maps else np.zeros(image.shape[:2], np.float32)
        is_anomalous = score > self.threshold
        has_place = is_anomalous and predicted.maps is not None
        return Inspection(
            product=self.product,
            encoder=self.name,
            score=score,
            threshold=self.threshold,
            is_anomalous=is_anomalous,
            severity=self.scores.severity(score),
            regions=find_regions(heat, self.map_scale, (image.shape[0], image.shape[1])) if has_place else (),
            map_scale=self.map_scale,
            timings_ms={
                "decode": reading.milliseconds,
                "resize": 0.0,
                "encode": predict_ms,
                "search": 0.0,
                "map": 0.0,
                "total": reading.milliseconds + predict_ms,
            },
            image=image,
            draw_map=functools.partial(_same, heat),
            name=reading.name,
        )

    def info(self) -> dict[str, Any]:
        """All that is known of it, as plain JSON types, but for the tensors."""
        return {
            "schema": SCHEMA,
            "baseline": self.name,
            "settings": dict(self.settings),
            "differs": list(differences(self.name, self.settings)),
            "seed": self.seed,
            "product": self.product,
            "support": list(self.support),
            "scores": asdict(self.scores),
            "map_scale": asdict(self.map_scale),
            "notes": list(self.notes),
            "version": __version__,
        }

    def save(self, folder: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write it to a folder, whole or not at all: `baseline.json` and `tensors.safetensors`.

        Args:
            folder: The folder; an earlier baseline in it is replaced with `force`, other files stay.
            force: Whether to replace one, or to write beside other files.

        Raises:
            ZooError: It cannot be written or must stay as it is, or the method leaves behind what cannot be stored.
        """
        arguments.flag(force, "force", ZooError)
        folder = Path(arguments.file_name(folder, "folder", ZooError))
        check_model_folder(folder, force=force)
        skeleton = getattr(self.method, "skeleton", None)
        if skeleton is None:
            raise ZooError(
                f"{self.name}: expected a baseline with a `skeleton`, by which it is stored, got one without."
            )
        tensors: Tensors = {}
        state = {name: freeze(getattr(self.method, name), name, tensors) for name in skeleton()}
        content = save(tensors)
        manifest = {**self.info(), "state": state, "sha256": hashlib.sha256(content).hexdigest()}
        manifest["manifest_sha256"] = _hash_of(manifest)
        try:
            with replace_folder(folder, (MANIFEST, TENSORS), MANIFEST) as staging:
                (staging / TENSORS).write_bytes(content)
                (staging / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise ZooError(write_failure(folder, error, len(content))) from error

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Baseline:
        """Read what `save` wrote. It needs none of the files of weights that it was fitted with.

        Raises:
            ZooError: There is none, it is damaged, or does not fit this installation.
        """
        folder = Path(arguments.file_name(folder, "folder", ZooError))
        manifest, content = _read(folder)
        if manifest["baseline"] not in cards():
            raise ZooError(
                f"{folder}: expected a baseline of this installation, got {manifest['baseline']!r}, which none of the "
                "installed packages brings. Install the one that it was fitted with."
            )
        try:
            settings, state = dict(manifest["settings"]), dict(manifest["state"])
            name, seed = str(manifest["baseline"]), int(manifest["seed"])
            method: Any = create(name, seed=seed, **without_weights(name, settings))
            tensors, blanks = load(content), method.skeleton()
            if blanks.keys() != state.keys():
                raise ZooError(f"expected the state of {sorted(blanks)}, got that of {sorted(state)}.")
            for key, blank in blanks.items():
                setattr(method, key, thaw(blank, state[key], tensors))
            return cls(
                name,
                settings,
                seed,
                str(manifest["product"]),
                method,
                ScoreScale(**manifest["scores"]),
                MapScale(**manifest["map_scale"]),
                tuple(map(str, manifest["support"])),
                tuple(map(str, manifest["notes"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
            reason = str(error) if isinstance(error, FewshotADError) else f"{type(error).__name__}: {error}"
            written = manifest["version"]
            versions = (
                "" if written == __version__ else f" (this is version {__version__}, it was written by {written})"
            )
            raise ZooError(
                f"{folder}: expected a stored baseline that fits this version{versions}: {reason.rstrip('.')}. Fit it "
                "again."
            ) from error


def check_model_folder(folder: Path, *, inputs: Sequence[str | os.PathLike[str]] = (), force: bool = False) -> None:
    """Make sure that a baseline can be written to a folder without a loss.

    Args:
        folder: The folder.
        inputs: Files that are read, none of which may lie in it.
        force: As for `Baseline.save`.

    Raises:
        ZooError: It must stay as it is.
    """
    check_folder(folder, inputs=inputs, error=ZooError)
    for name in (MANIFEST, TENSORS):
        if (folder / name).exists() and not _is_ours(folder):
            raise ZooError(
                f"{folder / name}: expected a file of a stored baseline to replace, or none, got another one. Choose "
                "another folder."
            )
    try:
        others = folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise ZooError(write_failure(folder, error)) from error
    if others and not force:
        raise ZooError(
            f"{folder}: expected a new or empty folder, got one that holds files. Choose another folder, or give "
            "--force (force=True in Python) to replace a baseline in it, or to write beside other files."
        )


def without_weights(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with which a stored baseline is created again: files of weights are not read, since it holds them."""
    changed: dict[str, Any] = {}
    for option in WEIGHTS:
        given = settings.get(option)
        # Without a file, backbones come with the package, but teachers and latent models would be trained first. A
        # card of one's own says how its encoder is built.
        if option in options(name) and (option != "weights" or (given is not None and not given.endswith(".json"))):
            changed[option] = "random"
    if "latent_weights" in changed and settings.get("latent_weights") is None:
        # DSR's latent model is another network where it is trained here.
        changed = {"latent_steps": 0}
    if settings.get("detector") is not None:
        changed["detector"] = "random"
    return {**settings, **changed, **({"teacher": None} if "teacher" in settings else {})}


def _same(heat: Float32Array) -> Float32Array:
    return heat


def _is_ours(folder: Path) -> bool:
    try:
        return json.loads((folder / MANIFEST).read_bytes())["schema"] == SCHEMA
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _hash_of(manifest: Mapping[str, Any]) -> str:
    """Hash of all that a manifest says but this."""
    said = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, allow_nan=False).encode()).hexdigest()


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn the errors of libraries, which settings out of any range lead to, into one of this package."""
    try:
        yield
    except FewshotADError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError, IndexError, cv2.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise ZooError(
            f"{name}: expected settings and images that it can work with ({type(error).__name__}: {reason}). "
            f"`fewshot-ad zoo {name}` lists the settings."
        ) from error


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest of a stored baseline, and its tensors, which have the hash that it names."""
    try:
        text = (folder / MANIFEST).read_text("utf-8")
        content = (folder / TENSORS).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ZooError(
            f"{folder}: expected a folder that `fewshot-ad fit` wrote, with {MANIFEST} and {TENSORS}, cannot read them "
            f"({reason}). Check the path."
        ) from error
    manifest = parse_json(text, str(folder / MANIFEST), ZooError, "a stored baseline in JSON")
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else "something else"
        raise ZooError(f"{folder / MANIFEST}: expected a stored baseline ({SCHEMA}), got {found!r}. Fit it again.")
    if manifest.get("manifest_sha256") != _hash_of(manifest):
        raise ZooError(f"{folder / MANIFEST}: expected it as `fewshot-ad fit` wrote it, got it changed. Fit it again.")
    if manifest.get("sha256") != hashlib.sha256(content).hexdigest():
        raise ZooError(f"{folder / TENSORS}: expected the tensors that {MANIFEST} names, got others. Fit it again.")
    return manifest, content
