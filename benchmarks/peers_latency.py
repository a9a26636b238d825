"""One inspection of ours next to the peers': same images, same threads, each in a process of its own, warmed up.

From a decoded 1024 x 1024 array to score and full-size map, working scale 256 (252 for AnomalyDINO's patches of 14).
Times only: anomalib's PatchCore has our encoder's initialization and 4,000 rows, the others' networks have random
weights, which compute just as long. Medians and 95th percentiles of 100.

    python benchmarks/peers_latency.py
    python benchmarks/peers_latency.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import measured_tables
import measurements
import numpy as np
from latency import VIEWS, images, peer_patchcore, timed

from fewshot_ad.benchmark.machine import peak_megabytes

REPEATS = 100


def ours(settings: dict[str, Any]) -> Callable[[np.ndarray[Any, Any]], Any]:
    from fewshot_ad import Inspector

    inspector = Inspector.from_support(images(9)[:8], views=VIEWS, image_size=256, **settings)
    return lambda image: inspector.inspect(image).anomaly_map


def _with_map(model: Any, side: int) -> Callable[[np.ndarray[Any, Any]], Any]:
    import torch
    from torchvision.transforms.v2.functional import resize

    model.eval()

    def inspect(image: np.ndarray[Any, Any]) -> Any:
        with torch.inference_mode():
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            heat = model(resize(pixels, [side, side], antialias=True)).anomaly_map
            return torch.nn.functional.interpolate(heat, size=image.shape[:2], mode="bilinear")

    return inspect


def patchcore() -> Callable[[np.ndarray[Any, Any]], Any]:
    return peer_patchcore(images(9)[:8], coreset=False)[0]


def padim() -> Callable[[np.ndarray[Any, Any]], Any]:
    import torch
    from anomalib.models.image.padim.torch_model import PadimModel

    model = PadimModel(pre_trained=False)
    model.train()
    with torch.inference_mode():
        model(torch.rand(16, 3, 256, 256))
        model.fit()
    return _with_map(model, 256)


def efficient_ad() -> Callable[[np.ndarray[Any, Any]], Any]:
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel

    return _with_map(EfficientAdModel(), 256)


def anomaly_dino() -> Callable[[np.ndarray[Any, Any]], Any]:
    import torch
    from anomalib.models.image.anomaly_dino import torch_model

    torch_model.TimmFeatureExtractor = _without_weights(torch_model.TimmFeatureExtractor)
    model = torch_model.AnomalyDINOModel()
    model.train()
    with torch.inference_mode():
        for _ in range(8):
            model(torch.rand(1, 3, 252, 252))
        model.fit()
    return _with_map(model, 252)


def _without_weights(extractor: Any) -> Any:
    @functools.wraps(extractor)
    def make(*args: Any, **kwargs: Any) -> Any:
        return extractor(*args, **{**kwargs, "pre_trained": False})

    return make


METHODS: dict[str, Callable[[], Callable[[np.ndarray[Any, Any]], Any]]] = {
    "fewshot_ad": lambda: ours({}),
    "fewshot_ad, bank 4,000": lambda: ours({"budget": 4000}),
    "fewshot_ad, preset fast": lambda: ours({"preset": "fast"}),
    "anomalib PatchCore (lite0, bank 4,000)": patchcore,
    "anomalib PaDiM (resnet18)": padim,
    "anomalib EfficientAD-S": efficient_ad,
    "anomalib AnomalyDINO (ViT-S/14)": anomaly_dino,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    measurements.add_record_option(parser)
    args = parser.parse_args()
    if args.method:
        inspect, query = METHODS[args.method](), images(9)[8]
        figures = timed(lambda: inspect(query), REPEATS) | {"megabytes": peak_megabytes()}
        print(json.dumps(figures))
        return
    rows = []
    for name in METHODS:
        run = subprocess.run([sys.executable, __file__, "--method", name], capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"{name} left out: {run.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        rows.append({"method": name, **json.loads(run.stdout.splitlines()[-1])})
    measured_tables.finish("peers_latency", rows, args.record)


if __name__ == "__main__":
    main()
