"""anomalib's VLM-AD: a vision-language model is asked whether an image is anomalous."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.anomalib.adapter import card, quiet
from fewshot_ad.zoo.components.local_chat import LocalChat
from fewshot_ad.zoo.method import Labeled, Method, Predictions, baseline, require_fitted

NAME = "anomalib_vlm_ad"


@baseline(
    replace(
        card(
            "vlm_ad",
            "VLM-AD",
            "No paper; anomalib's own since 2024: a question to GPT-4o mini or LLaVA, with images of good parts",
            2024,
            "vision-language",
            "Not at hand: endpoint= is the address of a service on this computer that runs a model which looks at "
            "images, by the interface of OpenAI's chat completions: Ollama, llama.cpp, vLLM or LM Studio. Images are "
            "never sent to another computer.",
            maps=False,
            trains=False,
            zero_shot=True,
            published={"k_shot": 0},
            at_hand="not at hand",
            departs=("temperature 0 and a seed, so that answers repeat", "models of services on this computer only"),
        )
    )
)
def vlm_ad(
    *,
    seed: int = 0,
    endpoint: str | None = None,
    model: str = "llava",
    k_shot: int | None = None,
    timeout_s: float = 300.0,
) -> Method:
    """VLM-AD with anomalib's questions.

    `model` is a name that the service knows. `k_shot` images, the first of the fit, are shown with every question: None
    shows all of them, 0 none. The score is 1 where the answer begins with a Y, as in YES, and 0 for any other answer.
    The service must answer within `timeout_s` seconds.
    """
    if importlib.util.find_spec("anomalib") is None:
        raise ZooError(f"{NAME} runs anomalib's code, which is not installed: pip install 'fewshot-ad[zoo]'.")
    if endpoint is None:
        raise ZooError(
            f"{NAME}: expected endpoint=, the address of a service on this computer that runs a vision-language model, "
            "got none. For Ollama, run `ollama pull llava` and give endpoint=http://localhost:11434/v1."
        )
    if k_shot is not None and k_shot < 0:
        raise ZooError(f"{NAME}: expected k_shot of at least 0, or None for all images, got {k_shot}.")
    try:
        return VlmAdMethod(LocalChat(endpoint, model, seed, timeout_s), k_shot)
    except ZooError as error:
        raise ZooError(f"{NAME}: {error}") from error


@dataclass(eq=False)
class VlmAdMethod:
    """VLM-AD under the protocol of the zoo.

    Attributes:
        chat: The service.
        k_shot: Images that are shown with every question; None shows all of the fit.
    """

    chat: LocalChat
    k_shot: int | None
    _references: list[Uint8Array] | None = field(default=None, init=False, repr=False)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Keep the images to be shown, as PNG files; see `Method.fit`. The service is not asked."""
        count = len(normal) if self.k_shot is None else min(self.k_shot, len(normal))
        references = []
        for i in range(count):
            references.append(np.frombuffer(_png(normal[i]), np.uint8).copy())
            if progress is not None:
                progress("references", i + 1, count)
        self._references = references

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Ask about each image; see `Method.predict`."""
        references = require_fitted(self._references, NAME)
        decisions = []
        with quiet(), tempfile.TemporaryDirectory() as temporary:
            from fewshot_ad.zoo.anomalib.runtime.vlm_ad import LocalBackend, LocalVlmAd

            file, backend = Path(temporary, "image.png"), LocalBackend(self.chat)
            for reference in references:
                file.write_bytes(reference.tobytes())
                backend.add_reference_images(file)
            module = LocalVlmAd(backend)
            for image in images:
                file.write_bytes(_png(image))
                try:
                    decisions.append(module.is_defective(file))
                except ZooError as error:
                    raise ZooError(f"{NAME}: {error}") from error
        rejected = np.array(decisions, np.bool_)
        return Predictions(rejected.astype(np.float32), None, rejected)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_references": None}

    def model_bytes(self) -> int:
        """The images that are shown; the size of the service's model is not known here."""
        return sum(reference.nbytes for reference in require_fitted(self._references, NAME))


def _png(image: Uint8Array) -> bytes:
    """An image (H, W, 3) uint8 RGB as the content of a PNG file."""
    return bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])
