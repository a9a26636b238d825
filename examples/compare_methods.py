"""Which method suits my part? Fit some baselines of the zoo on a few good images, and rank labeled ones (extra `zoo`).

python examples/compare_methods.py good/ test/good/ test/bad/ fewshot_ad patchcore

For figures over many products, shots and draws, use `fewshot-ad benchmark`.
"""

import argparse
import sys
import time
from pathlib import Path

from fewshot_ad import FewshotADError, list_images, metrics, read_image

METHODS = ["fewshot_ad", "patchcore", "padim"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("good", type=Path, help="folder of good images to learn from")
    parser.add_argument("good_test", type=Path, help="folder of other good images")
    parser.add_argument("bad_test", type=Path, help="folder of defective images")
    methods = "baselines, see `fewshot-ad zoo`; default: " + " ".join(METHODS)
    parser.add_argument("methods", nargs="*", default=METHODS, metavar="method", help=methods)
    args = parser.parse_args()
    # Not at the top: without the extra 'zoo' this import says what to install, while --help works.
    from fewshot_ad import zoo

    folders = (args.good, args.good_test, args.bad_test)
    good, good_test, bad_test = ([read_image(path) for path in list_images(folder)] for folder in folders)
    labels = [0] * len(good_test) + [1] * len(bad_test)
    for name in args.methods:
        method = zoo.create(name)
        start = time.perf_counter()
        method.fit(good)
        fit_end = time.perf_counter()
        predictions = method.predict([*good_test, *bad_test])
        milliseconds = (time.perf_counter() - fit_end) / len(labels) * 1e3
        print(
            f"{name:24} image AUROC {metrics.auroc(labels, predictions.scores):.3f}  fit {fit_end - start:.1f} s  "
            f"{milliseconds:.0f} ms per image  {method.model_bytes() / 1e6:.1f} MB"
        )


if __name__ == "__main__":
    try:
        main()
    except FewshotADError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
