"""Energy per photograph: one inspection with each encoder, on whatever counter of energy the machine has.

RAPL (Intel and AMD processors, /sys/class/powercap) and NVML (NVIDIA GPUs, package nvidia-ml-py) count joules of the
whole processor or board, whatever else runs on it, so run this on a machine at rest. Where neither can be read, as in
most virtual machines, CPU seconds stand in: they are in proportion to energy as long as the cores are the same.

Each product is enrolled from eight generated parts at 256 pixels with flips; ConvNeXt-Tiny, which the method's source
has as its second backbone, has random weights, which take the same energy, and runs on torch.

    python benchmarks/energy.py
    python benchmarks/energy.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measured_tables
import measurements
import timm
from safetensors.torch import save_file

from fewshot_ad import Inspector
from fewshot_ad.training.parts import render

POWERCAP = Path("/sys/class/powercap")
IMAGES, WARM_UP = 150, 10


def joules_of(folder: Path) -> Callable[[], float]:
    """A counter that goes on where the processor's own begins anew."""
    wrap = int((folder / "max_energy_range_uj").read_text())
    last, total = int((folder / "energy_uj").read_text()), 0

    def read() -> float:
        nonlocal last, total
        now = int((folder / "energy_uj").read_text())
        total += (now - last) % wrap
        last = now
        return total / 1e6

    return read


def counters() -> dict[str, Callable[[], float]]:
    """Joules since some time in the past, by counter; those that can be read."""
    readable: dict[str, Callable[[], float]] = {}
    # A package of cores; its parts (intel-rapl:0:0) are counted in it.
    for folder in sorted(POWERCAP.glob("*-rapl:[0-9]")):
        try:
            # `psys` contains the packages.
            if (folder / "name").read_text().startswith("package"):
                readable[folder.name] = joules_of(folder)
        except OSError:
            continue
    try:
        import pynvml

        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            readable[f"gpu {index}"] = lambda handle=handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    except Exception as error:  # no package, no driver, no GPU, or one that does not count
        print(f"no GPU counts energy here ({type(error).__name__})")
    return readable


def encoders(folder: Path) -> dict[str, dict[str, object]]:
    """How each encoder is loaded."""
    tiny = timm.create_model("convnext_tiny", pretrained=False)
    save_file(tiny.state_dict(), folder / "tiny.safetensors")
    return {
        "lite0_parts": {"encoder": "lite0_parts"},
        "resnet18_siamese": {"encoder": "resnet18_siamese"},
        "convnext_siamese": {"encoder": "convnext_siamese"},
        "convnext_tiny, torch": {"encoder": "convnext_tiny", "weights": folder / "tiny.safetensors"},
    }


def main() -> None:
    """Enroll and inspect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements.add_record_option(parser)
    args = parser.parse_args()
    joules = counters()
    print(f"counters of energy: {', '.join(joules) or 'none can be read; CPU seconds stand in'}")
    support = [render("gear", n, 512) for n in range(8)]
    images = [render("gear", 100 + n, 512) for n in range(10)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for encoder, options in encoders(Path(name)).items():
            inspector = Inspector.from_support(support, image_size=256, views="hflip,vflip", **options)  # type: ignore[arg-type]
            for n in range(WARM_UP):
                inspector.inspect(images[n])
            before = {counter: read() for counter, read in joules.items()}
            cpu, wall = time.process_time(), time.perf_counter()
            for n in range(IMAGES):
                inspector.inspect(images[n % len(images)])
            row = {
                "encoder": encoder,
                "cpu_s": (time.process_time() - cpu) / IMAGES,
                "ms": (time.perf_counter() - wall) / IMAGES * 1e3,
            }
            if joules:
                row["joules"] = sum(read() - before[counter] for counter, read in joules.items()) / IMAGES
            rows.append(row)
    measured_tables.finish("energy", rows, args.record)


if __name__ == "__main__":
    main()
