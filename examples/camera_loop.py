"""Inspect what a camera or a video file shows, frame by frame.

python examples/camera_loop.py bracket.fsad 0              # the first camera
python examples/camera_loop.py bracket.fsad line.avi --output rejects/
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fewshot_ad import Inspector


def frames(source: str, every: int) -> Iterator[np.ndarray]:
    """Every n-th frame of a camera (by number) or a video file, as BGR arrays."""
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise SystemExit(f"cannot open {source!r}: expected a camera number or a video file")
    try:
        number = 0
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            if number % every == 0:
                yield frame
            number += 1
    finally:
        capture.release()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="the product's .fsad file")
    parser.add_argument("source", help="camera number or video file")
    parser.add_argument("--every", type=int, default=1, help="inspect every n-th frame")
    parser.add_argument("--output", type=Path, help="write overlays of rejected frames here")
    args = parser.parse_args()

    inspector = Inspector.load(args.artifact)
    if args.every < 1:
        parser.error("--every must be at least 1")
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
    results = inspector.inspect_batch(frames(args.source, args.every), color="bgr")
    for number, result in zip(itertools.count(step=args.every), results, strict=False):
        print(f"frame {number}: {result.verdict}, severity {result.severity_text}, {result.timings_ms['total']:.1f} ms")
        if result.is_anomalous and args.output:
            overlay = cv2.cvtColor(result.overlay(bar=True), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(args.output / f"frame_{number:06d}.png"), overlay)


if __name__ == "__main__":
    main()
