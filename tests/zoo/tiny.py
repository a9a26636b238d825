"""Settings with which each baseline fits and predicts in about a second on one core; others run as published."""

from __future__ import annotations

from typing import Any

TINY: dict[str, dict[str, Any]] = {
    "arnet": {"image_size": 64, "epochs": 1, "width": 4},
    "ast": {"image_size": 64, "hidden": 8, "width": 8, "residuals": 1, "steps": 2},
    "cutpaste": {"image_size": 64, "steps": 2, "batch_size": 2, "copies": 1, "head": [16]},
    "devnet": {"image_size": 64, "steps": 2, "batch_size": 4},
    "differnet": {"image_size": 64, "epochs": 1, "transforms": 3, "blocks": 2, "hidden": 32},
    "diffusionad": {"image_size": 32, "channels": 8, "steps": 2, "batch": 2},
    "dra": {"image_size": 64, "steps": 2, "batch_size": 4, "references": 2},
    "efficientad_cdo": {"image_size": 64, "steps": 2, "teacher_steps": 1, "teacher_batch": 2, "pictures": 2},
    "fastrecon": {"image_size": 64},
    "fcdd": {"image_size": 64, "width": 8, "steps": 2, "batch_size": 2},
    "fewshot_ad": {"image_size": 96, "views": "hflip", "budget": 200, "threads": 1},
    "intra": {"image_size": 64, "width": 32, "heads": 2, "blocks": 2, "window": 3, "steps": 2, "batch_size": 4},
    "memseg": {"image_size": 32, "steps": 2, "batch_size": 2},
    "mkd": {"image_size": 64, "width": 8, "steps": 5},
    "nsa": {"image_size": 64, "steps": 2, "batch_size": 2},
    "padim": {"image_size": 64, "dims": 20},
    "patch_svdd": {"image_size": 64, "dimensions": 8, "steps": 2, "batch_size": 2},
    "patchcore": {"image_size": 64},
    "pni": {"image_size": 64, "clusters": 16, "dims": 8, "hidden": 16, "epochs": 1},
    "rd_plus_plus": {"image_size": 64, "steps": 2},
    "regad": {"image_size": 64},
    "riad": {"image_size": 32, "width": 4, "steps": 2},
    "rkde": {"image_size": 96},
    "simplenet": {"image_size": 64, "epochs": 1, "hidden": 16},
    "softpatch": {"image_size": 64},
    "spade": {"image_size": 64},
    "tdg": {"image_size": 32, "coarsest": 16, "scales": 2, "channels": 8, "steps": 2, "transformations": 4},
    "uniad": {"image_size": 64, "neighbors": 3, "width": 32, "heads": 2, "layers": 2, "steps": 2, "batch_size": 2},
}
