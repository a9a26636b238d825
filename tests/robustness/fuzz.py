"""Coverage-guided fuzzing of one reader with atheris (`pip install atheris`); started by `benchmarks/robustness.py`.

python -m tests.robustness.fuzz images|artifacts CORPUS_FOLDER SECONDS SEED
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fewshot_ad"], enable_loader_override=False):
    from fewshot_ad import read_image
    from fewshot_ad.artifact import describe, read_artifact
    from fewshot_ad.errors import FewshotADError


def image(data: bytes) -> None:
    """Read an image; whatever is raised but the package's own error is a finding."""
    try:
        pixels = read_image(data)
    except FewshotADError:
        return
    if pixels.dtype != "uint8" or pixels.ndim != 3:
        raise AssertionError(f"{pixels.dtype} {pixels.shape}")


def artifact(data: bytes) -> None:
    """Read a product; likewise."""
    path = Path(tempfile.gettempdir()) / "fuzzed.fsad"
    path.write_bytes(data)
    try:
        describe(*read_artifact(path))
    except FewshotADError:
        return


def main() -> None:
    target, corpus, seconds, seed = sys.argv[1:]
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        "-rss_limit_mb=2048",
        "-timeout=10",
        "-max_len=65536",
        f"-artifact_prefix={corpus}/finding-",
    ]
    atheris.Setup([sys.argv[0], *options, corpus], image if target == "images" else artifact)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
