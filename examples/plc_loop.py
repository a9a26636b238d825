"""A cell with a PLC: wait for its trigger, take an image, inspect it, set outputs; until SIGTERM or Ctrl-C.

python examples/plc_loop.py bracket.fsad camera/ signals/

Two folders stand in for hardware: images in `camera/`, and empty files in `signals/` for inputs and outputs. The PLC
sets `trigger` while `ready` is set, waits for `good` or `reject`, and takes `trigger` away; all else, and no answer in
time, is a reject. `fewshot-ad serve` does the same over Modbus TCP.
"""

import argparse
import signal
import threading
from collections import Counter
from pathlib import Path

from fewshot_ad import Inspector, list_images


class Signals:
    """Stands in for the inputs and outputs of a PLC."""

    def __init__(self, folder: Path, stop: threading.Event) -> None:
        self._folder, self._stop = folder, stop

    def wait(self, trigger: bool) -> bool:
        """Wait until the trigger is set, or no longer set; False where the program is to end before."""
        while (self._folder / "trigger").exists() is not trigger:
            if self._stop.wait(0.005):
                return False
        return True

    def set(self, output: str = "") -> None:
        """Set one of the outputs, after all others have gone off."""
        for name in {"good", "reject", "busy", "ready"} - {output}:
            (self._folder / name).unlink(missing_ok=True)
        if output:
            (self._folder / output).touch()


def may_pass(inspector: Inspector, camera: list[Path]) -> bool:
    """Whether the part is good. Whatever goes wrong, it is not: a part that nobody has seen must not pass."""
    try:
        result = inspector.inspect(camera.pop(0))  # of a real camera: its next frame
    except Exception as error:  # and its driver may raise anything
        print(f"reject: no verdict: {error}", flush=True)
        return False
    print(f"{result.verdict}: severity {result.severity_text} {result.reason}".rstrip(), flush=True)
    # Not `not result.is_anomalous`: a part with the verdict `review` may not pass either, where nobody looks at it.
    return result.verdict == "good"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("artifact", "camera", "signals"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    stop, counts = threading.Event(), Counter[str]()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    inspector, camera, signals = Inspector.load(args.artifact), list_images(args.camera), Signals(args.signals, stop)
    inspector.warm_up()  # or the first part would wait longer than the others
    while not stop.is_set():
        try:
            # A trigger that is still there is of the last part.
            if signals.wait(trigger=False):
                signals.set("ready")
                if signals.wait(trigger=True):
                    signals.set("busy")
                    verdict = "good" if may_pass(inspector, camera) else "reject"
                    counts[verdict] += 1
                    signals.set(verdict)
        except OSError as error:  # of inputs and outputs: the PLC waits in vain, and rejects
            print(f"signals: {error}", flush=True)
            stop.wait(0.1)
    signals.set()
    print(f"{counts['good']} good, {counts['reject']} rejected")


if __name__ == "__main__":
    main()
