"""Settings with which each baseline fits and predicts in about a second on one core; others run as published."""

from __future__ import annotations

from typing import Any

TINY: dict[str, dict[str, Any]] = {
    "arnet": {"image_size": 64, "epochs": 1, "width": 4},
    "differnet": {"image_size": 64, "epochs": 1, "transforms": 3, "blocks": 2, "hidden": 32},
    "diffusionad": {"image_size": 32, "channels": 8, "steps": 2, "batch": 2},
    "efficientad_cdo": {"image_size": 64, "steps": 2, "teacher_steps": 1, "pictures": 2},
    "fewshot_ad": {"image_size": 96, "views": "hflip", "budget": 200, "threads": 1},
    "mkd": {"image_size": 64, "width": 8, "steps": 5},
    "padim": {"image_size": 64, "dims": 20},
    "patchcore": {"image_size": 64},
    "regad": {"image_size": 64},
    "rkde": {"image_size": 96},
    "spade": {"image_size": 64},
    "tdg": {"image_size": 32, "coarsest": 16, "scales": 2, "channels": 8, "steps": 2, "transformations": 4},
}
