"""What is done to the products of a station: taught, corrected, checked, deleted, and each of it taken back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, get_args

import cv2
import numpy as np

from fewshot_ad import arguments
from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.artifact import check_product_file, read_artifact
from fewshot_ad.enrollment.presets import PresetName
from fewshot_ad.errors import (
    ArgumentError,
    ArtifactError,
    SupportSetError,
)
from fewshot_ad.host.lifetime import native_work
from fewshot_ad.images import read_image
from fewshot_ad.images.limits import at_most_pixels
from fewshot_ad.inspector import Inspector
from fewshot_ad.line.journal import Correction, CorrectionAction, JournalError
from fewshot_ad.line.record import Record
from fewshot_ad.line.station.jobs import Job, Jobs
from fewshot_ad.line.station.sent import Sent, encoded
from fewshot_ad.line.station.shelf import ConflictError, Shelf, locked
from fewshot_ad.line.station.station import Station
from fewshot_ad.line.station.uploads import Upload, files_of

WORK = ".work"
# The options of an enrollment that a caller may set, as `Inspector.from_support` names them.
OPTIONS = (
    "preset",
    "views",
    "min_defect",
    "min_defect_px",
    "min_defect_mm",
    "mm_per_px",
    "max_ms",
    "max_false_reject",
    "keep_outliers",
    "register",
    "roi",
    "ignore",
    "foreground",
    "lighting",
    "parts",
    "expect",
)
# Side of what is compared to find the support image that is most like another, in pixels.
THUMBNAIL = 32


class Corrected(NamedTuple):
    """What a correction has done.

    Attributes:
        correction: Its entry in the journal.
        notes: What was noticed.
    """

    correction: Correction
    notes: tuple[str, ...]


class Teaching:
    """Changes the products of a station's catalog. It may be used on several threads.

    Args:
        station: Whose they are.
        jobs: Does what takes long.
    """

    def __init__(self, station: Station, jobs: Jobs) -> None:
        self._station, self._jobs = station, jobs
        self.shelf = Shelf(station.catalog, station.journal, station.baselines)
        # Images while they are worked with; what a killed station has left of them is nobody's any more.
        self._work = station.catalog.folder / WORK
        shutil.rmtree(self._work, ignore_errors=True)

    # --- What takes long ---

    def enroll(self, name: str, images: Sequence[Upload], options: Mapping[str, Any], *, replace: bool = False) -> Job:
        """Teach a product from images of good parts.

        Args:
            name: What it is called.
            images: Of good parts.
            options: Further arguments of `Inspector.from_support`, see `OPTIONS`.
            replace: Whether one of that name makes way; it can be restored.

        Raises:
            ArgumentError: The name or an option is none.
            ConflictError: There is one of that name.
            SupportSetError: There are too few images.
            BusyError: Too much waits already.
        """
        path = self.shelf.new_path(name)
        if "preset" in options:
            arguments.choice(options["preset"], "preset", get_args(PresetName), ArgumentError)
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise ArgumentError(f"expected options among {', '.join(OPTIONS)}, got {', '.join(unknown)}.")
        if len(images) < 2:
            raise SupportSetError(f"expected 2 images of good parts or more, got {len(images)}. Take further ones.")
        self.shelf.refuse_taken(name, path, replace)

        def work(progress: Progress) -> dict[str, Any]:
            with files_of(images, self._work) as paths, self._within_limits():
                inspector = Inspector.from_support(
                    paths, product=name, progress=progress, threads=self._station.settings.threads, **options
                )
            progress("save", 0, 1)
            self.shelf.put(name, inspector, replace)
            self._station.journal.note("product", f"{name} was taught from {len(images)} images")
            return self.shelf.describe(name)

        return self._jobs.add("enroll", name, work)

    def check(self, name: str, good: Sequence[Upload], bad: Sequence[Upload]) -> Job:
        """Judge images whose truth is known; the product stays as it is.

        Raises:
            NotEnrolledError: There is no such product.
            BusyError: Too much waits already.
        """
        baseline = self._station.baselines.get(name)
        if baseline is None:
            self.shelf.path(name)

        def work(progress: Progress) -> dict[str, Any]:
            with self._sides(good, bad) as (good_paths, bad_paths):
                judge = self._station.catalog.load(name) if baseline is None else baseline.judge
                check = judge.check(good_paths, bad_paths or None, progress=progress)
            return {**check.as_dict(), "explanation": check.explain()}

        return self._jobs.add("check", name, work)

    def calibrate(
        self,
        name: str,
        good: Sequence[Upload],
        bad: Sequence[Upload],
        max_false_reject: float | None = None,
        max_review: float | None = None,
    ) -> Job:
        """Set a product's threshold from further images; `undo` takes it back.

        Raises:
            NotEnrolledError: There is no such product.
            BusyError: Too much waits already.
        """
        path = self.shelf.path(name)

        def work(progress: Progress) -> dict[str, Any]:
            with (
                files_of(good, self._work) as good_paths,
                files_of(bad, self._work) as bad_paths,
                locked(path),
                self._within_limits(),
            ):
                inspector = self._station.catalog.load(name)
                change = inspector.calibrate(
                    good_paths, bad_paths or None, max_false_reject, max_review=max_review, progress=progress
                )
                inspector.save(path)
            self._station.journal.note("product", f"{name} was calibrated: {change.event}")
            return {**self.shelf.describe(name), "explanation": change.explain()}

        return self._jobs.add("calibrate", name, work)

    # --- What people say of verdicts ---

    def correct(
        self, record: Record, action: CorrectionAction, region: Sequence[int] | None = None, *, force: bool = False
    ) -> Corrected:
        """Say of a verdict that it is right, or what the part is.

        Args:
            record: The inspection.
            action: `accept`: the part is good, and images like it are good from then on. `reject`: it is defective,
                and is kept as evidence. `confirm`: the verdict is right; the product stays as it is.
            region: Of `reject`: x, y, width and height of the defect in pixels; None takes what is most unusual.
            force: Of `accept`: see `Inspector.accept`.

        Raises:
            ConflictError: The image was not kept, or is none.
            SupportSetError: The product does not take it, and says why.
            NotEnrolledError: The product is gone.
        """
        if action == "confirm":
            said = self._station.journal.corrections_of([record.id]).get(record.id)
            if said is not None:
                raise ConflictError(
                    f"expected a verdict that nobody has answered, got one with {said.action}. Undo that first."
                )
            correction = self._station.journal.correct(record.product, action, record.artifact, record=record.id)
            return Corrected(correction, ())
        if record.verdict == "unreadable" or not record.product:
            raise ConflictError("expected a verdict on a product, got none on this image. There is nothing to correct.")
        image = self._station.image_of(record)
        if image is None:
            raise ConflictError(
                "expected an image that was kept, but this one was not, or made room for others. Keep more of them: "
                "pictures.keep and pictures.quota_mb in the station's settings. Or send the image to the product's own "
                f"/api/products/{record.product}/{action}."
            )
        upload = Upload(record.name or record.id, encoded(image))
        return self.correct_with(record.product, action, upload, region, record=record.id, force=force)

    def correct_with(
        self,
        name: str,
        action: CorrectionAction,
        image: Upload,
        region: Sequence[int] | None = None,
        *,
        record: str | None = None,
        force: bool = False,
    ) -> Corrected:
        """The same with an image that is sent along.

        Raises:
            SupportSetError: The product does not take it, and says why.
            NotEnrolledError: There is no such product.
        """

        def change(inspector: Inspector, path: str) -> tuple[str, ...]:
            if action == "accept":
                return inspector.accept(path, force=force)
            return inspector.reject(path, region)

        with files_of([image], self._work) as [path], self._within_limits():
            notes, artifact = self._change(name, lambda inspector: change(inspector, path))
        try:
            correction = self._station.journal.correct(name, action, artifact, record=record, notes="; ".join(notes))
        except JournalError as error:
            raise JournalError(f"the product was changed, but that could not be written down: {error}") from error
        return Corrected(correction, notes)

    def undo(self, name: str) -> Corrected:
        """Take the last change of a product back.

        Raises:
            ConflictError: There is none.
            ArtifactError: It cannot be taken back.
            NotEnrolledError: There is no such product.
        """

        def change(inspector: Inspector) -> tuple[str, ...]:
            if not inspector.history():
                raise ConflictError(f"expected a change of {name} to take back, got none since it was taught.")
            undone = inspector.undo()
            return (undone.kind, f"taken back: {undone.text}, of {undone.time}")

        before = self.shelf.describe(name)["sha256"]
        (kind, note), artifact = self._change(name, change)
        journal = self._station.journal
        last = journal.last_change(name) if kind in ("accept", "reject") else None
        # Not one that was made here, if the command line has changed the product since.
        undoes = last.id if last is not None and (last.action, last.artifact) == (kind, before) else None
        record = last.record if undoes is not None and last is not None else None
        correction = journal.correct(name, "undo", artifact, record=record, undoes=undoes, notes=note)
        return Corrected(correction, (note,))

    # --- Pictures of a product ---

    def limits_picture(self, name: str) -> Uint8Array:
        """See `Inspector.limits_picture`.

        Raises:
            NotEnrolledError: There is no such product.
            ArtifactError: Its file is damaged.
            ConflictError: There is no such picture of it.
        """
        self.shelf.path(name)
        inspector = self._station.catalog.load(name)
        try:
            return inspector.limits_picture()
        except ArtifactError as error:
            raise ConflictError(str(error)) from error

    def nearest_reference(self, name: str, image: Sent) -> Uint8Array | None:
        """The stored support image that is most like an image, (H, W, 3) uint8 RGB; None where none is stored.

        They are compared as pictures of 32 x 32 gray levels, by their correlation.

        Raises:
            NotEnrolledError: There is no such product.
            ImageError: The image is none.
        """
        if name in self._station.baselines:
            return None
        references = self._station.catalog.load(name).references
        if not references:
            return None
        with self._within_limits():
            shown = _thumbnail(read_image(image))
        pixels = [read_image(reference.png.tobytes()) for reference in references]
        return max(pixels, key=lambda one: float((_thumbnail(one) * shown).sum()))

    # --- Below ---

    def _change(self, name: str, change: Callable[[Inspector], tuple[str, ...]]) -> tuple[tuple[str, ...], str]:
        """Change a product, whole or not at all; what was noticed, and the new hash of its file."""
        path = self.shelf.path(name)
        with locked(path):
            check_product_file(path)
            inspector = self._station.catalog.load(name)
            notes = change(inspector)
            inspector.save(path)
            return notes, read_artifact(path)[1]["sha256"]

    @contextmanager
    def _sides(self, good: Sequence[Upload], bad: Sequence[Upload]) -> Iterator[tuple[list[str], list[str]]]:
        """Good and bad images as files, within the limits."""
        with files_of(good, self._work) as good_paths, files_of(bad, self._work) as bad_paths, self._within_limits():
            yield good_paths, bad_paths

    def _within_limits(self) -> AbstractContextManager[None]:
        return at_most_pixels(int(self._station.settings.limits.megapixels * 1e6))


@native_work()
def _thumbnail(pixels: Uint8Array) -> Float32Array:
    """(32, 32) float32 gray levels, of mean 0 and length 1."""
    small = cv2.cvtColor(cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    centered = small.astype(np.float32) - small.mean()
    return np.asarray(centered / max(1e-6, float(np.linalg.norm(centered))), np.float32)
