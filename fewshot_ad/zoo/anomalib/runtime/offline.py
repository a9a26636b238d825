"""anomalib's models whose constructors download a backbone, built here around one from disk.

Each class takes the place of one constructor of anomalib; all else is inherited.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from anomalib.models import Cfa, Csflow, Uflow
from anomalib.models.components import AnomalibModule
from anomalib.models.components.feature_extractors import TimmFeatureExtractor
from anomalib.models.image.cfa.anomaly_map import AnomalyMapGenerator as CfaMaps
from anomalib.models.image.cfa.loss import CfaLoss
from anomalib.models.image.cfa.torch_model import CfaModel, Descriptor
from anomalib.models.image.csflow.anomaly_map import AnomalyMapGenerator as CsflowMaps
from anomalib.models.image.csflow.loss import CsFlowLoss
from anomalib.models.image.csflow.torch_model import CrossScaleFlow, CsFlowModel
from anomalib.models.image.dfm.torch_model import SingleClassGaussian
from anomalib.models.image.foundad import FoundAD
from anomalib.models.image.foundad.components.cutpaste import CutPasteUnion
from anomalib.models.image.l2bt import L2BT
from anomalib.models.image.uflow.anomaly_map import AnomalyMapGenerator as UflowMaps
from anomalib.models.image.uflow.feature_extraction import CaitFeatureExtractor, LayerNormFeatureExtractor
from anomalib.models.image.uflow.loss import UFlowLoss
from anomalib.models.image.uflow.torch_model import UflowModel
from torch import nn
from torch.nn import functional

from fewshot_ad.zoo.anomalib.bare import bare

CSFLOW_CHANNELS = 304
CFA_LAYERS = ["layer1", "layer2", "layer3"]


class Gaussian(SingleClassGaussian):
    """DFM's Gaussian, fitted: anomalib asks torch for a mean in a way that torch does not know."""

    def fit(self, dataset: torch.Tensor) -> None:
        """Fit to points (features, samples)."""
        self.mean_vec = dataset.mean(1)
        centered = (dataset - self.mean_vec[:, None]) / dataset.shape[1] ** 0.5
        self.u_mat, self.sigma_mat, _ = torch.linalg.svd(centered, full_matrices=False)


class OfflineCfaModel(CfaModel):
    """CFA's model around a timm backbone. `family` is the name anomalib knows the channels by."""

    def __init__(
        self, network: str, family: str, gamma_c: int, gamma_d: int, neighbors: int, hard_negatives: int, radius: float
    ) -> None:
        nn.Module.__init__(self)
        self.gamma_c, self.gamma_d = gamma_c, gamma_d
        self.num_nearest_neighbors, self.num_hard_negative_features = neighbors, hard_negatives
        self.register_buffer("memory_bank", torch.tensor(0.0))
        self.backbone = family
        self.feature_extractor = TimmFeatureExtractor(network, CFA_LAYERS).eval()
        self.descriptor = Descriptor(gamma_d, family)
        self.radius = torch.ones(1, requires_grad=True) * radius
        self.anomaly_map_generator = CfaMaps(num_nearest_neighbors=neighbors)


class OfflineCfa(Cfa):
    """CFA."""

    def __init__(self, model: OfflineCfaModel, radius: float) -> None:
        AnomalibModule.__init__(self, **bare())
        self.model = model
        self.loss = CfaLoss(model.num_nearest_neighbors, model.num_hard_negative_features, radius)


class Scales(nn.Module):
    """CS-Flow's features: the last stage at three sizes of the image, the first 304 channels of it."""

    def __init__(self, network: str, stage: int, image_size: int) -> None:
        super().__init__()
        self.extractor = TimmFeatureExtractor(network, [stage])
        self._stage, self._size = stage, image_size

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, side, side) -> three (N, 304, side / 32 / 2**i, side / 32 / 2**i)."""
        sizes = [self._size // 2**i for i in range(3)]
        scaled = [batch, *(functional.interpolate(batch, size=(s, s)) for s in sizes[1:])]
        return [self.extractor(image)[self._stage][:, :CSFLOW_CHANNELS] for image in scaled]


class OfflineCsflow(Csflow):
    """CS-Flow."""

    def __init__(self, network: str, stage: int, image_size: int, hidden: int, blocks: int, clamp: float) -> None:
        AnomalibModule.__init__(self, **bare(image_size))
        model = CsFlowModel.__new__(CsFlowModel)
        nn.Module.__init__(model)
        model.input_dims = (3, image_size, image_size)
        model.feature_extractor = Scales(network, stage, image_size).eval().requires_grad_(False)
        model.graph = CrossScaleFlow(model.input_dims, blocks, clamp, hidden)
        model.anomaly_map_generator = CsflowMaps(model.input_dims)
        self.model = model
        self.loss = CsFlowLoss()


class OfflineUflowModel(UflowModel):
    """U-Flow's model around a timm backbone with stages of halving size, or two transformers, see `UflowCaits`."""

    def __init__(self, features: nn.Module, image_size: int, steps: int, clamp: float, ratio: float) -> None:
        nn.Module.__init__(self)
        self.input_size = (image_size, image_size)
        self.affine_clamp, self.affine_subnet_channels_ratio, self.permute_soft = clamp, ratio, False
        self.feature_extractor = features.eval()
        self.flow = self.build_flow(steps)
        self.anomaly_map_generator = UflowMaps(self.input_size)


