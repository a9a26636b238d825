"""Cases of `watch` for its own test: the third one crashes."""

from __future__ import annotations

import os
import signal
from typing import Any


def case(seed: int, number: int) -> dict[str, Any]:
    """Crash or hold."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"outcome": "held"}
