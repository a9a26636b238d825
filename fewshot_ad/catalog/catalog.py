"""Many products on one box: a folder of `.fsad` files by name, one encoder, and which product an image shows."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewshot_ad import arguments
from fewshot_ad.artifact import checked_spec, load_allowed, read_artifact, unpack_compact
from fewshot_ad.batch import read
from fewshot_ad.catalog.looking import ANCHORS, Candidate, Look, Resident, Sketch
from fewshot_ad.encoder import Encoder, EncoderSpec
from fewshot_ad.encoder.engine import Device, EngineName
from fewshot_ad.errors import ArgumentError, ArtifactError, ImageError, NotEnrolledError
from fewshot_ad.host.lifetime import ForkSafeLock, native_work
from fewshot_ad.images import ColorOrder, ImageSource
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.inspector import Inspector
from fewshot_ad.registration.parts import Scene
from fewshot_ad.scoring import inspect_frame

logger = logging.getLogger(__name__)

SUFFIX = ".fsad"
# Products that come closest, and are then compared in full.
SHORTLIST = 8
# Scores are off by 2e-3 at most; one that is so close to a threshold is computed anew with all bits.
CLOSE = 0.005
# What a product takes besides its banks, in bytes: settings, calibration, what good images look like.
OVERHEAD = 40_000


class Judged(NamedTuple):
    """A verdict, and what gave it.

    Attributes:
        inspection: The verdict.
        artifact: SHA-256 of the product's file, as `Inspector.info()["sha256"]`.
    """

    inspection: Inspection
    artifact: str


class Route(NamedTuple):
    """Which product an image shows.

    Attributes:
        name: Of the product; None for none of those enrolled.
        candidates: The products that are most like it, the best first.
    """

    name: str | None
    candidates: tuple[Candidate, ...]


class Catalog:
    """The products in a folder, loaded when they are first asked for and kept as memory allows.

    It may be used on several threads. A file that is replaced meanwhile is read anew; names are those of the files,
    without `.fsad`. Scores are those of `Inspector.load(...).inspect(...)` to 2e-3 of them, since vectors are kept in 8
    bits; within 0.5% of a threshold the file is read once more (20 ms), and the score is that of all bits,
    unless it was replaced meanwhile.

    Args:
        folder: The folder; files in sub-folders do not belong to it.
        memory_mb: What the loaded products may take; those used longest ago are dropped first. Encoder and libraries
            come on top, some 250 MB.
        encoder: An encoder already loaded, for products that were enrolled with it; others that ship are loaded once
            each, when they are first needed.
        engine: Engine to run on, see `Inspector.load`, as for the arguments that follow.
        threads: Number of CPU threads; None takes all.
        device: `cpu` or `cuda`.

    Raises:
        NotEnrolledError: There is no such folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        memory_mb: float = 700,
        encoder: Encoder | None = None,
        engine: EngineName | None = None,
        threads: int | None = None,
        device: Device = "cpu",
    ) -> None:
        self.folder = Path(arguments.file_name(folder, "folder", ArgumentError))
        if not self.folder.is_dir():
            raise NotEnrolledError(
                f"expected a folder of products at {self.folder}, got none. Enroll some: fewshot-ad enroll --each "
                f"PARENT -o {self.folder}"
            )
        self._memory = arguments.number(memory_mb, "memory_mb", 1) * 1e6
        self._options: dict[str, Any] = {"engine": engine, "threads": threads, "device": device}
        self._encoders: dict[EncoderSpec, Encoder] = {} if encoder is None else {encoder.spec: encoder}
        self._residents: OrderedDict[str, Resident] = OrderedDict()
        self._sketches: dict[str, Sketch] = {}
        self._damaged: dict[str, tuple[tuple[int, int], str]] = {}
        self._held = 0
        self._lock, self._loading, self._encoding = ForkSafeLock(), ForkSafeLock(), ForkSafeLock()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the products there are now, sorted.

        Raises:
            NotEnrolledError: The folder cannot be read.
        """
        try:
            with os.scandir(self.folder) as entries:
                found = [Path(entry.name) for entry in entries if entry.name.endswith(SUFFIX) and entry.is_file()]
        except OSError as error:
            raise NotEnrolledError(
                f"expected a folder of products at {self.folder}, cannot read it ({error.strerror}). Put it back, or "
                "check its permissions."
            ) from error
        return tuple(sorted(path.stem for path in found if not path.name.startswith(".")))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.names

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the products in memory, the one used longest ago first."""
        with self._lock:
            return tuple(self._residents)

    @property
    def damaged(self) -> dict[str, str]:
        """The products that could not be loaded when they were last asked for, and why."""
        current = {name: self._stamp_or_none(name) for name in list(self._damaged)}
        return {name: why for name, (stamp, why) in list(self._damaged.items()) if stamp == current.get(name)}

    def _stamp_or_none(self, name: str) -> tuple[int, int] | None:
        try:
            status = self.path(name).stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def path(self, name: str) -> Path:
        """The file of a product, be it there or not.

        Raises:
            ArgumentError: It is no name of a file in the folder.
        """
        arguments.text(name, "name", 255)
        if "\0" in name or Path(name).name != name or name.startswith(".") or "\\" in name or "/" in name:
            raise ArgumentError(f"expected the name of a product, as `names` has it, got {name!r}: it leads elsewhere.")
        return self.folder / f"{name}{SUFFIX}"

    def load(self, name: str) -> Inspector:
        """A product to work with: to accept, reject, calibrate. It shares the encoder and is not kept here.

        Save it to `path(name)`; the catalog then reads it anew.

        Raises:
            NotEnrolledError: There is no such product.
            ArtifactError: Its file is damaged.
        """
        path = self.path(name)
        spec = checked_spec(read_artifact(path)[1], path)
        return Inspector.load(path, encoder=self._encoder(spec, path))

    def inspect(self, name: str, image: ImageSource, *, color: ColorOrder = "rgb") -> Inspection:
        """Inspect an image as one of the products.

        Args:
            name: Of the product.
            image: See `Inspector.inspect`.
            color: Channel order of an array with color.

        Raises:
            ImageError: The image cannot be used.
            NotEnrolledError: There is no such product.
            ArtifactError: Its file is damaged.
        """
        return self.judge(name, image, color=color).inspection

    @native_work()
    def judge(self, name: str, image: ImageSource, *, color: ColorOrder = "rgb") -> Judged:
        """The same, with the hash of the product's file that judged.

        Args:
            name: Of the product.
            image: See `Inspector.inspect`.
            color: Channel order of an array with color.

        Raises:
            ImageError: The image cannot be used.
            NotEnrolledError: There is no such product.
            ArtifactError: Its file is damaged.
        """
        resident, reading = self._resident(name), read(image, color)
        if isinstance(reading.pixels, ImageError):
            raise reading.pixels
        about = (resident.product, reading.name, reading.milliseconds)
        inspection = inspect_frame(reading.pixels, resident.encoder, resident.model, *about)
        judged = Judged(inspection, resident.artifact)
        if not _is_close(inspection):
            return judged
        # The verdict is that of all bits, if they are still there.
        path = self.path(name)
        try:
            model, _ = unpack_compact(*read_artifact(path), resident.encoder, path, exact=True)
            if self._stamp(name) != resident.stamp:
                return judged
        except (NotEnrolledError, ArtifactError):
            return judged
        return Judged(inspect_frame(reading.pixels, resident.encoder, model, *about), resident.artifact)

    @native_work()
    def route(self, image: ImageSource, *, among: Sequence[str] | None = None, color: ColorOrder = "rgb") -> Route:
        """Which of the products an image shows, or none.

        Some patches of the image are compared with some of every product's; the products that come closest are then
        compared in full. An image shows a product if it could be judged as such, see `Inspection.reason`; of several,
        the one whose good patches are closest. Every product is loaded for it once.

        Args:
            image: See `Inspector.inspect`.
            among: Names to choose from; None takes all.
            color: Channel order of an array with color.

        Raises:
            ImageError: The image cannot be used.
            NotEnrolledError: There is no such product.
            ArtifactError: One of those in `among` is damaged; of all, a damaged one is left out with a warning.
        """
        reading = read(image, color)
        if isinstance(reading.pixels, ImageError):
            raise reading.pixels
        pixels = reading.pixels
        # Products of several parts share what lies on the image.
        scene: Scene | None = None
        looks: dict[tuple[Any, ...], Look | None] = {}
        near = []
        for name in self.names if among is None else among:
            try:
                sketch = self._sketch(name)
            except (ArtifactError, NotEnrolledError) as error:
                if among is not None:
                    raise
                # One that is damaged, or gone since it was listed, must not keep the others from being found.
                logger.warning("left out: %s", error)
                continue
            if sketch.looks not in looks:
                resident = self._resident(name)
                if resident.model.parts is None:
                    looks[sketch.looks] = Look.at(pixels, resident)
                else:
                    scene = scene or Scene.of(pixels)
                    looks[sketch.looks] = Look.of_a_part(scene, resident)
            look = looks[sketch.looks]
            if look is not None:
                near.append((look.anchor_distance(sketch), name, look))
        near.sort(key=lambda one: one[:2])
        candidates = [*self._compared(near[:SHORTLIST], gone_is_an_error=among is not None)]
        # Those that the image can be judged as come first.
        candidates.sort(key=lambda candidate: (bool(candidate.reason), candidate.distance))
        best = candidates[0] if candidates and not candidates[0].reason else None
        return Route(None if best is None else best.name, tuple(candidates))

    def _compared(self, near: Sequence[tuple[float, str, Look]], gone_is_an_error: bool) -> Iterator[Candidate]:
        """The products that come closest, compared in full."""
        for _, name, look in near:
            try:
                yield look.candidate(name, self._resident(name))
            except NotEnrolledError:
                # Removed since it was listed.
                if gone_is_an_error:
                    raise

    def _sketch(self, name: str) -> Sketch:
        with self._lock:
            sketch = self._sketches.get(name)
        if sketch is None or sketch.stamp != self._stamp(name):
            self._resident(name)
            with self._lock:
                sketch = self._sketches.get(name)
            if sketch is None:
                raise NotEnrolledError(f"expected a product that stays, but {name!r} was removed meanwhile.")
        return sketch

    def _stamp(self, name: str) -> tuple[int, int]:
        """Size and time of a product's file."""
        try:
            status = self.path(name).stat()
        except FileNotFoundError:
            with self._lock:
                self._drop(name)
                self._sketches.pop(name, None)
            raise NotEnrolledError(
                f"expected one of the {len(self.names)} products in {self.folder}, got {name!r}. `names` lists them."
            ) from None
        return status.st_size, status.st_mtime_ns

    def _resident(self, name: str) -> Resident:
        path, stamp = self.path(name), self._stamp(name)
        with self._lock:
            resident = self._residents.get(name)
            if resident is not None and resident.stamp == stamp:
                self._residents.move_to_end(name)
                return resident
        with self._loading:
            with self._lock:
                resident = self._residents.get(name)
            if resident is None or resident.stamp != stamp:
                try:
                    resident, sketch = self._loaded(path, stamp)
                except ArtifactError as error:
                    self._damaged[name] = (stamp, str(error))
                    raise
                with self._lock:
                    self._sketches[name] = sketch
        with self._lock:
            self._drop(name)
            self._residents[name] = resident
            self._held += resident.nbytes
            while self._held > self._memory and len(self._residents) > 1:
                self._drop(next(iter(self._residents)))
        return resident

    def _drop(self, name: str) -> None:
        """Forget a product; the caller holds the lock."""
        resident = self._residents.pop(name, None)
        if resident is not None:
            self._held -= resident.nbytes

    def _loaded(self, path: Path, stamp: tuple[int, int]) -> tuple[Resident, Sketch]:
        tensors, record = read_artifact(path)
        encoder = self._encoder(checked_spec(record, path), path)
        model, nbytes = unpack_compact(tensors, record, encoder, path)
        vectors = tensors["bank0.vectors"]
        chosen = np.random.default_rng(0).permutation(len(vectors))[:ANCHORS]
        coarsest = model.scales[0]
        sketch = Sketch(
            stamp,
            (encoder.spec, coarsest.image_size, model.framing, model.parts, model.scoring.metric),
            vectors[np.sort(chosen)].copy(),
            max(1e-12, model.map_scale.median_good * coarsest.level_scale[0] * coarsest.divisor),
        )
        name = record["enrollment"]["product_name"]
        return Resident(model, encoder, name, record["sha256"], stamp, nbytes + OVERHEAD), sketch

    def _encoder(self, spec: EncoderSpec, path: Path) -> Encoder:
        """The encoder that a product needs, loaded once for all that need it."""
        with self._encoding:
            known = self._encoders.get(spec)
            if known is None:
                known = load_allowed(spec, None, path, None, **self._options)
                self._encoders[spec] = known
            return known

    def __repr__(self) -> str:
        return f"Catalog({str(self.folder)!r}, products={len(self)}, loaded={len(self.loaded)})"


def _is_close(inspection: Inspection) -> bool:
    """Whether a score is so close to a threshold that the little which compact banks are off may decide."""
    scores = [inspection.score, *(part.score for part in inspection.parts)]
    limits = [inspection.threshold, inspection.review_threshold or inspection.threshold]
    return any(abs(score / limit - 1) <= CLOSE for score in scores for limit in limits)
