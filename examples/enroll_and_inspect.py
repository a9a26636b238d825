"""Enroll a product from a folder of good images and inspect others; write overlays beside them.

python examples/enroll_and_inspect.py good/ line/ --output overlays/
"""

import argparse
from pathlib import Path

import cv2

from fewshot_ad import Inspector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("good", type=Path, help="folder of 2 to 8 good images")
    parser.add_argument("line", type=Path, help="folder of images to inspect")
    parser.add_argument("--output", type=Path, default=Path("overlays"))
    args = parser.parse_args()

    inspector = Inspector.from_support(args.good)
    for note in (*inspector.enrollment.notes, *inspector.enrollment.reasons):
        print(note)
    print(inspector.calibration.explain())
    args.output.mkdir(parents=True, exist_ok=True)
    inspector.save(args.output / f"{inspector.product}.fsad")

    for result in inspector.inspect_batch(args.line, errors="return"):
        if isinstance(result, Exception):
            print(f"not readable: {result}")
            continue
        boxes = [region.box for region in result.regions]
        print(f"{result.name}: {result.verdict}, severity {result.severity_text}, regions {boxes}")
        overlay = cv2.cvtColor(result.overlay(bar=True), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(args.output / f"{Path(result.name).stem}_overlay.png"), overlay)


if __name__ == "__main__":
    main()
