"""Write the JSON Schemas of docs/reference/schemas; a test holds them to what the package reads.

python docs/scripts/schemas.py
"""

from __future__ import annotations

import json
from pathlib import Path

from fewshot_ad.benchmark.schemas import KINDS, Kind, schema

FOLDER = Path(__file__).resolve().parents[1] / "reference" / "schemas"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for kind in KINDS:
        (FOLDER / f"{kind}.json").write_text(text(kind), encoding="utf-8")


def text(kind: Kind) -> str:
    """A schema as it is committed."""
    return json.dumps(schema(kind), indent=2) + "\n"


if __name__ == "__main__":
    main()
