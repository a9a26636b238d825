"""Supervised detectors of the YOLO family through ultralytics: they learn from labeled defects."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import nn

from fewshot_ad.arrays import BoolArray, Float32Array, Progress, Uint8Array
from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.components.tensors import resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import shuffled_batches, train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

WARMUP_STEPS = 100
LOWEST_RATE = 0.01  # As a share of the highest learning rate.
WEIGHT_DECAY = 5e-4
LARGEST_GRADIENT = 10.0


@dataclass(kw_only=True, eq=False)
class Yolo:
    """A detector with one class, `defect`; each generation is a subclass that names itself and its sizes.

    Attributes:
        name: Name of the generation.
        sizes: Its sizes, as ultralytics spells them.
        seed: Seed of the weights, the order of the images and the mirroring.
        size: One of `sizes`.
        image_size: Side of the square input in pixels, a multiple of 32.
        weights: File of the network's state dict; None trains from random weights.
        epochs: Passes over the images.
        batch_size: Images per batch, at most.
        lr: Highest learning rate of AdamW.
        min_area: Smallest connected component of a mask that becomes a box, in pixels of the image.
        confidence: Boxes below this confidence, in 0..1, do not count.
        iou: Overlap (IoU), in 0..1, from which two boxes are one.

    Raises:
        ZooError: ultralytics is not installed, or a setting makes no sense.
    """

    name: ClassVar[str]
    sizes: ClassVar[tuple[str, ...]]

    seed: int = 0
    size: str
    image_size: int = 640
    weights: str | None = None
    epochs: int = 300
    batch_size: int = 16
    lr: float = 1e-3
    min_area: int = 4
    confidence: float = 0.001
    iou: float = 0.7
    _network: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ultralytics") is None:
            raise ZooError(f"{self.name} runs ultralytics, which is not installed: pip install 'fewshot-ad[yolo]'.")
        if self.size not in self.sizes:
            raise ZooError(f"{self.name}: expected a size among {list(self.sizes)}, got {self.size!r}.")
        if self.image_size < 32 or self.image_size % 32 or min(self.epochs, self.batch_size) < 1:
            raise ZooError(
                f"{self.name}: expected an image_size that 32 divides and epochs and batch_size of at least 1, got "
                f"{self.image_size}, {self.epochs} and {self.batch_size}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Learn boxes of defects; good images are background. See `Method.fit`."""
        boxes = [boxes_of(item.mask, self.min_area) for item in labeled]
        if not any(len(b) for b in boxes):
            raise ZooError(
                f"{self.name}: expected labeled images with masks of defects of at least {self.min_area} "
                f"pixels, got {len(labeled)} images with none. A detector cannot learn from good parts alone."
            )
        images = resized([*(item.image for item in labeled), *(normal[i] for i in range(len(normal)))], self.image_size)
        boxes += [np.zeros((0, 4), np.float32)] * len(normal)
        with seeded(self.seed) as generator:
            network = self._build()
            self._train(network, images, boxes, generator, progress)
        self._network = network.eval().requires_grad_(False)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = highest confidence of a box, 0 without one; the map holds the boxes, filled with their confidence.

        See `Method.predict`.
        """
        network = require_fitted(self._network, self.name)
        maps = tuple(self._detect(network, image) for image in images)
        return Predictions(np.asarray([float(heat.max()) for heat in maps], np.float32), maps)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": self._build()}

    def model_bytes(self) -> int:
        """The network."""
        return tensor_bytes(require_fitted(self._network, self.name))

    def _build(self) -> Any:
        """The network of ultralytics, with the weights of the file if there is one."""
        with _quiet_import():
            tasks = importlib.import_module("ultralytics.nn.tasks")
            get_cfg = importlib.import_module("ultralytics.cfg").get_cfg
            network = tasks.DetectionModel(f"{self.name}{self.size}.yaml", ch=3, nc=1, verbose=False)
            network.args = get_cfg()
        if self.weights not in (None, "random"):
            _load(network, self.weights)
        return network

    def _train(
        self,
        network: Any,
        images: torch.Tensor,
        boxes: list[Float32Array],
        generator: torch.Generator,
        progress: Progress | None,
    ) -> None:
        """AdamW with a linear warm-up and a cosine to a hundredth of the highest rate."""
        steps = self.epochs * math.ceil(len(images) / self.batch_size)
        warmup = min(WARMUP_STEPS, steps // 10)
        batches = shuffled_batches(len(images), self.batch_size, generator)

        def rate(step: int) -> float:
            share = (step + 1) / (warmup + 1) if step < warmup else 0.5 * (1 + math.cos(math.pi * step / steps))
            return max(share, LOWEST_RATE)

        def clip(*_: Any) -> None:
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)

        def loss() -> torch.Tensor:
            values, _ = network.loss(_targets(images, boxes, next(batches).tolist(), generator))
            return values.sum()

        optimizer = torch.optim.AdamW(network.parameters(), lr=self.lr, weight_decay=WEIGHT_DECAY)
        optimizer.register_step_pre_hook(clip)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        network.train()
        train_steps(loss, steps, [optimizer], schedules=[schedule], progress=progress)

    def _detect(self, network: Any, image: Uint8Array) -> Float32Array:
        """The map (H, W) of one image."""
        suppress = importlib.import_module("ultralytics.utils.nms").non_max_suppression
        with torch.inference_mode():
            output = network(to_batch([image], self.image_size))
            single = bool(getattr(network, "end2end", False))
            boxes = suppress(output, self.confidence, self.iou, end2end=single, max_time_img=60.0)[0]
        height, width = image.shape[:2]
        heat = np.zeros((height, width), np.float32)
        scale = np.array([width, height, width, height], np.float32) / self.image_size
        for *corners, confidence in boxes[:, :5].numpy():
            left, top, right, bottom = np.round(np.asarray(corners) * scale).astype(int)
            box = heat[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)]
            np.maximum(box, np.float32(confidence), out=box)
        return heat


def _card(name: str, paper: str, year: int, **published: Any) -> Card:
    return Card(
        name=name,
        title=name.replace("yolov", "YOLOv"),
        paper=paper,
        year=year,
        family="detector",
        supervision="labeled defects",
        source="ultralytics",
        license="AGPL-3.0",
        needs_masks=True,
        needs_internet=True,
        trains=True,
        weights="Random weights; weights=FILE takes a state dict trained on COCO. The network and the loss are "
        "ultralytics', the training loop is this package's: AdamW, mirrored copies, no mosaic.",
        original=Original(
            options=published,
            pretrained="COCO",
            at_hand="random",
            departs=("a training loop of this package: AdamW, mirrored copies, no mosaic",),
        ),
    )


@baseline(_card("yolov3", "Redmon & Farhadi 2018, YOLOv3: An Incremental Improvement, arXiv:1804.02767", 2018))
@dataclass(kw_only=True, eq=False)
class YoloV3(Yolo):
    """YOLOv3."""

    name: ClassVar[str] = "yolov3"
    sizes: ClassVar[tuple[str, ...]] = ("-tiny", "")
    size: str = "-tiny"


@baseline(_card("yolov5", "Jocher 2020, YOLOv5 by Ultralytics, doi:10.5281/zenodo.3908559", 2020))
@dataclass(kw_only=True, eq=False)
class YoloV5(Yolo):
    """YOLOv5."""

    name: ClassVar[str] = "yolov5"
    sizes: ClassVar[tuple[str, ...]] = tuple("nsmlx")
    size: str = "n"


@baseline(_card("yolov6", "Li et al. 2022, YOLOv6: A Single-Stage Object Detection Framework, arXiv:2209.02976", 2022))
@dataclass(kw_only=True, eq=False)
class YoloV6(Yolo):
    """YOLOv6."""

    name: ClassVar[str] = "yolov6"
    sizes: ClassVar[tuple[str, ...]] = tuple("nsmlx")
    size: str = "n"


# The software has five sizes; the figures that are known of it here are of `m`.
@baseline(_card("yolov8", "Jocher et al. 2023, Ultralytics YOLOv8, software", 2023, size="m"))
@dataclass(kw_only=True, eq=False)
class YoloV8(Yolo):
    """YOLOv8."""

    name: ClassVar[str] = "yolov8"
    sizes: ClassVar[tuple[str, ...]] = tuple("nsmlx")
    size: str = "n"


@baseline(_card("yolov9", "Wang et al. 2024, YOLOv9: Learning What You Want to Learn, ECCV", 2024))
@dataclass(kw_only=True, eq=False)
class YoloV9(Yolo):
    """YOLOv9."""

    name: ClassVar[str] = "yolov9"
    sizes: ClassVar[tuple[str, ...]] = tuple("tsmce")
    size: str = "t"


@baseline(_card("yolov10", "Wang et al. 2024, YOLOv10: Real-Time End-to-End Object Detection, NeurIPS", 2024))
@dataclass(kw_only=True, eq=False)
class YoloV10(Yolo):
    """YOLOv10."""

    name: ClassVar[str] = "yolov10"
    sizes: ClassVar[tuple[str, ...]] = tuple("nsmblx")
    size: str = "n"


def boxes_of(mask: BoolArray, min_area: int = 1) -> Float32Array:
    """Boxes of the connected components of a mask.

    Args:
        mask: (H, W) bool.
        min_area: Smaller components are left out, in pixels.

    Returns:
        (n, 4) float32: center x, center y, width, height as shares of the mask's size.
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= min_area].astype(np.float32)
    height, width = mask.shape
    left, top, wide, high = large[:, :4].T
    return np.stack([(left + wide / 2) / width, (top + high / 2) / height, wide / width, high / height], 1)


