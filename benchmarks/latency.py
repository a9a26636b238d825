"""How long enrollment and an inspection take, by stage, next to anomalib's PatchCore on the same features.

Images are 1024 x 1024 arrays in memory, cut from scikit-image's `brick` (extra `bench` installs it and anomalib;
without anomalib the peer's rows are left out). Both sides use EfficientNet-Lite0 at strides 8 and 16 on 256 x 256, and
all processor threads; each runs in a process of its own, warmed up. Medians and 95th percentiles of 200.

    python benchmarks/latency.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

REPEATS = 200
VIEWS = "hflip,vflip,rotate=45/90/135/180/270"


def stream(count: int) -> Iterator[np.ndarray[Any, Any]]:
    """Crops of a real image, enlarged to (1024, 1024, 3) uint8, one at a time."""
    from skimage import data

    brick = data.brick()
    rng = np.random.default_rng(0)
    for _ in range(count):
        y, x = rng.integers(0, 512 - 256, 2)
        crop = cv2.resize(brick[y : y + 256, x : x + 256], (1024, 1024), interpolation=cv2.INTER_CUBIC)
        yield cv2.cvtColor(crop, cv2.COLOR_GRAY2RGB)


def images(count: int) -> list[np.ndarray[Any, Any]]:
    """The first of `stream`."""
    return list(stream(count))


def pool(pictures: list[np.ndarray[Any, Any]], encoder: Any) -> np.ndarray[Any, Any]:
    """The patch embeddings of all views, the same for both sides."""
    from fewshot_ad.enrollment.embedding import embed_support
    from fewshot_ad.enrollment.support import parse_views, read_support
    from fewshot_ad.scoring import ScoringConfig

    images = read_support(pictures).images
    return embed_support(images, parse_views(VIEWS), 256, encoder, ScoringConfig(), 0).pools[0].vectors


def peak_megabytes() -> float:
    """Peak resident memory of this process; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1024)


def timed(call: Callable[[], Any], repeats: int = REPEATS) -> dict[str, float]:
    """p50 and p95 in milliseconds, after a warm-up."""
    for _ in range(20):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return {"p50": float(np.percentile(times, 50)), "p95": float(np.percentile(times, 95))}


def ours() -> dict[str, Any]:
    """This package: enrollment and inspection."""
    from fewshot_ad import Inspector, load_encoder
    from fewshot_ad.search.memory_bank import greedy_coreset

    pictures = images(9)
    encoder = load_encoder()
    encoder.encode(np.zeros((256, 256, 3), np.uint8))
    rows: dict[str, Any] = {}
    start = time.perf_counter()
    large = Inspector.from_support(pictures[:8], encoder=encoder, views=VIEWS, image_size=256, budget=4000)
    rows["enroll 8 images x 8 views at 256, bank 4000 (s)"] = time.perf_counter() - start
    start = time.perf_counter()
    large.add([pictures[8]])
    rows["add 1 image to it (s)"] = time.perf_counter() - start
    start = time.perf_counter()
    inspector = Inspector.from_support(pictures[:8], encoder=encoder, views=VIEWS, image_size=256)
    rows["enroll 8 images x 8 views at 256, bank 2000 (s)"] = time.perf_counter() - start
    start = time.perf_counter()
    Inspector.from_support(pictures[:8], encoder=encoder)
    rows["enroll 8 images, views and size auto (s)"] = time.perf_counter() - start
    embeddings = pool(pictures[:8], encoder)
    start = time.perf_counter()
    greedy_coreset(embeddings, 4000)
    rows[f"coreset, {len(embeddings)} patches to 4000 (s)"] = time.perf_counter() - start
    query = pictures[8]
    rows["inspect"] = timed(lambda: inspector.inspect(query).anomaly_map)
    rows["inspect, map not read"] = timed(lambda: inspector.inspect(query))
    rows["inspect, bank 4000"] = timed(lambda: large.inspect(query).anomaly_map)
    fast = Inspector.from_support(pictures[:8], preset="fast")
    rows["inspect, preset fast"] = timed(lambda: fast.inspect(query).anomaly_map)
    timings = [inspector.inspect(query).timings_ms for _ in range(REPEATS)]
    for stage in ("resize", "encode", "search", "map"):
        values = [t[stage] for t in timings]
        rows[f"  {stage}"] = {"p50": float(np.percentile(values, 50)), "p95": float(np.percentile(values, 95))}
    small = np.ascontiguousarray(cv2.resize(query, (256, 256), interpolation=cv2.INTER_AREA))
    rows["bare encoder (OpenVINO, float32)"] = timed(lambda: encoder.encode(small))
    rows["bare encoder, preset fast"] = timed(lambda: fast.encoder.encode(small))
    for name, product in (("", inspector), (", preset fast", fast)):
        start = time.perf_counter()
        count = sum(1 for _ in product.inspect_batch([query] * 400))
        rows[f"inspect_batch from memory{name} (images/s)"] = count / (time.perf_counter() - start)
    rows["peak memory (MB)"] = peak_megabytes()
    return rows


