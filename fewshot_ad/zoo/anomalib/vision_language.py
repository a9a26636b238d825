"""anomalib's methods on foundation models that judge unseen products: WinCLIP and AnomalyVFM.

Their weights do not come with the package: weights=FILE takes the papers', and weights='random' runs the code only.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.anomalib.adapter import AnomalibMethod, Schedule, card
from fewshot_ad.zoo.components.tensors import missing_tensors, seeded
from fewshot_ad.zoo.method import Method, baseline

RADIO_BLOCKS = 24
_RADIO_PATCH = 16
_VOCABULARY, _CONTEXT = 49408, 77


@baseline(
    card(
        "winclip",
        "WinCLIP+",
        "Jeong et al. 2023, WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR",
        2023,
        "vision-language",
        "Not at hand: weights=FILE takes the paper's OpenCLIP ViT-B/16+ at 240 pixels, laion400m_e31; "
        "weights='random' runs the code only. class_name= names the product.",
        trains=False,
        zero_shot=True,
        pretrained="OpenCLIP, LAION-400M",
        at_hand="not at hand",
        departs=("resized by area or bilinearly, not bicubically",),
    )
)
def winclip(
    *,
    seed: int = 0,
    image_size: int = 240,
    backbone: str = "ViT-B-16-plus-240",
    weights: str | None = None,
    class_name: str = "object",
    scales: tuple[int, int] = (2, 3),
    batch_size: int = 4,
) -> Method:
    """WinCLIP+ with every image as a reference. Source: Jeong et al. 2023, section 4: windows of 2 and 3 patches.

    Images are resized by area or bilinearly, not bicubically. `backbone` is one of open_clip's names.
    """
    name = "anomalib_winclip"
    if importlib.util.find_spec("open_clip") is None:
        raise ZooError(f"{name} runs open_clip's CLIP, which is not installed: pip install 'fewshot-ad[zoo]'.")
    if not class_name.strip():
        raise ZooError(f"{name}: expected class_name to say what the product is, got {class_name!r}. Try 'object'.")
    if len(scales) != 2 or min(scales) < 1:
        raise ZooError(f"{name}: expected scales to be two sides of windows in patches, got {scales}. Try (2, 3).")
    patch = _patch_size(name, backbone)
    if image_size % patch or image_size // patch < max(scales):
        needed = f"a multiple of the patch of {patch} and at least {patch * max(scales)}"
        raise ZooError(f"{name}: expected image_size to be {needed}, got {image_size}.")
    checked = _check_file(name, weights)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.vision_language import OfflineWinClip, OfflineWinClipModel

        clip = _clip(name, backbone, image_size, checked, seed)
        model = OfflineWinClipModel(clip, class_name, (scales[0], scales[1]))
        return OfflineWinClip(model, class_name)

    schedule = Schedule(image_size, batch_size=batch_size, standardized=False)
    return AnomalibMethod(name, build, schedule, seed, zero_shot=True, numbers=("k_shot",))


@baseline(
    replace(
        card(
            "vfm",
            "AnomalyVFM",
            "Fučka et al. 2026, AnomalyVFM: Transforming Vision Foundation Models into Zero-Shot Anomaly Detectors, "
            "CVPR",
            2026,
            "synthetic anomalies",
            "Not at hand: weights=FILE takes the paper's RADIO ViT-L/16 with its adapters, trained on generated "
            "anomalies (anomalyvfm_radio, model.safetensors); weights='random' runs the code only.",
            trains=False,
            zero_shot=True,
            pretrained="RADIO with trained adapters",
            at_hand="not at hand",
        ),
        supervision="none",
    )
)
def vfm(*, seed: int = 0, image_size: int = 768, weights: str | None = None, depth: int = RADIO_BLOCKS) -> Method:
    """AnomalyVFM with anomalib's 768 pixels. The images of good parts change nothing: it is zero-shot."""
    name = "anomalib_vfm"
    if image_size % _RADIO_PATCH:
        raise ZooError(f"{name}: expected an image_size that the patch of {_RADIO_PATCH} divides, got {image_size}.")
    if not 1 <= depth <= RADIO_BLOCKS:
        raise ZooError(f"{name}: expected depth to be 1 to {RADIO_BLOCKS} blocks, got {depth}.")
    checked = _check_file(name, weights)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.pretraining import load
        from fewshot_ad.zoo.anomalib.runtime.vision_language import OfflineAnomalyVfm, OfflineAnomalyVfmModel

        # Seeded here: the imports above draw random numbers the first time.
        with seeded(seed):
            model = OfflineAnomalyVfmModel(depth)
        if checked != "random":
            load(model, checked)
        return OfflineAnomalyVfm(model)

    return AnomalibMethod(name, build, Schedule(image_size, standardized=False), seed, zero_shot=True)


def _check_file(name: str, weights: str | None) -> str:
    """The weights, if they are `random` or a file.

    Raises:
        WeightsError: They are neither.
    """
    if weights is None:
        raise WeightsError(
            f"{name}: expected weights, which are not at hand. Give weights=FILE; weights='random' runs the code, but "
            "its figures mean nothing."
        )
    if weights != "random" and not Path(weights).is_file():
        raise WeightsError(f"{name}: expected weights='random' or a file, but {weights} is none. Check the path.")
    return weights


def _patch_size(name: str, backbone: str) -> int:
    """Side in pixels of a patch of one of open_clip's models.

    Raises:
        ZooError: The windows of WinCLIP cannot be cut from it, or its text does not go with CLIP's own tokenizer, which
            comes with open_clip.
    """
    import open_clip  # type: ignore[import-not-found,import-untyped]

    # Only names of the list: others may be fetched.
    config = open_clip.get_model_config(backbone) if backbone in open_clip.list_models() else {}
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    plain = set(config) <= {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
    known_text = (text.get("vocab_size"), text.get("context_length")) == (_VOCABULARY, _CONTEXT)
    if not (plain and known_text and isinstance(vision.get("layers"), int) and "patch_size" in vision):
        raise ZooError(
            f"{name}: expected one of open_clip's CLIPs with a plain vision transformer, such as ViT-B-16-plus-240, "
            f"ViT-B-16 or ViT-S-16, got {backbone!r}."
        )
    return int(vision["patch_size"])


def _clip(name: str, backbone: str, image_size: int, weights: str, seed: int) -> Any:
    """One of open_clip's models with random weights or those of a file, without a download."""
    import open_clip
    from open_clip.model import resize_pos_embed  # type: ignore[import-not-found,import-untyped]

    with seeded(seed):
        clip = open_clip.create_model(backbone, pretrained=None, force_image_size=image_size)
    if not getattr(clip.visual.transformer, "batch_first", False):
        raise ZooError(f"{name}: expected open_clip_torch of at least 3.0: pip install -U 'fewshot-ad[zoo]'.")
    if weights != "random":
        state = {k.removeprefix("module."): v for k, v in read_state_dict(weights).items()}
        if clip.state_dict().keys() <= state.keys():
            resize_pos_embed(state, clip)
        missing = missing_tensors(clip, state)
        if missing:
            raise WeightsError(
                f"{weights} is not of {backbone}: {len(missing)} tensors are absent or of another shape, first "
                f"{missing[0]}. Give backbone= the name of the CLIP that the file is of."
            )
        clip.load_state_dict({key: state[key] for key in clip.state_dict()})
    return clip