class UflowStages(LayerNormFeatureExtractor):
    """Stages of a timm backbone, each half as large as the one before, normalized."""

    def __init__(self, network: str, stages: list[int], image_size: int) -> None:
        super().__init__(network, (image_size, image_size), tuple(stages))  # type: ignore[arg-type]

    def extract_features(self, img: torch.Tensor) -> Any:
        """(N, 3, S, S) -> the stages, (N, C, h, w) each."""
        return self.feature_extractor.eval()(img)


class UflowCaits(CaitFeatureExtractor):
    """Two CaiT transformers, one for the image and one for half of it, up to a block of each.

    Args:
        networks: Names in timm's registry, and the number of blocks that are computed, for the image and for half.
        image_size: Side of the image in pixels.

    Source: Tailanian et al. 2024, table 6: blocks 40 and 20, counted from 0.
    """

    def __init__(self, networks: tuple[tuple[str, int], tuple[str, int]], image_size: int) -> None:
        nn.Module.__init__(self)
        self.input_size = image_size
        self.scale_factors, self.scales = [16, 32], range(2)
        self.extractor1, self.extractor2 = (
            self._cut(name, blocks, side)
            for (name, blocks), side in zip(networks, (image_size, image_size // 2), strict=True)
        )
        self.channels = [int(self.extractor1.embed_dim), int(self.extractor2.embed_dim)]

    @staticmethod
    def _cut(network: str, blocks: int, side: int) -> Any:
        model: Any = timm.create_model(network, pretrained=True, num_classes=0, img_size=side)
        model.blocks = model.blocks[:blocks]
        # What would follow the blocks is not computed.
        model.blocks_token_only = nn.ModuleList()
        return model.requires_grad_(False).eval()

    def extract_features(self, img: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, S, S) -> the patches after the last block of each, (N, positions, channels)."""
        half = functional.interpolate(img, size=(self.input_size // 2,) * 2, mode="bicubic", align_corners=True)
        return self._after(self.extractor1.eval(), img), self._after(self.extractor2.eval(), half)

    @staticmethod
    def _after(model: Any, batch: torch.Tensor) -> torch.Tensor:
        patches = model.pos_drop(model.patch_embed(batch) + model.pos_embed)
        for block in model.blocks:
            patches = block(patches)
        return patches


class OfflineUflow(Uflow):
    """U-Flow."""

    def __init__(self, model: OfflineUflowModel) -> None:
        AnomalibModule.__init__(self, **bare(model.input_size[0]))
        self.model = model
        self.loss = UFlowLoss()


class OfflineL2BT(L2BT):
    """L2BT: one more argument, the transformer."""

    def __init__(self, network: str, layers: list[int], lr: float, topk_ratio: float) -> None:
        from anomalib.models.image.l2bt.anomaly_map import L2BTAnomalyMapGenerator
        from anomalib.models.image.l2bt.students import FeatureProjectionMLP
        from anomalib.models.image.l2bt.teacher import FeatureExtractor
        from anomalib.models.image.l2bt.torch_model import L2BTModel

        AnomalibModule.__init__(self, **bare())
        self.lr = lr
        teacher, model = FeatureExtractor.__new__(FeatureExtractor), L2BTModel.__new__(L2BTModel)
        nn.Module.__init__(teacher)
        nn.Module.__init__(model)
        teacher.layers = model.layers = layers
        teacher.fe = TimmFeatureExtractor(network, [f"blocks.{i}" for i in layers], output_fmt="NLC")
        teacher.patch_size, width = teacher.fe.patch_size, teacher.fe.out_dims[0]
        model.cos_sim = nn.CosineSimilarity(dim=-1, eps=1e-6)
        model.teacher = teacher.eval().requires_grad_(False)
        model.backward_net = FeatureProjectionMLP(in_features=width, out_features=width)
        model.forward_net = FeatureProjectionMLP(in_features=width, out_features=width)
        model.anomaly_map_generator = L2BTAnomalyMapGenerator(int(teacher.patch_size), topk_ratio=topk_ratio)
        self.model = model


class OfflineFoundAD(FoundAD):
    """FoundAD around any timm transformer."""

    def __init__(
        self, network: str, image_size: int, depth: int, width: int, layers: int, top_k: int, dropout: float, lr: float
    ) -> None:
        from anomalib.models.components import GaussianBlur2d
        from anomalib.models.image.foundad.components.augmentation import FewShotAugmentation
        from anomalib.models.image.foundad.components.encoder_loader import TimmDinoWrapper
        from anomalib.models.image.foundad.components.manifold_projector import ManifoldProjector
        from anomalib.models.image.foundad.torch_model import FoundADModel

        AnomalibModule.__init__(self, **bare())
        model = FoundADModel.__new__(FoundADModel)
        nn.Module.__init__(model)
        transformer = timm.create_model(network, pretrained=True, dynamic_img_size=True)
        model.n_layer, model.top_k, model.feat_normed = layers, top_k, False
        model.encoder = TimmDinoWrapper(transformer).requires_grad_(False)
        model.projector = ManifoldProjector(
            num_patches=(image_size // model.encoder.patch_size) ** 2,
            embed_dim=model.encoder.embed_dim,
            predictor_embed_dim=width,
            depth=depth,
            num_heads=transformer.blocks[0].attn.num_heads,
            use_pos_embed=False,
            feat_normed=False,
        )
        model.dropout = nn.Dropout(dropout)
        model.gaussian_blur = GaussianBlur2d(sigma=4.0, channels=1, kernel_size=5)
        self.model = model
        self.lr, self.weight_decay = lr, 1e-4
        self.cutpaste, self.few_shot_augment = CutPasteUnion(color_jitter=0.5), FewShotAugmentation()
