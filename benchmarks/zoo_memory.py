"""Memory that the fit of each method of the zoo takes, by which `fit` refuses one that would not fit.

Two gradient steps at the default image size and batch, and two at half the side, on eight generated images, each in a
process of its own: what its peak lies above what the process took before. From the two: what does not grow with the
image (networks, optimizer), and what does.

python benchmarks/zoo_memory.py [METHOD ...]            # print
python benchmarks/zoo_memory.py [METHOD ...] --write    # and put them into fewshot_ad/zoo/fit_memory.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "fewshot_ad" / "zoo" / "fit_memory.json"
IMAGES, LABELED, SIDE = 8, 4, 512
LENGTHS = {"epochs": 2, "steps": 2, "teacher_steps": 2, "latent_steps": 2}
COUNTS = {"pictures": 8, "penalty_images": 8, "textures": 8}
TIMEOUT_S = 900
# They estimate it themselves, by further options, or have none.
LEFT_OUT = ("diffusionad", "anomalib_vlm_ad")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="Names of baselines. Default: all that train.")
    parser.add_argument("--write", action="store_true", help="Put the figures where the package reads them.")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print(json.dumps(measured(args.methods[0], args.child)))
        return
    from fewshot_ad.zoo import cards

    known = json.loads(FILE.read_text()) if FILE.is_file() else {}
    for name in args.methods or [n for n, card in cards().items() if card.trains and n not in LEFT_OUT]:
        whole, half = (in_child(name, share) for share in (1.0, 0.5))
        if whole is None:
            print(f"{name}: not measured", flush=True)
            continue
        found = divided(whole, half)
        print(f"{name}: {found}", flush=True)
        known[name] = found
        if args.write:
            FILE.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def in_child(name: str, share: float) -> dict[str, Any] | None:
    """What a process of its own measures; None where the method cannot be fitted so."""
    command = [sys.executable, __file__, name, "--child", str(share)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        print(f"{name}: more than {TIMEOUT_S} s", file=sys.stderr)
        return None
    if done.returncode:
        print(f"{name} at {share}: {(done.stderr.strip() or 'killed').splitlines()[-1][:300]}", file=sys.stderr)
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


def divided(whole: dict[str, Any], half: dict[str, Any] | None) -> dict[str, Any]:
    """Megabytes that do not grow with the image, and those of the batch at the default size.

    Where only the default size could be measured, half of it is taken to grow.
    """
    smaller = half["megabytes"] if half is not None else whole["megabytes"] * 0.625
    # Side s and s / 2: fixed + grows, and fixed + grows / 4.
    growing = min(max(0.0, (whole["megabytes"] - smaller) * 4 / 3), whole["megabytes"])
    return {
        "fixed_mb": round(whole["megabytes"] - growing),
        "step_mb": round(growing),
        "image_size": whole["image_size"],
        "batch": whole["batch"],
    }


def measured(name: str, share: float) -> dict[str, Any]:
    """Fit for two steps, and say what that took."""
    import numpy as np
    import torch

    from fewshot_ad.benchmark.machine import forget_peak, peak_megabytes
    from fewshot_ad.training.parts import CATEGORIES, render
    from fewshot_ad.zoo import Labeled, cards, create, options
    from fewshot_ad.zoo.components.colored_points import colored_points
    from fewshot_ad.zoo.configuration import NOT_AT_HAND
    from fewshot_ad.zoo.fit_memory import batch_of
    from fewshot_ad.zoo.method import WEIGHTS

    torch.set_num_threads(1)
    known, card = options(name), cards()[name]
    settings: dict[str, Any] = {key: value for key, value in {**LENGTHS, **COUNTS}.items() if key in known}
    # -1 and None stand for no limit, where epochs are counted.
    if "epochs" in known and "steps" in known:
        settings.pop("steps" if known["steps"] in (None, -1) else "epochs")
    if card.original.at_hand == NOT_AT_HAND or card.family == "detector":
        settings |= {option: "random" for option in WEIGHTS if option in known}
    if share < 1:
        # Of the patches of transformers, or of the strides of the others.
        unit = 32 if known["image_size"] % 32 == 0 else 14
        settings["image_size"] = int(known["image_size"] * share) // unit * unit
    names = list(CATEGORIES)
    good: list[Any] = [render(names[0], seed, SIDE) for seed in range(IMAGES)]
    labeled = []
    for seed in range(LABELED):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[200:280, 200:280] = True
        labeled.append(Labeled(np.where(mask[..., None], 255 - good[seed], good[seed]).astype(np.uint8), mask))
    if card.needs_points:
        y, x = np.mgrid[:SIDE, :SIDE] / SIDE
        good = [colored_points(one, np.stack([x, y, one.mean(2) / 255], 2).astype(np.float32)) for one in good]
    method = create(name, **settings)
    # Where memory runs out, this process is the one to be ended.
    Path("/proc/self/oom_score_adj").write_text("1000")
    forget_peak()
    before = peak_megabytes() or 0.0
    method.fit(good, labeled if card.supervision == "labeled defects" else ())
    taken = (peak_megabytes() or 0.0) - before
    return {"megabytes": taken, "image_size": known["image_size"], "batch": batch_of(name, {}, IMAGES)}


if __name__ == "__main__":
    main()
