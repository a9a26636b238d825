"""Which method suits my part? Fit some baselines of the zoo on a few good images, and rank labeled ones.

    python examples/compare_methods.py GOOD GOOD_TEST BAD_TEST [METHOD ...]    # extra `zoo`

GOOD, GOOD_TEST and BAD_TEST are folders. For figures over many products, shots and draws, use `fewshot-ad benchmark`.
"""

from __future__ import annotations

import sys
import time

from fewshot_ad import list_images, metrics, read_image, zoo


def main() -> None:
    good, good_test, bad_test = ([read_image(path) for path in list_images(folder)] for folder in sys.argv[1:4])
    labels = [0] * len(good_test) + [1] * len(bad_test)
    for name in sys.argv[4:] or ["fewshot_ad", "patchcore", "padim"]:
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
    main()
