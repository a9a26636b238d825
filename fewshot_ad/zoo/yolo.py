"""Supervised detectors of the YOLO family through ultralytics: what labeled defects are worth."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from fewshot_ad.arrays import BoolArray, Float32Array, Progress, Uint8Array
from fewshot_ad.encoder.pyramid import read_state_dict
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.components.tensors import resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Factory, Labeled, Method, Predictions, baseline

# Of each generation: the paper, its year, the sizes ultralytics has, and the smallest.
GENERATIONS: dict[str, tuple[str, int, tuple[str, ...], str]] = {
    "yolov3": (
        "Redmon & Farhadi 2018, YOLOv3: An Incremental Improvement, arXiv:1804.02767",
        2018,
        ("-tiny", ""),
        "-tiny",
    ),
    "yolov5": ("Jocher 2020, YOLOv5 by Ultralytics, doi:10.5281/zenodo.3908559", 2020, tuple("nsmlx"), "n"),
    "yolov6": (
        "Li et al. 2022, YOLOv6: A Single-Stage Object Detection Framework, arXiv:2209.02976",
        2022,
        tuple("nsmlx"),
        "n",
    ),
    "yolov8": ("Jocher et al. 2023, Ultralytics YOLOv8, software", 2023, tuple("nsmlx"), "n"),
    "yolov9": ("Wang et al. 2024, YOLOv9: Learning What You Want to Learn, ECCV", 2024, tuple("tsmce"), "t"),
    "yolov10": (
        "Wang et al. 2024, YOLOv10: Real-Time End-to-End Object Detection, NeurIPS",
        2024,
        tuple("nsmblx"),
        "n",
    ),
}


class Yolo:
    """One detector with one class, `defect`.

    Args:
        name: A generation.
        size: Of it, as ultralytics spells it.
        image_size: Side of the square input, a multiple of 32.
        weights: File of the network's state dict; None trains from random weights.
        epochs: Passes over the images.
        batch_size: Images a batch at most.
        lr: Of AdamW at its highest.
        boxes: Smallest connected component of a mask that becomes a box, in pixels of the image; confidence below
            which a found box does not count; overlap (IoU) from which two found boxes are one.
        seed: Of the weights, the order and the augmentation.

    Raises:
        ZooError: ultralytics is not installed, or a setting makes no sense.
    """

    def __init__(
        self,
        name: str,
        size: str,
        image_size: int,
        weights: str | None,
        epochs: int,
        batch_size: int,
        lr: float,
        boxes: tuple[int, float, float],
        seed: int,
    ) -> None:
        if importlib.util.find_spec("ultralytics") is None:
            raise ZooError(f"{name} runs ultralytics, which is not installed: pip install 'fewshot-ad[yolo]'.")
        if size not in GENERATIONS[name][2]:
            raise ZooError(f"{name}: expected a size among {list(GENERATIONS[name][2])}, got {size!r}.")
        if image_size < 32 or image_size % 32 or min(epochs, batch_size) < 1:
            raise ZooError(
                f"{name}: expected an image_size that 32 divides and epochs and batch_size of at least 1, got "
                f"{image_size}, {epochs} and {batch_size}."
            )
        self._name, self._config, self._size, self._weights = name, f"{name}{size}.yaml", image_size, weights
        self._epochs, self._batch, self._lr, self._seed = epochs, batch_size, lr, seed
        self._min_area, self._confidence, self._iou = boxes
        self._network: Any = None

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Learn boxes of defects; good images are background. See `Method.fit`."""
        boxes = [boxes_of(item.mask, self._min_area) for item in labeled]
        if not any(len(b) for b in boxes):
            raise ZooError(
                f"{self._name}: expected labeled images with masks of defects of at least {self._min_area} "
                f"pixels, got {len(labeled)} images with none. A detector cannot learn from good parts alone."
            )
        everything = [item.image for item in labeled] + [normal[i] for i in range(len(normal))]
        images = resized(everything, self._size)
        boxes += [np.zeros((0, 4), np.float32)] * len(normal)
        with seeded(self._seed) as generator:
            network = self._built()
            self._train(network, images, boxes, generator, progress)
        self._network = network.eval().requires_grad_(False)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """The highest confidence of a box, 0 without one; a map of the boxes filled with theirs."""
        if self._network is None:
            raise ZooError(f"{self._name} has not been fitted. Call fit(images, labeled) first.")
        found = [self._detect(image) for image in images]
        scores = [float(heat.max()) for heat in found]
        return Predictions(np.asarray(scores, np.float32), tuple(found))

    def model_bytes(self) -> int:
        """Bytes of the network."""
        if self._network is None:
            raise ZooError(f"{self._name} has not been fitted. Call fit(images, labeled) first.")
        return tensor_bytes(self._network)

    def _built(self) -> Any:
        with _quiet_import():
            tasks = importlib.import_module("ultralytics.nn.tasks")
            get_cfg = importlib.import_module("ultralytics.cfg").get_cfg
            network = tasks.DetectionModel(self._config, ch=3, nc=1, verbose=False)
            network.args = get_cfg()
        if self._weights is not None:
            _load(network, self._weights)
        return network

    def _train(
        self,
        network: Any,
        images: torch.Tensor,
        boxes: list[Float32Array],
        generator: torch.Generator,
        progress: Progress | None,
    ) -> None:
        count = math.ceil(len(images) / self._batch)
        total, warmup = self._epochs * count, min(100, self._epochs * count // 10)
        optimizer = torch.optim.AdamW(network.parameters(), lr=self._lr, weight_decay=5e-4)
        network.train()
        done = 0
        for _ in range(self._epochs):
            for chosen in torch.randperm(len(images), generator=generator).split(self._batch):
                rate = (done + 1) / (warmup + 1) if done < warmup else 0.5 * (1 + math.cos(math.pi * done / total))
                for group in optimizer.param_groups:
                    group["lr"] = self._lr * max(rate, 0.01)
                loss, _ = network.loss(_targets(images, boxes, chosen.tolist(), generator))
                optimizer.zero_grad()
                loss.sum().backward()
                nn.utils.clip_grad_norm_(network.parameters(), 10.0)
                optimizer.step()
                done += 1
                if progress:
                    progress("training", done, total)

    def _detect(self, image: Uint8Array) -> Float32Array:
        suppress = importlib.import_module("ultralytics.utils.nms").non_max_suppression
        with torch.inference_mode():
            output = self._network(to_batch([image], self._size))
            single = bool(getattr(self._network, "end2end", False))
            found = suppress(output, self._confidence, self._iou, end2end=single, max_time_img=60.0)[0]
        height, width = image.shape[:2]
        heat = np.zeros((height, width), np.float32)
        scale = np.array([width, height, width, height], np.float32) / self._size
        for *corners, confidence in found[:, :5].numpy():
            left, top, right, bottom = np.round(np.asarray(corners) * scale).astype(int)
            box = heat[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)]
            np.maximum(box, np.float32(confidence), out=box)
        return heat


