"""What an encoder is, and image -> patch embeddings."""

from __future__ import annotations

import functools
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder.engine import Device, Engine, EngineName, Precision
from fewshot_ad.encoder.tiling import Tiling, is_local
from fewshot_ad.errors import WeightsError
from fewshot_ad.host.lifetime import native_work

logger = logging.getLogger(__name__)

# Pixels of an input that may take one pass where it cannot be tiled: a working scale of 2048 and its padding.
MAX_ONE_PASS = 5_000_000
# OpenCV resizes at most this many channels at once.
MAX_CV_CHANNELS = 128
Fusion: TypeAlias = Literal["concat", "separate"]
FUSIONS: tuple[Fusion, ...] = ("concat", "separate")


@dataclass(frozen=True)
class EncoderSpec:
    """What identifies an encoder: two encoders of equal spec give the same embeddings (up to engine rounding).

    Attributes:
        name: Shipped encoder or timm model.
        sha256: Hash of the shipped file, or of the timm model's tensors.
        stages: The stages that are used.
        strides: Their strides in pixels.
        channels: Their channels.
        fusion: `concat` brings the stages to the finest grid and joins them into one level; `separate` keeps one
            level per stage, each with its own memory bank and distance map.
        precision: Precision of the network.
        norm_power: Each stage's feature vector is divided by its length to this power, 0..1. 0 leaves it alone; 1
            makes it a direction. In between, faint texture counts nearly as much as strong contrast, and a change of
            the light does not look like a defect. A trained embedding is never scaled: its network does that inside.
        embedding: Number of the stage that is a trained encoder's embedding, if there is one.
        deepest_stride: Stride of the deepest stage that an embedding is made of, which may be coarser than itself;
            1 without an embedding.
    """

    name: str
    sha256: str
    stages: tuple[int, ...]
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    fusion: Fusion
    precision: Precision
    norm_power: float
    embedding: int | None = None
    deepest_stride: int = 1

    @property
    def multiple(self) -> int:
        """Both sides of an input must be multiples of this many pixels."""
        return max(self.deepest_stride, *self.strides)

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions of a patch embedding, per level."""
        return (sum(self.channels),) if self.fusion == "concat" else self.channels

    @property
    def level_strides(self) -> tuple[int, ...]:
        """Pixels of the input per patch, per level."""
        return (min(self.strides),) if self.fusion == "concat" else self.strides

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EncoderSpec:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        typed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**typed)


class Encoder:
    """An encoder ready to run. Made by `load_encoder`."""

    def __init__(self, spec: EncoderSpec, engine: Engine, engine_name: EngineName, threads: int | None) -> None:
        self.spec = spec
        self.threads = threads
        self.engine_name = engine_name
        self._engine = engine
        # The call of `load_encoder` that made it, for other processes; None for one that was put together by hand.
        self.reload: Callable[[], Encoder] | None = None
        # The name it was loaded by; of a card, unlike the name in `spec`, the path from any working directory.
        self.source = spec.name

    @property
    def engine(self) -> Engine:
        """What runs the network."""
        return self._engine

    @property
    def device(self) -> Device:
        """What it really runs on: `cpu` also where `cuda` was asked for and there is no GPU."""
        return self._engine.device

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as the call that loaded it, which is made again on the other side.

        Raises:
            WeightsError: It was not loaded by `load_encoder`, and its engine cannot be pickled.
        """
        if self.reload is not None:
            return _reloaded, (self.reload, self.spec)
        try:
            pickle.dumps(self._engine)
        except Exception as error:
            raise WeightsError(
                f"expected an encoder that can be pickled, got one with an engine of its own that cannot ({error}). "
                "Load it by load_encoder, give its engine a __reduce__, or load the product in the other process: "
                "Inspector.load(path, encoder=...)."
            ) from error
        return Encoder, (self.spec, self._engine, self.engine_name, self.threads)

    @native_work()
    def encode(self, image: Uint8Array) -> tuple[Float32Array, ...]:
        """Patch embeddings of one input, a large one in tiles.

        Args:
            image: (H, W, 3) uint8 RGB, H and W multiples of `spec.multiple`.

        Returns:
            One array (h, w, d) float32 per level: a single level with `concat`, one per stage with `separate`.

        Raises:
            WeightsError: As for `tiling`.
        """
        tiling = self.tiling(image.shape[:2])  # type: ignore[arg-type]
        return self._encode(image) if tiling is None else tiling.run(image, self._encode)

    def tiling(self, input_hw: tuple[int, int]) -> Tiling | None:
        """How an input of some height and width in pixels is cut into tiles; None = it takes one pass.

        Raises:
            WeightsError: The input is larger than `MAX_ONE_PASS`, and the encoder looks at the whole of it at once.
        """
        tiling = Tiling.fit(input_hw, self.spec.multiple)
        if tiling is None or self._is_local:
            return tiling
        if input_hw[0] * input_hw[1] > MAX_ONE_PASS:
            raise WeightsError(
                f"expected an encoder whose patches depend on their surroundings only, for an input of {input_hw[1]} x "
                f"{input_hw[0]} pixels, which is encoded in tiles; got {self.spec.name}, which looks at the whole "
                "image at once. Choose image_size up to 2048, or a shipped encoder."
            )
        return None

    @functools.cached_property
    def _is_local(self) -> bool:
        local = is_local(self._encode, self.spec.multiple)
        if not local:
            logger.warning(
                "%s looks at the whole image at once, so large images are not encoded in tiles: one pass takes "
                "gigabytes of memory. A smaller image_size or a shipped encoder takes less.",
                self.spec.name,
            )
        return local

    def _encode(self, image: Uint8Array) -> tuple[Float32Array, ...]:
        maps = self._engine.run(np.ascontiguousarray(image))
        if self._engine.makes_levels:
            return tuple(maps)
        stages = [
            stage if number == self.spec.embedding else self._scale(stage)
            for number, stage in zip(self.spec.stages, maps, strict=True)
        ]
        if self.spec.fusion == "separate" or len(stages) == 1:
            return tuple(np.ascontiguousarray(stage) for stage in stages)
        height, width = max(stage.shape[:2] for stage in stages)
        joined = np.empty((height, width, sum(self.spec.channels)), np.float32)
        start = 0
        for stage in stages:
            for first in range(0, stage.shape[2], MAX_CV_CHANNELS):
                part = stage[..., first : first + MAX_CV_CHANNELS]
                if stage.shape[:2] != (height, width):
                    part = cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_LINEAR)
                joined[..., start : start + part.shape[2]] = part
                start += part.shape[2]
        return (joined,)

    def _scale(self, stage: Float32Array) -> Float32Array:
        if self.spec.norm_power == 0:
            return stage
        squared = np.einsum("hwc,hwc->hw", stage, stage)
        return stage * np.maximum(squared, np.float32(1e-12))[..., None] ** np.float32(-self.spec.norm_power / 2)


def _reloaded(reload: Callable[[], Encoder], spec: EncoderSpec) -> Encoder:
    encoder = reload()
    if encoder.spec.sha256 != spec.sha256:
        raise WeightsError(
            f"expected the encoder {spec.name} with the hash {spec.sha256[:12]}, as in the process it was pickled in, "
            f"got {encoder.spec.sha256[:12]}. Install the same version and the same weights on both sides."
        )
    # Under the name it had there: a product knows it by that.
    encoder.spec = spec
    return encoder
