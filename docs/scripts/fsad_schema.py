"""Write docs/reference/schemas/fsad.json: the JSON Schema of the description inside a .fsad file.

python docs/scripts/fsad_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path

from fewshot_ad.artifact.forms import Description

OUTPUT = Path(__file__).resolve().parents[1] / "reference" / "schemas" / "fsad.json"


def schema() -> str:
    """The schema as it stands in the file."""
    return json.dumps(Description.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(schema(), encoding="utf-8")