def boxes_of(mask: BoolArray, min_area: int = 1) -> Float32Array:
    """Boxes of the connected components of a mask.

    Args:
        mask: (H, W) bool.
        min_area: Smaller components are left out, in pixels.

    Returns:
        (n, 4) float32: center x, center y, width, height as shares of the mask's size.
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    kept = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= min_area].astype(np.float32)
    height, width = mask.shape
    left, top, wide, high = kept[:, :4].T
    return np.stack([(left + wide / 2) / width, (top + high / 2) / height, wide / width, high / height], 1)


def _targets(
    images: torch.Tensor, boxes: list[Float32Array], chosen: list[int], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """A batch as ultralytics' loss reads it, half of it mirrored along either axis."""
    batch, rows, owners = [], [], []
    for place, index in enumerate(chosen):
        image, own = images[index].float() / 255, torch.from_numpy(boxes[index].copy())
        mirrored = torch.rand(2, generator=generator) < 0.5
        for axis in (0, 1):
            if mirrored[axis]:
                image = image.flip(2 - axis)
                own[:, axis] = 1 - own[:, axis]
        batch.append(image)
        rows.append(own)
        owners += [place] * len(own)
    return {
        "img": torch.stack(batch),
        "bboxes": torch.cat(rows),
        "cls": torch.zeros(len(owners), 1),
        "batch_idx": torch.tensor(owners, dtype=torch.float32),
    }


def _load(network: nn.Module, weights: str) -> None:
    state, wanted = read_state_dict(Path(weights)), network.state_dict()
    fitting = {k: v for k, v in state.items() if k in wanted and wanted[k].shape == v.shape}
    # The layers that name the class differ between data sets; no more than those may.
    if len(fitting) < 0.9 * len(wanted):
        raise WeightsError(f"{weights} is of another network: {len(fitting)} of {len(wanted)} tensors fit.")
    network.load_state_dict(fitting, strict=False)


@functools.cache
def _settings() -> tempfile.TemporaryDirectory[str]:
    """Where ultralytics writes its settings when it is imported; the folder goes with the process."""
    return tempfile.TemporaryDirectory(prefix="ultralytics-", ignore_cleanup_errors=True)


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Import and build offline, without a word, and with others' settings as they were."""
    wanted = {"YOLO_OFFLINE": "True", "YOLO_AUTOINSTALL": "False", "YOLO_VERBOSE": "False"}
    wanted["YOLO_CONFIG_DIR"] = _settings().name
    before, threads = dict(os.environ), cv2.getNumThreads()
    printing = np.get_printoptions()
    functions, save = (cv2.imread, cv2.imwrite, cv2.imshow), torch.save
    os.environ.update(wanted)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        cv2.setNumThreads(threads)
        np.set_printoptions(**printing)
        torch.set_printoptions(profile="default")
        cv2.imread, cv2.imwrite, cv2.imshow = functions
        torch.save = save


def _factory(name: str) -> Factory:
    def make(
        *,
        seed: int = 0,
        size: str = GENERATIONS[name][3],
        image_size: int = 640,
        weights: str | None = None,
        epochs: int = 300,
        batch_size: int = 16,
        lr: float = 1e-3,
        min_area: int = 4,
        confidence: float = 0.001,
        iou: float = 0.7,
    ) -> Method:
        return Yolo(name, size, image_size, weights, epochs, batch_size, lr, (min_area, confidence, iou), seed)

    return make


for _name, (_paper, _year, *_) in GENERATIONS.items():
    baseline(
        Card(
            _name,
            _name.replace("yolov", "YOLOv"),
            _paper,
            _year,
            "detector",
            "labeled defects",
            "ultralytics",
            "AGPL-3.0",
            maps=True,
            needs_masks=True,
            needs_internet=True,
            trains=True,
            weights="Random weights; weights=FILE takes a state dict trained on COCO. The network and the loss are "
            "ultralytics', the training loop is this package's: AdamW, mirrored copies, no mosaic.",
        )
    )(_factory(_name))
