"""Files of tensors -> state dicts; nothing in a file is executed. Needs the extra `torch`."""

from __future__ import annotations

from pathlib import Path

import torch

from fewshot_ad.encoder.weights import check_weights_file
from fewshot_ad.errors import WeightsError


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a `.safetensors` file or a `.pth` state dict; nothing in the file is executed.

    Raises:
        WeightsError: The file is missing, damaged, or holds anything but tensors.
    """
    path = Path(path)
    check_weights_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Only the class: torch's own words advise to run what is in the file.
        raise WeightsError(
            f"{path}: expected a .safetensors file or a .pth state dict of plain tensors, got something else "
            f"({type(error).__name__}). Save model.state_dict() as safetensors."
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{path}: expected a state dict of tensors, got {type(state).__name__}.")
    return state
