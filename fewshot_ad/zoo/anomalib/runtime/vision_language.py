"""anomalib's WinCLIP around any CLIP, and its AnomalyVFM without a download. All else is inherited."""

from __future__ import annotations

from typing import Any

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.models import AnomalyVFM, WinClip
from anomalib.models.components import AnomalibModule
from anomalib.models.image.anomalyvfm.components.decoder import SimpleDecoder, SimplePredictor
from anomalib.models.image.anomalyvfm.components.radio import InputConditioner, RADIOModel, VisionTransformer
from anomalib.models.image.anomalyvfm.torch_model import AnomalyVFMModel, BaseModel
from anomalib.models.image.winclip.torch_model import TEMPERATURE, WinClipModel
from torch import nn

from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.components.tensors import standardize


class OfflineWinClipModel(WinClipModel):
    """WinCLIP's model around a CLIP of open_clip, for images in 0..1."""

    def __init__(self, clip: Any, class_name: str, scales: tuple[int, int]) -> None:
        nn.Module.__init__(self)
        self.clip = clip.eval().requires_grad_(False)
        clip.visual.output_tokens = True
        self.grid_size, self.scales, self.temperature = clip.visual.grid_size, scales, TEMPERATURE
        self.apply_transform, self.k_shot, self.class_name, self.reference_images = False, 0, None, None
        self.register_buffer_list("masks", self._generate_masks(), persistent=False)
        self.register_buffer("_text_embeddings", torch.empty(0))
        self.register_buffer_list("_visual_embeddings", [torch.empty(0) for _ in scales])
        self.register_buffer("_patch_embeddings", torch.empty(0))
        self.setup(class_name)

    def encode_image(self, batch: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """(N, 3, side, side) in 0..1 -> embeddings of the images (N, D), windows (N, W, D), patches (N, P, C)."""
        visual = self.clip.visual
        return super().encode_image(standardize(batch, visual.image_mean, visual.image_std))

    def _get_window_embeddings(self, feature_map: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        # anomalib's own is written for transformers that take the sequence first. Those of open_clip since 2.26.1 take
        # the batch first, and would let windows attend to each other instead of the patches within one window.
        visual, (count, _, width) = self.clip.visual, feature_map.shape
        windows = masks.shape[1]
        tokens = nn.functional.pad(masks.T.long() + 1, (1, 0))
        sequences = feature_map[:, tokens].reshape(count * windows, -1, width)
        pooled, _ = visual._pool(visual.transformer(visual.ln_pre(sequences)))
        return (pooled @ visual.proj).reshape(count, windows, -1)

    def remember(self, embeddings: list[tuple[list[torch.Tensor], torch.Tensor]]) -> None:
        """Store the references: embeddings of the windows and patches of good images, batch by batch."""
        windows, patches = zip(*embeddings, strict=True)
        self._visual_embeddings = [torch.cat(scale) for scale in zip(*windows, strict=True)]
        self._patch_embeddings = torch.cat(patches)
        self.k_shot = len(self._patch_embeddings)


class OfflineWinClip(WinClip):
    """WinCLIP+: every image of the training is a reference, embedded in the batch it comes in."""

    def __init__(self, model: OfflineWinClipModel, class_name: str) -> None:
        AnomalibModule.__init__(self, **bare())
        self.model, self.class_name = model, class_name
        # Zero, so that anomalib does not embed all references at once before the training, which takes gigabytes.
        self.k_shot, self.few_shot_source, self.is_setup = 0, None, True
        self._embeddings: list[tuple[list[torch.Tensor], torch.Tensor]] = []

    def training_step(self, batch: Batch, *_: Any, **__: Any) -> None:
        """Embed a batch of references."""
        with torch.no_grad():
            self._embeddings.append(self.model.encode_image(batch.image)[1:])

    def on_train_end(self) -> None:
        """Store the embeddings in the model."""
        self.model.remember(self._embeddings)


class OfflineAnomalyVfmModel(AnomalyVFMModel):
    """AnomalyVFM's model with random weights. `depth` is the number of RADIO's 24 blocks that it has."""

    def __init__(self, depth: int) -> None:
        nn.Module.__init__(self)
        self.precision = None
        self.model, radio = BaseModel.__new__(BaseModel), RADIOModel.__new__(RADIOModel)
        nn.Module.__init__(self.model)
        nn.Module.__init__(radio)
        radio.model, radio.input_conditioner = VisionTransformer(depth=depth), InputConditioner()
        radio.feature_normalizer = nn.Identity()
        radio.register_buffer("summary_idxs", torch.tensor([0, 1, 2]))
        self.model.net, self.model.feature_dim, self.model.patch_size = radio, radio.model.embed_dim, 16
        self.model.add_peft()
        self.decoder = SimpleDecoder(self.model.feature_dim, 1, 1)
        self.predictor = SimplePredictor(self.model.feature_dim * 3)
        self.mean_kernel = nn.AvgPool2d((5, 5), 1, 2)

    def forward(self, batch: torch.Tensor) -> InferenceBatch:
        """(N, 3, H, W) in 0..1 -> scores (N, 1) and maps (N, 1, H, W) in 0..1."""
        score, heat = super().forward(batch)
        return InferenceBatch(pred_score=score, anomaly_map=heat)


class OfflineAnomalyVfm(AnomalyVFM):
    """AnomalyVFM, which learns nothing from the images."""

    def __init__(self, model: OfflineAnomalyVfmModel) -> None:
        AnomalibModule.__init__(self, **bare())
        self.model = model

    def training_step(self, *_: Any, **__: Any) -> None:
        """Nothing to learn."""

    def configure_optimizers(self) -> None:
        """Nothing to learn."""