def peer_patchcore(
    pictures: list[np.ndarray[Any, Any]], coreset: bool = True
) -> tuple[Callable[[Any], Any], dict[str, Any], Any, Any]:
    """Anomalib's PatchCore with the same backbone, weights and number of bank vectors.

    Args:
        pictures: The support set.
        coreset: Whether to choose the vectors as it does; the first ones take as long to search.

    Returns:
        Inspection of an image; the time of enrollment; preparation of an image; the model.
    """
    import timm
    import torch
    from anomalib.models.components import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from torchvision.transforms.v2.functional import resize

    from fewshot_ad import load_encoder
    from fewshot_ad.encoder.pyramid import lite0_weights_file, read_state_dict

    model = PatchcoreModel(layers=["blocks.2", "blocks.4"], backbone="tf_efficientnet_lite0", pre_trained=False)
    extractor = model.feature_extractor.feature_extractor
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    state = dict(zip(names, read_state_dict(lite0_weights_file()).values(), strict=True))
    extractor.load_state_dict({name: state[name] for name in extractor.state_dict()})

    def load(picture: np.ndarray[Any, Any]) -> torch.Tensor:
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        return (resize(pixels, [256, 256], antialias=True) - 0.5) / 0.5

    # The initialization's patches: as many, and of as many dimensions, as ours.
    embeddings = torch.from_numpy(pool(pictures, load_encoder("efficientnet_lite0")))
    rows: dict[str, Any] = {}
    if coreset:
        start = time.perf_counter()
        sampler = KCenterGreedy(embedding=embeddings, sampling_ratio=4000 / len(embeddings))
        model.memory_bank = sampler.sample_coreset()
        rows[f"coreset, {len(embeddings)} patches to 4000 (s)"] = time.perf_counter() - start
    else:
        model.memory_bank = embeddings[:4000]
    model.eval()

    def inspect(query: np.ndarray[Any, Any]) -> Any:
        with torch.inference_mode():
            heat = model(load(query)).anomaly_map
            return torch.nn.functional.interpolate(heat, size=query.shape[:2], mode="bilinear")

    return inspect, rows, load, model


def peer() -> dict[str, Any]:
    """Anomalib's side."""
    import torch

    pictures = images(9)
    inspect, rows, load, model = peer_patchcore(pictures[:8])
    query = pictures[8]
    rows["inspect"] = timed(lambda: inspect(query))
    prepared = load(query)

    def bare() -> Any:
        with torch.inference_mode():
            return model.feature_extractor(prepared)

    rows["bare encoder (torch, float32)"] = timed(bare)
    rows["peak memory (MB)"] = peak_megabytes()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    side = parser.parse_args().side
    if side:
        print(json.dumps({"ours": ours, "peer": peer}[side]()))
        return
    measured: dict[str, dict[str, Any]] = {}
    for side, label in (("ours", "fewshot_ad"), ("peer", "anomalib PatchCore")):
        run = subprocess.run([sys.executable, __file__, "--side", side], capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"{label} left out: {run.stderr.strip().splitlines()[-1]}")
            continue
        measured[label] = json.loads(run.stdout.splitlines()[-1])
    print("| method | what | p50 or value | p95 |\n|---|---|---|---|")
    for label, rows in measured.items():
        for what, value in rows.items():
            if isinstance(value, dict):
                print(f"| {label} | {what} (ms) | {value['p50']:.2f} | {value['p95']:.2f} |")
            else:
                print(f"| {label} | {what} | {value:.2f} | |")
    if len(measured) == 2:
        a, b = measured.values()
        bare = a["bare encoder (OpenVINO, float32)"]["p50"]
        print(f"\ninspect: {a['inspect']['p50'] / bare:.2f} x the bare encoder, of which the goal is 2.5")
        for what in ("inspect", "inspect, bank 4000", "inspect, preset fast"):
            print(f"{what}: {b['inspect']['p50'] / a[what]['p50']:.1f} x faster than anomalib PatchCore (p50)")
        cores = [next(v for k, v in rows.items() if k.startswith("coreset")) for rows in (a, b)]
        print(f"coreset: {cores[1] / cores[0]:.0f} x faster than anomalib KCenterGreedy")


if __name__ == "__main__":
    main()
