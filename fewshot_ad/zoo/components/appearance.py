"""Appearance augmentation of EfficientAD + CDO: one of color, sharpness and gamma, changed a little.

Source: Batzner, Heckler & König 2024 (EfficientAD, WACV), section 3.3, for color and its strength. Sharpness and gamma
are those of EfficientAD + CDO, whose strengths are not stated: they get the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.transforms import functional as F  # noqa: N812 - its own convention

KINDS = ("color", "sharpness", "gamma")
STRENGTH = (0.8, 1.2)
_COLOR = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)


def relit(batch: torch.Tensor, kinds: Sequence[str], rng: np.random.Generator) -> torch.Tensor:
    """A batch (N, 3, H, W) in 0..1, changed by one kind of several; of none, the batch itself.

    Args:
        batch: Images.
        kinds: Of `KINDS`; color is brightness, contrast or saturation.
        rng: Source of the choice and its strength, 0.8 to 1.2.
    """
    if not kinds:
        return batch
    kind, strength = kinds[int(rng.integers(len(kinds)))], float(rng.uniform(*STRENGTH))
    if kind == "sharpness":
        return F.adjust_sharpness(batch, strength)
    if kind == "gamma":
        return F.adjust_gamma(batch, strength)
    return _COLOR[int(rng.integers(len(_COLOR)))](batch, strength)
