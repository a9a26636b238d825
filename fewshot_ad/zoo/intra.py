"""InTra: a transformer paints in a hidden patch from the patches of a window around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.similarity import msgms_map, restoration_loss
from fewshot_ad.zoo.components.tensors import one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted


@baseline(
    Card(
        name="intra",
        title="InTra",
        paper="Pirnay & Chai 2022, Inpainting Transformer for Anomaly Detection, ICIAP (arXiv:2104.13897)",
        year=2022,
        family="restoration",
        needs_internet=False,
        trains=True,
        weights="None: trained from scratch on the images, as published; with fewer and narrower blocks, smaller "
        "batches, and a number of steps that suits a few images on a CPU instead of training until the loss of images "
        "held out stops falling.",
        original=Original(
            options={"width": 512, "blocks": 13, "batch_size": 256, "learning_rate": 1e-4},
            lengths={"steps": "epochs until the loss of images held out stops falling"},
            departs=("positions in the whole image alone, none within the window",),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class InTra:
    """Inpainting Transformer with embeddings of the positions in the whole image.

    Attributes:
        seed: Seed of the network, the windows and the hidden patches.
        image_size: Both sides of the input in pixels, a multiple of `patch_size`; the paper's depends on the product.
        patch_size: K, sides of a patch in pixels, at least 4.
        window: L, sides of a window in patches.
        width: D, length of a patch's embedding, a multiple of twice `heads`.
        blocks: Blocks of the transformer.
        heads: Heads of the attention.
        steps: Training steps.
        batch_size: Windows per step, each of a random image, with one random patch hidden.
        learning_rate: Adam's learning rate.
        scales: Scales of the gradient magnitude similarity.
        gms_weight: alpha, weight of the gradient magnitude similarity in the loss.
        ssim_weight: beta, weight of the structural similarity in the loss.
        smoothing: Side of the mean filter of the map, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.

    Source: Pirnay & Chai 2022, section 3: windows and embeddings, attention with nonlinear queries and keys, long
    residual connections, the loss, and the anomaly map.
    """

    seed: int = 0
    image_size: int = 256
    patch_size: int = 16
    window: int = 7
    width: int = 128
    blocks: int = 5
    heads: int = 8
    steps: int = 1500
    batch_size: int = 16
    learning_rate: float = 1e-3
    scales: int = 3
    gms_weight: float = 0.01
    ssim_weight: float = 0.01
    smoothing: int = 21
    _fitted: _Fitted | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.patch_size < 4 or self.image_size % self.patch_size:
            raise ZooError(
                "intra: expected patch_size of at least 4 and image_size as a multiple of it, got "
                f"{self.patch_size} and {self.image_size}."
            )
        if not 2 <= self.window <= self.image_size // self.patch_size:
            raise ZooError(
                f"intra: expected a window of 2 to {self.image_size // self.patch_size} patches, got {self.window}."
            )
        counts = (self.heads, self.blocks, self.steps, self.batch_size, self.smoothing)
        if min(counts) < 1 or self.width < 1 or self.width % (2 * self.heads):
            raise ZooError(
                "intra: expected heads, blocks, steps, batch_size and smoothing of at least 1, and width as a multiple "
                f"of twice heads, got {', '.join(map(str, counts))} and {self.width}."
            )
        if not 1 <= self.scales <= self.patch_size.bit_length() - 1:
            raise ZooError(
                f"intra: expected at least 1 of the scales that leave a pixel of a patch, got {self.scales}."
            )
        if self.learning_rate <= 0 or min(self.gms_weight, self.ssim_weight) < 0:
            raise ZooError(
                "intra: expected learning_rate above 0, gms_weight and ssim_weight of at least 0, got "
                f"{self.learning_rate}, {self.gms_weight} and {self.ssim_weight}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the transformer, and average the maps of the good images; see `Method.fit`."""
        images = resized(normal, self.image_size)
        patches = to_patches(images, self.patch_size)
        grid = self.image_size // self.patch_size
        with seeded(self.seed) as generator:
            network = self._network()

            def draw(*ranges: int) -> list[torch.Tensor]:
                return [torch.randint(end, (self.batch_size,), generator=generator) for end in ranges]

            def loss() -> torch.Tensor:
                number, top, left = draw(len(images), grid - self.window + 1, grid - self.window + 1)
                (hidden,) = draw(self.window**2)
                positions = window_positions(top, left, grid, self.window)
                shown = patches[number[:, None], positions].float() / 255
                painted = network(shown, positions, hidden)
                truth = shown[torch.arange(len(shown)), hidden]
                squares = [flat.view(-1, 3, self.patch_size, self.patch_size) for flat in (painted, truth)]
                return restoration_loss(squares[0], squares[1], self.scales, self.gms_weight, self.ssim_weight)

            train_steps(
                loss, self.steps, [torch.optim.Adam(network.parameters(), self.learning_rate)], progress=progress
            )
        network.requires_grad_(False).eval()
        usual = torch.stack([self._difference(network, image[None].float() / 255) for image in images]).mean(0)
        self._fitted = _Fitted(network, usual)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = the map's maximum; the map is the squared deviation from the usual map. See `Method.predict`."""
        fitted = require_fitted(self._fitted, "intra")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            difference = self._difference(fitted.network, to_batch([image], self.image_size))
            heat = (difference - fitted.usual).square()
            return float(heat.max()), heat

        return one_by_one(images, judge)

    def _difference(self, network: InpaintingTransformer, image: torch.Tensor) -> torch.Tensor:
        """1 - GMS of an image (1, 3, S, S) and what the network makes of it, smoothed: (S, S)."""
        with torch.no_grad():
            difference = msgms_map(inpainted(network, image, self.patch_size, self.window), image, self.scales)[0]
        heat: Float32Array = cv2.blur(
            difference.numpy(), (self.smoothing, self.smoothing), borderType=cv2.BORDER_REFLECT_101
        )
        return torch.as_tensor(heat)

    def _network(self) -> InpaintingTransformer:
        positions = (self.image_size // self.patch_size) ** 2
        return InpaintingTransformer(3 * self.patch_size**2, positions, self.width, self.blocks, self.heads)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_fitted": _Fitted(self._network(), torch.empty(0))}

    def model_bytes(self) -> int:
        """The network and the usual map."""
        fitted = require_fitted(self._fitted, "intra")
        return tensor_bytes(fitted.network, fitted.usual)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The trained network, and the mean map of the good images (S, S)."""

    network: InpaintingTransformer
    usual: torch.Tensor


def to_patches(batch: torch.Tensor, size: int) -> torch.Tensor:
    """(N, 3, S, S) -> (N, patches, 3 size size), row by row."""
    return F.pixel_unshuffle(batch, size).flatten(2).transpose(1, 2)


def window_positions(top: torch.Tensor, left: torch.Tensor, grid: int, window: int) -> torch.Tensor:
    """Positions in the image of the patches of windows.

    Args:
        top: (N,) int64, row of the window's first patch.
        left: (N,) int64, its column.
        grid: Patches along a side of the image.
        window: Patches along a side of the window.

    Returns:
        (N, window ** 2) int64, row by row.
    """
    steps = torch.arange(window)
    inside = (steps[:, None] * grid + steps).flatten()
    return (top * grid + left)[:, None] + inside


def inpainted(network: InpaintingTransformer, image: torch.Tensor, size: int, window: int) -> torch.Tensor:
    """An image in which every patch was painted without having been seen.

    The patch lies in the middle of its window, or as near to it as the image's border allows.

    Args:
        network: The transformer.
        image: (1, 3, S, S) in 0..1.
        size: Sides of a patch in pixels.
        window: Sides of a window in patches.

    Returns:
        (1, 3, S, S).

    Source: Pirnay & Chai 2022, section 3.4.
    """
    grid = image.shape[3] // size
    row, column = torch.arange(grid**2) // grid, torch.arange(grid**2) % grid
    top, left = ((at - window // 2).clamp(0, grid - window) for at in (row, column))
    positions = window_positions(top, left, grid, window)
    painted = network(to_patches(image, size)[0][positions], positions, (row - top) * window + column - left)
    return F.pixel_shuffle(painted.T.reshape(1, -1, grid, grid), size)


class InpaintingTransformer(nn.Module):
    """Paints in one hidden patch of a window.

    Args:
        pixels: Values in a patch.
        positions: Patches in an image.
        width: Length of an embedding.
        blocks: Number of blocks; a late one also gets the output of the early one that mirrors it.
        heads: Heads of the attention.

    Source: Pirnay & Chai 2022, sections 3.1 and 3.2.
    """

    def __init__(self, pixels: int, positions: int, width: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(pixels, width)
        self.hidden = nn.Parameter(torch.randn(width))
        self.positions = nn.Parameter(torch.randn(positions, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.exit = nn.Linear(width, pixels)

    def forward(self, patches: torch.Tensor, positions: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Paint in one patch of each window.

        Args:
            patches: (N, n, pixels); the hidden ones are not looked at.
            positions: (N, n) int64, their positions in the image.
            hidden: (N,) int64, index of the hidden patch in its window.

        Returns:
            (N, pixels).
        """
        is_hidden = torch.arange(patches.shape[1]) == hidden[:, None]
        x = torch.where(is_hidden[..., None], self.hidden, self.embedding(patches)) + self.positions[positions]
        outputs: list[torch.Tensor] = []
        for number, block in enumerate(self.blocks):
            mirror = len(self.blocks) - 1 - number
            x = block(x + outputs[mirror] if mirror < number else x)
            outputs.append(x)
        return self.exit(self.norm(x).mean(1))


class _Block(nn.Module):
    """Attention between the patches, then two layers on each; both with a shortcut.

    Queries and keys are half as long as values, and come from two layers each.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.keys = _two_layers(width, 2, width // 2), _two_layers(width, 2, width // 2)
        self.values, self.mix = nn.Linear(width, width), nn.Linear(width, width)
        self.layers = _two_layers(width, 4, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, n, width) -> the same shape."""
        normal = self.before_attention(x)
        q, k, v = (
            project(normal).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.queries, self.keys, self.values)
        )
        x = x + self.mix(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.layers(self.before_layers(x))


def _two_layers(inputs: int, expansion: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, expansion * inputs), nn.GELU(), nn.Linear(expansion * inputs, outputs))
