"""How long enrollment and an inspection take, by stage, next to anomalib's PatchCore on the same features.

Images are 1024 x 1024 arrays in memory, cut from scikit-image's `brick` (extra `bench` installs it and anomalib;
without anomalib the peer's rows are left out). Both sides use EfficientNet-Lite0 at strides 8 and 16 on 256 x 256, and
all processor threads; each runs in a process of its own, warmed up. Medians and 95th percentiles of 200.

    python benchmarks/latency.py
    python benchmarks/latency.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import measured_tables
import measurements
import numpy as np

from fewshot_ad.benchmark.machine import peak_megabytes

REPEATS = 200
FLIPS = "hflip,vflip,rotate=180"
VIEWS = "hflip,vflip,rotate=45/90/135/180/270"


def stream(count: int) -> Iterator[np.ndarray[Any, Any]]:
    """Crops of a real image, enlarged to (1024, 1024, 3) uint8 RGB, one at a time."""
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


def pool(sources: list[np.ndarray[Any, Any]], encoder: Any) -> np.ndarray[Any, Any]:
    """The patch embeddings of all views, the same for both sides."""
    from fewshot_ad.enrollment.embedding import embed_support
    from fewshot_ad.enrollment.presets import enrollment_settings
    from fewshot_ad.enrollment.support import read_support

    settings = enrollment_settings(views=VIEWS, image_size=256)
    return embed_support(read_support(sources).images, settings, 256, encoder).pools[0].vectors


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


def row(what: str, unit: str, value: float | None, p95: float | None = None) -> dict[str, Any]:
    """One row of the table; what was not measured is absent."""
    entry = {"what": what, "unit": unit, "value": value, "p95": p95}
    return {name: figure for name, figure in entry.items() if figure is not None}


def timed_row(what: str, call: Callable[[], Any]) -> dict[str, Any]:
    """A row of p50 and p95."""
    figures = timed(call)
    return row(what, "ms", figures["p50"], figures["p95"])


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long one call takes, and what it returns."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def ours() -> list[dict[str, Any]]:
    """This package: enrollment and inspection."""
    from fewshot_ad import Inspector, load_encoder

    sources = images(9)
    support, query = sources[:8], sources[8]
    encoder = load_encoder()
    encoder.encode(np.zeros((256, 256, 3), np.uint8))
    fixed: dict[str, Any] = {"encoder": encoder, "views": VIEWS, "image_size": 256}
    rows, large, inspector = enrollment_rows(support, query, fixed)
    fast = Inspector.from_support(support, preset="fast")
    rows += [
        timed_row("inspect", lambda: inspector.inspect(query).anomaly_map),
        timed_row("inspect, map not read", lambda: inspector.inspect(query)),
        timed_row("inspect, bank 4000", lambda: large.inspect(query).anomaly_map),
        timed_row("inspect, preset fast", lambda: fast.inspect(query).anomaly_map),
    ]
    timings = [inspector.inspect(query).timings_ms for _ in range(REPEATS)]
    for stage in ("resize", "encode", "search", "map"):
        p50, p95 = (float(value) for value in np.percentile([t[stage] for t in timings], (50, 95)))
        rows.append(row(f"stage {stage}", "ms", p50, p95))
    small = np.ascontiguousarray(cv2.resize(query, (256, 256), interpolation=cv2.INTER_AREA))
    rows.append(timed_row("bare encoder, OpenVINO", lambda: encoder.encode(small)))
    rows.append(timed_row("bare encoder, preset fast", lambda: fast.encoder.encode(small)))
    for suffix, product in (("", inspector), (", preset fast", fast)):
        duration, results = seconds(lambda: list(product.inspect_batch([query] * 400)))  # noqa: B023 - called at once
        rows.append(row(f"inspect_batch from memory{suffix}", "images/s", len(results) / duration))
    rows.append(row("peak memory", "MB", peak_megabytes()))
    # After the peak memory, which its 8,000 vectors would raise.
    accurate = Inspector.from_support(support, preset="accurate")
    rows.append(timed_row("inspect, preset accurate", lambda: accurate.inspect(query).anomaly_map))
    # As an enrollment by default chooses them: flips and the preset's bank.
    for name, sizes in (("256 px", 256), ("512 px", 512), ("256 and 512 px", (256, 512))):
        inspector = Inspector.from_support(support, encoder=encoder, views=FLIPS, image_size=sizes)
        rows.append(timed_row(f"inspect, {name}", functools.partial(inspector.inspect, query)))
    return rows


def enrollment_rows(
    support: list[np.ndarray[Any, Any]], further: np.ndarray[Any, Any], fixed: dict[str, Any]
) -> tuple[list[dict[str, Any]], Any, Any]:
    """Times of enrollment; and the inspectors with 4,000 vectors and with the default's number."""
    from fewshot_ad import Inspector
    from fewshot_ad.search.memory_bank import greedy_coreset

    large_s, large = seconds(lambda: Inspector.from_support(support, budget=4000, **fixed))
    add_s, _ = seconds(lambda: large.add([further]))
    default_s, inspector = seconds(lambda: Inspector.from_support(support, **fixed))
    auto_s, _ = seconds(lambda: Inspector.from_support(support, encoder=fixed["encoder"]))
    embeddings = pool(support, fixed["encoder"])
    coreset_s, _ = seconds(lambda: greedy_coreset(embeddings, 4000))
    rows = [
        row("enroll 8 images x 8 views at 256, bank 4000", "s", large_s),
        row("add 1 image to it", "s", add_s),
        row("enroll 8 images x 8 views at 256, bank 1500", "s", default_s),
        row("enroll 8 images, views and size auto", "s", auto_s),
        row(f"coreset, {len(embeddings)} patches to 4000", "s", coreset_s),
    ]
    return rows, large, inspector


