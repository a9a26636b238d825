"""Where a distilled teacher is kept, so that it is distilled once for all products and not by each fit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import platformdirs
from torch import nn

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.pdn import PDN, load_teacher, save_teacher

# Names another folder than the system's for what may be made again.
VARIABLE = "FEWSHOT_AD_CACHE"


def kept_teacher_file(record: Mapping[str, Any], backbone: nn.Module) -> Path:
    """The file in which a teacher of these settings is kept when the user names none.

    Args:
        record: Settings of the distillation; JSON values.
        backbone: The network that it imitates; another one with the same name gets another file.

    Returns:
        A file in the folder that FEWSHOT_AD_CACHE names, else in that of the system for caches. It need not exist.
    """
    digest = hashlib.sha256(json.dumps(dict(record), sort_keys=True).encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    folder = os.environ.get(VARIABLE)
    root = Path(folder).expanduser() if folder else platformdirs.user_cache_path("fewshot_ad")
    return root / "teachers" / f"pdn_{str(record['size']).lower()}_{digest.hexdigest()[:16]}.safetensors"


def kept_or_distilled(path: Path, record: Mapping[str, Any], distilled: Callable[[], PDN]) -> PDN:
    """The teacher in a file of `kept_teacher_file`, or a new one, which is then kept there.

    A file that cannot be used is replaced; a folder that cannot be written costs a warning, not the teacher.

    Args:
        path: The file.
        record: Settings of the distillation.
        distilled: Makes the teacher.
    """
    if path.is_file():
        with contextlib.suppress(ZooError):
            return load_teacher(path, record)
    try:
        # Before hours of work, not after them.
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        warnings.warn(
            f"The teacher will not be kept, so that the next fit distills it again: {path.parent} cannot be written "
            f"({error.strerror}). Name a file with teacher=FILE, or a folder with the variable {VARIABLE}.",
            stacklevel=2,
        )
        return distilled()
    teacher = distilled()
    try:
        save_teacher(path, teacher, record)
    except ZooError as error:
        warnings.warn(f"The teacher is not kept, so that the next fit distills it again: {error}", stacklevel=2)
    return teacher
