"""What may be the name of a timm model, and which encoder was probably meant by one that is not."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fewshot_ad.documents.naming import nearest
from fewshot_ad.encoder.dinov2 import DINOV2
from fewshot_ad.encoder.weights import DEFAULT_ENCODER, shipped_encoders
from fewshot_ad.errors import WeightsError


def is_timm_name(name: str) -> bool:
    """Whether a name has the form of a model in timm itself, and not of a path, an address or a repository."""
    return re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_-]+)?", name) is not None


def check_timm_name(name: str, allow_download: bool) -> None:
    """Refuse what cannot be a timm model, before timm hears of it: it looks for some names on the hub or on the disk.

    Raises:
        WeightsError: The message names the encoder that was probably meant.
    """
    if name.startswith(("hf-hub:", "hf_hub:")) and allow_download:
        return
    shipped = [*shipped_encoders(), DINOV2]
    if not is_timm_name(name):
        raise WeightsError(
            f"expected a shipped encoder ({', '.join(shipped)}), a card (.json) or the name of a timm model, got "
            f"{name!r}.{_guess(name, shipped)} A model of the hub (hf-hub:...) needs allow_download=True "
            "(--allow-download); local weights go with the name of their timm model: weights=FILE (--weights FILE)."
        )
    try:
        import timm
    except ImportError:
        raise _no_timm(name, shipped) from None
    if not timm.is_model(name):
        raise WeightsError(
            f"expected an encoder that ships with fewshot_ad or a timm model with features_only, got {name!r}."
            f'{_guess(name, shipped) or _guess(name, timm.list_models())} `python -c "import timm; '
            "print(timm.list_models('*resnet*'))\"` lists names."
        )


def _no_timm(name: str, shipped: Iterable[str]) -> WeightsError:
    guess = _guess(name, shipped)
    # The shipped encoders are named after timm's models: a beginning of such a name is one of those, not a slip.
    if guess and not any(other.startswith(name) for other in shipped):
        return WeightsError(f"expected a shipped encoder ({', '.join(shipped)}), got {name!r}.{guess}")
    return WeightsError(
        f"{name!r} is not among the shipped encoders ({', '.join(shipped)}).{guess} If it is a timm model, it needs "
        f"the extra 'torch': pip install 'fewshot-ad[torch]'. Without torch, use encoder={DEFAULT_ENCODER!r}."
    )


def _guess(name: str, names: Iterable[str]) -> str:
    likely = nearest(name, names)
    return f" Did you mean {likely!r}?" if likely else ""