def peer_patchcore(
    support: list[np.ndarray[Any, Any]], coreset: bool = True
) -> tuple[Callable[[Any], Any], list[dict[str, Any]], Any, Any]:
    """Anomalib's PatchCore with the same backbone, weights and number of bank vectors.

    Args:
        support: Images, (H, W, 3) uint8 RGB.
        coreset: Whether to choose the vectors as anomalib does; the first ones take as long to search.

    Returns:
        A function that inspects one image; rows on the enrollment; a function that prepares one image; the model.
    """
    import timm
    import torch
    from anomalib.models.components import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from torchvision.transforms.v2.functional import resize

    from fewshot_ad import load_encoder
    from fewshot_ad.encoder.pyramid import lite0_weights_file
    from fewshot_ad.encoder.state_dict import read_state_dict

    model = PatchcoreModel(layers=["blocks.2", "blocks.4"], backbone="tf_efficientnet_lite0", pre_trained=False)
    extractor = model.feature_extractor.feature_extractor
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    state = dict(zip(names, read_state_dict(lite0_weights_file()).values(), strict=True))
    extractor.load_state_dict({name: state[name] for name in extractor.state_dict()})

    def load(image: np.ndarray[Any, Any]) -> torch.Tensor:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        return (resize(pixels, [256, 256], antialias=True) - 0.5) / 0.5

    # The initialization's patches: as many, and of as many dimensions, as ours.
    embeddings = torch.from_numpy(pool(support, load_encoder("efficientnet_lite0")))
    rows: list[dict[str, Any]] = []
    if coreset:
        ratio = 4000 / len(embeddings)
        duration, model.memory_bank = seconds(
            lambda: KCenterGreedy(embedding=embeddings, sampling_ratio=ratio).sample_coreset()
        )
        rows.append(row(f"coreset, {len(embeddings)} patches to 4000", "s", duration))
    else:
        model.memory_bank = embeddings[:4000]
    model.eval()

    def inspect(query: np.ndarray[Any, Any]) -> Any:
        with torch.inference_mode():
            heat = model(load(query)).anomaly_map
            return torch.nn.functional.interpolate(heat, size=query.shape[:2], mode="bilinear")

    return inspect, rows, load, model


def peer() -> list[dict[str, Any]]:
    """Anomalib's side."""
    import torch

    sources = images(9)
    inspect, rows, load, model = peer_patchcore(sources[:8])
    query = sources[8]
    prepared = load(query)

    def bare() -> Any:
        with torch.inference_mode():
            return model.feature_extractor(prepared)

    return [
        *rows,
        timed_row("inspect", lambda: inspect(query)),
        timed_row("bare encoder, torch", bare),
        row("peak memory", "MB", peak_megabytes()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    measurements.add_record_option(parser)
    args = parser.parse_args()
    if args.side:
        print(json.dumps({"ours": ours, "peer": peer}[args.side]()))
        return
    rows: list[dict[str, Any]] = []
    for side, method in (("ours", "fewshot_ad"), ("peer", "anomalib PatchCore")):
        run = subprocess.run([sys.executable, __file__, "--side", side], capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"{method} left out: {run.stderr.strip().splitlines()[-1]}")
            continue
        rows += [{"method": method, **one} for one in json.loads(run.stdout.splitlines()[-1])]
    measured_tables.finish("latency", rows, args.record)


if __name__ == "__main__":
    main()
