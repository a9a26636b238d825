"""Regions of an image that may show an object: windows that frame edges, or a region proposal network."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn  # type: ignore[import-untyped]
from torchvision.models.detection.anchor_utils import AnchorGenerator  # type: ignore[import-untyped]
from torchvision.models.detection.image_list import ImageList  # type: ignore[import-untyped]
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead  # type: ignore[import-untyped]
from torchvision.ops import nms  # type: ignore[import-untyped]

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.errors import WeightsError
from fewshot_ad.zoo.components.tensors import missing_tensors

Boxes: TypeAlias = torch.Tensor

# Sides of the windows as shares of the input's, their aspects, and how much neighbors overlap (IoU).
SIDES = (1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
ASPECTS = (0.5, 1.0, 2.0)
STEP_OVERLAP = 0.65
# Large windows hold more edges; this power of their perimeter compensates for that.
PERIMETER_POWER = 1.5


def windows(side: int) -> Float32Array:
    """All windows of a square input, (n, 4) float32: x, y of two corners, in whole pixels."""
    boxes: list[tuple[int, int, int, int]] = []
    for share in SIDES:
        for aspect in ASPECTS:
            width, height = (min(side, round(share * side * aspect**p)) for p in (0.5, -0.5))
            # Two windows of side a, moved by s, overlap by (a - s) / (a + s).
            x_step, y_step = (max(1, round(a * (1 - STEP_OVERLAP) / (1 + STEP_OVERLAP))) for a in (width, height))
            for y in (*range(0, side - height, y_step), side - height):
                boxes.extend((x, y, x + width, y + height) for x in (*range(0, side - width, x_step), side - width))
    return np.array(boxes, np.float32)


def edge_scores(image: Uint8Array, boxes: Float32Array) -> Float32Array:
    """Objectness of each window: its edges without those of its inner half, over its perimeter.

    Args:
        image: (S, S, 3) uint8 RGB.
        boxes: (n, 4) float32.

    Returns:
        (n,) float32.

    Source: Zitnick & Dollár 2014 (Edge Boxes), eq. 3-4, with the magnitude of the gradient for edges and no grouping.
    """
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1).astype(np.float32)
    edges = cv2.magnitude(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    integral = cv2.integral(edges, sdepth=cv2.CV_64F)
    left, top, right, bottom = boxes.astype(np.int64).T
    width, height = right - left, bottom - top

    def total(x0: np.ndarray, y0: np.ndarray, x1: np.ndarray, y1: np.ndarray) -> np.ndarray:
        return integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]

    inner = total(left + width // 4, top + height // 4, right - width // 4, bottom - height // 4)
    framed = total(left, top, right, bottom) - inner
    return (framed / (2 * (width + height)) ** PERIMETER_POWER).astype(np.float32)


def edge_proposals(image: Uint8Array, count: int, overlap: float) -> Boxes:
    """The windows with the highest edge scores.

    Args:
        image: (S, S, 3) uint8 RGB.
        count: Number of windows, at most.
        overlap: Windows that overlap a better one by more than this (IoU) are left out.

    Returns:
        (r, 4) float32, best first.
    """
    boxes = windows(image.shape[0])
    scores, corners = torch.as_tensor(edge_scores(image, boxes)), torch.as_tensor(boxes)
    return corners[nms(corners, scores, overlap)[:count]]


class ProposalNet(torch.nn.Module):
    """The region proposal network of Faster R-CNN, with random weights.

    Args:
        channels: Channels of the features.
        count: Number of proposals, at most.
        overlap: As for `edge_proposals`.
        min_size: Sides of a proposal, at least, in pixels.
        min_score: Objectness of a proposal, at least, in 0..1.

    Source: Ren et al. 2015 (Faster R-CNN), section 3.1; torchvision's implementation.
    """

    def __init__(self, channels: int, count: int, overlap: float, min_size: float, min_score: float) -> None:
        super().__init__()
        anchors = AnchorGenerator(((32, 64, 128),), (ASPECTS,))
        head = RPNHead(channels, anchors.num_anchors_per_location()[0])
        before, after = ({"training": n, "testing": n} for n in (1000, count))
        # The thresholds and sample sizes in the middle are for training only.
        self.network = RegionProposalNetwork(anchors, head, 0.7, 0.3, 256, 0.5, before, after, overlap, min_score)
        self.network.min_size = min_size
        self.requires_grad_(False).eval()

    def forward(self, batch: torch.Tensor, features: torch.Tensor) -> Boxes:
        """One image (1, 3, S, S) and its features (1, C, h, w) -> (r, 4) float32, best first."""
        images = ImageList(batch, [(batch.shape[2], batch.shape[3])])
        proposals: list[Boxes] = self.network(images, {"0": features})[0]
        return proposals[0]


class DetectorProposals(torch.nn.Module):
    """The boxes of a trained Faster R-CNN with ResNet-50 and FPN, whatever it calls what is in them.

    Args:
        count: Number of boxes, at most.
        overlap: Boxes of one class that overlap a better one by more than this (IoU) are left out.
        min_size: Sides of a box, at least, in pixels.
        min_score: Score of a box, at least, in 0..1.
        weights: File of a state dict of torchvision's `fasterrcnn_resnet50_fpn` with its 91 classes of COCO, or
            `random`.

    Raises:
        WeightsError: The file is missing or of another network.

    Source: Ren et al. 2015 (Faster R-CNN); Adey et al. 2021 for their use here.
    """

    def __init__(self, count: int, overlap: float, min_size: float, min_score: float, weights: str) -> None:
        super().__init__()
        self.network = fasterrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            box_detections_per_img=count,
            box_nms_thresh=overlap,
            box_score_thresh=min_score,
        )
        self.min_size = min_size
        if weights != "random":
            state = read_state_dict(weights)
            missing = missing_tensors(self.network, state)
            if missing:
                raise WeightsError(
                    f"{weights}: expected the weights of torchvision's fasterrcnn_resnet50_fpn, but {len(missing)} "
                    f"tensors are absent or of another shape, first {missing[0]}."
                )
            self.network.load_state_dict({key: state[key] for key in self.network.state_dict()})
        self.requires_grad_(False).eval()

    def forward(self, batch: torch.Tensor, features: torch.Tensor) -> Boxes:
        """One image (1, 3, S, S) in 0..1 -> (r, 4) float32, best first."""
        boxes: Boxes = self.network([batch[0]])[0]["boxes"]
        sides = boxes[:, 2:] - boxes[:, :2]
        return boxes[(sides >= self.min_size).all(1)]