def _targets(
    images: torch.Tensor, boxes: list[Float32Array], indices: list[int], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """A batch in the form of ultralytics' loss, half of it mirrored along either axis."""
    batch, rows, owners = [], [], []
    for place, index in enumerate(indices):
        image, own = images[index].float() / 255, torch.as_tensor(boxes[index].copy())
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
    state, expected = read_state_dict(Path(weights)), network.state_dict()
    matches = {k: v for k, v in state.items() if k in expected and expected[k].shape == v.shape}
    # The layers that name the class differ between data sets; only those may be absent.
    if len(matches) < 0.9 * len(expected):
        raise WeightsError(f"{weights} is of another network: {len(matches)} of {len(expected)} tensors fit.")
    network.load_state_dict(matches, strict=False)


@functools.cache
def _settings() -> tempfile.TemporaryDirectory[str]:
    """Folder where ultralytics writes its settings when it is imported; it is deleted with the process."""
    return tempfile.TemporaryDirectory(prefix="ultralytics-", ignore_cleanup_errors=True)


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Import and build offline and without output, and restore the settings that ultralytics changes."""
    variables = {"YOLO_OFFLINE": "True", "YOLO_AUTOINSTALL": "False", "YOLO_VERBOSE": "False"}
    variables["YOLO_CONFIG_DIR"] = _settings().name
    before, threads = dict(os.environ), cv2.getNumThreads()
    printing = np.get_printoptions()
    functions, save = (cv2.imread, cv2.imwrite, cv2.imshow), torch.save
    os.environ.update(variables)
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
