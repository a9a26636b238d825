"""anomalib's VLM-AD around a service on this computer. All else is inherited."""

from __future__ import annotations

from pathlib import Path

import torch
from anomalib.data import ImageBatch
from anomalib.models.components import AnomalibModule
from anomalib.models.image.vlm_ad import VlmAd
from anomalib.models.image.vlm_ad.backends import Backend
from anomalib.models.image.vlm_ad.utils import Prompt

from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.components.local_chat import LocalChat, message


class LocalBackend(Backend):
    """A backend of anomalib's that asks a service on this computer."""

    def __init__(self, chat: LocalChat) -> None:
        self._chat = chat
        self._references: list[bytes] = []

    def add_reference_images(self, image: str | Path) -> None:
        """Show an image of a good part, a PNG file, with every question."""
        self._references.append(Path(image).read_bytes())

    @property
    def num_reference_images(self) -> int:
        """Number of images of good parts."""
        return len(self._references)

    def predict(self, image: str | Path, prompt: Prompt) -> str:
        """The answer about an image, a PNG file."""
        references = [message(prompt.few_shot, self._references)] if self._references else []
        return self._chat.ask([*references, message(prompt.predict, [Path(image).read_bytes()])])


class LocalVlmAd(VlmAd):
    """VLM-AD."""

    def __init__(self, backend: Backend) -> None:
        AnomalibModule.__init__(self, **bare())
        self.k_shot, self.vlm_backend = 0, backend

    def is_defective(self, file: Path) -> bool:
        """Whether anomalib's rule calls an image, a PNG file, anomalous."""
        batch = ImageBatch(image=torch.zeros(1, 3, 1, 1), image_path=[str(file)])
        label = self.validation_step(batch).pred_label
        return label is not None and bool(label[0])
