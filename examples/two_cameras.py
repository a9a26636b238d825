"""Two cameras that show two products, in one process: a thread each, and one encoder for both, until Ctrl-C.

python examples/two_cameras.py bracket.fsad 0 washer.fsad 1
python examples/two_cameras.py bracket.fsad left.avi washer.fsad right.avi    # video files end by themselves

The encoder is the large part of the memory, and takes all cores: the threads take turns at it.
"""

import argparse
import threading
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from fewshot_ad import ImageError, Inspector

PAUSE_S = 1.0


def watch(inspector: Inspector, source: str, stop: threading.Event, counts: Counter[str]) -> None:
    """Inspect what a camera (by number) or a video file shows, and count the verdicts."""
    is_camera = source.isdigit()
    while not stop.is_set():
        capture = cv2.VideoCapture(int(source) if is_camera else source)
        # A frame that waits in a buffer is old when it is inspected.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        came, frame = capture.read()
        while came and not stop.is_set():
            counts[verdict_on(frame, inspector, source)] += 1
            came, frame = capture.read()
        capture.release()
        if not is_camera:
            return
        if not stop.is_set():
            # Unplugged, or not there yet: the other camera goes on, and this one is opened again.
            print(f"{source}: no frame\n", end="", flush=True)
            stop.wait(PAUSE_S)


def verdict_on(frame: np.ndarray, inspector: Inspector, source: str) -> str:
    try:
        result = inspector.inspect(frame, color="bgr")
    except ImageError as error:
        print(f"{source}: {error}\n", end="", flush=True)
        return "unreadable"
    line = f"{source}: {result.product} {result.verdict}, severity {result.severity_text}"
    # In one piece with its end: the other thread prints, too.
    print(f"{line}\n", end="", flush=True)
    return result.verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for number in ("first", "second"):
        parser.add_argument(f"{number}_artifact", type=Path, help="a product's .fsad file")
        parser.add_argument(f"{number}_source", help="camera number or video file")
    args = parser.parse_args()
    first = Inspector.load(args.first_artifact)
    # In memory once, and compiled once; a product that was enrolled with another encoder is refused.
    second = Inspector.load(args.second_artifact, encoder=first.encoder)
    stop, counts = threading.Event(), (Counter[str](), Counter[str]())
    lanes = zip((first, second), (args.first_source, args.second_source), counts, strict=True)
    threads = [threading.Thread(target=watch, args=(one, source, stop, count)) for one, source, count in lanes]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        stop.set()
    for thread, source, count in zip(threads, (args.first_source, args.second_source), counts, strict=True):
        thread.join()
        print(f"{source}: {dict(sorted(count.items()))}")


if __name__ == "__main__":
    main()
