"""Files of annotation tools beside the verdicts: one COCO dataset, a LabelMe file for each image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_ad.cli.outputs import Outputs, check_text, overlay_names
from fewshot_ad.errors import FewshotADError
from fewshot_ad.storage import write_atomically, write_failure

if TYPE_CHECKING:
    from fewshot_ad.inspection.result import Inspection

# How these files begin as they are written here. What a tool or a person has saved since begins otherwise (LabelMe
# writes its own version), and is not replaced.
COCO_START = r'\{\s*"info": \{\s*"description": "regions found by fewshot-ad"'
LABELME_START = r'\{\s*"version": "5\.0\.1",\s*"flags": \{\s*"(good|review|anomalous|not_inspectable)": true'


class AnnotationFiles:
    """What is written of regions while images are inspected.

    Args:
        coco: File for all of them; None for none.
        labelme: Folder for a file of each image; None for none.
        force: Whether other texts may be replaced.
    """

    def __init__(self, coco: Path | None, labelme: Path | None, *, force: bool) -> None:
        self._coco, self._folder, self._force = coco, labelme, force
        self._dataset: dict[str, Any] | None = None
        self._files: dict[Path, Path] = {}

    def check(self, paths: Sequence[Path], inputs: Iterable[Path]) -> None:
        """Before the work, not after it: whether everything can be written.

        Raises:
            FewshotADError: Something is there that must stay.
        """
        inputs = list(inputs)
        check_text(self._coco, COCO_START, inputs, force=self._force, error=FewshotADError)
        if self._folder is not None:
            names = overlay_names(list(paths), ".json")
            self._files = {path: self._folder / name for path, name in zip(paths, names, strict=True)}
            for file in self._files.values():
                check_text(file, LABELME_START, inputs, force=self._force, error=FewshotADError)

    def add(self, path: Path, result: Inspection, outputs: Outputs) -> None:
        """Take an image along."""
        from fewshot_ad.inspection.annotations import coco

        if self._coco is not None:
            own = coco([result], [str(path)])
            if self._dataset is None:
                self._dataset = {**own, "images": [], "annotations": []}
            images, annotations = self._dataset["images"], self._dataset["annotations"]
            images.append({**own["images"][0], "id": len(images) + 1})
            for annotation in own["annotations"]:
                annotations.append({**annotation, "id": len(annotations) + 1, "image_id": len(images)})
        if self._folder is not None:
            file = self._files[path]
            outputs.write("LabelMe files", partial(_write, file, result.to_labelme(_seen_from(file, path))))

    def finish(self, outputs: Outputs) -> None:
        """Write what is written at the end."""
        if self._coco is not None and self._dataset is not None:
            outputs.write("the COCO dataset", partial(_write, self._coco, self._dataset))


def _seen_from(file: Path, image: Path) -> str:
    """The image's path as seen from a file beside which a tool looks for it."""
    try:
        return os.path.relpath(image.resolve(), file.resolve().parent)
    except ValueError:  # on another drive
        return str(image.resolve())


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(), durable=False)
    except OSError as error:
        raise FewshotADError(write_failure(path, error)) from error
