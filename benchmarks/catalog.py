"""A catalog of a thousand products: memory, switching, loading and routing.

Copies of the products that are enrolled from ../shared/data (or from generated parts where that is absent) stand for a
thousand. All of them are inspected once, then switched between at random.

    python benchmarks/catalog.py [--products 1000] [--memory-mb 700]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.catalog import Catalog
from fewshot_ad.images import read_image
from fewshot_ad.training.parts import CATEGORIES, render

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data"
SHOTS = 8


def resident_mb() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def enrolled(folder: Path) -> dict[str, np.ndarray]:
    """Products to copy, and an image of each."""
    encoder = load_encoder()
    images = {}
    for name in sorted(path.name for path in DATA.iterdir() if (path / "train").is_dir()) if DATA.is_dir() else ():
        good = sorted((DATA / name / "train" / "good").iterdir())
        support = [good[at] for at in np.random.default_rng(0).permutation(len(good))[:SHOTS]]
        Inspector.from_support(support, product=name, encoder=encoder).save(folder / f"{name}.fsad")
        images[name] = read_image(sorted((DATA / name / "test" / "good").iterdir())[0])
    for name in list(CATEGORIES)[: 0 if images else 6]:
        support = [render(name, seed, 320) for seed in range(SHOTS)]
        Inspector.from_support(support, product=name, encoder=encoder).save(folder / f"{name}.fsad")
        images[name] = render(name, 100, 320)
    return images


def main() -> None:
    """Enroll, copy, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--memory-mb", type=float, default=700)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        # In a process of its own, whose graphs are gone afterwards.
        with get_context("spawn").Pool(1) as pool:
            images = pool.apply(enrolled, (folder,))
        encoder = load_encoder()
        for number in range(args.products - len(images)):
            source = sorted(images)[number % len(images)]
            shutil.copy(folder / f"{source}.fsad", folder / f"{source}_{number:04d}.fsad")
        catalog = Catalog(folder, memory_mb=args.memory_mb, encoder=encoder)
        names = catalog.names
        catalog.inspect(names[0], images[names[0]])
        before, start = resident_mb(), time.perf_counter()
        for name in names:
            catalog._resident(name)
        loading = (time.perf_counter() - start) / len(names)
        print(f"products                       {len(names)}, {len(catalog.loaded)} of them in memory at once")
        print(f"loading one                    {1e3 * loading:.1f} ms")
        print(f"memory of all that are loaded  {resident_mb() - before:.0f} MB; the process {resident_mb():.0f} MB")
        rng = np.random.default_rng(1)
        held = [names[at] for at in rng.integers(0, len(names), 2000) if names[at] in set(catalog.loaded)]
        times = []
        for name in held:
            start = time.perf_counter()
            catalog._resident(name)
            times.append(time.perf_counter() - start)
        late = 1e3 * np.quantile(times, 0.99)
        print(f"switching to one in memory     {1e3 * np.median(times):.3f} ms, 99% below {late:.3f}")
        image = images[min(images)]
        same, turns = [], []
        for at in range(60):
            for found, name in ((same, names[0]), (turns, names[int(rng.integers(len(catalog.loaded)))])):
                start = time.perf_counter()
                catalog.inspect(name, image)
                if at >= 10:
                    found.append(time.perf_counter() - start)
        print(f"inspecting, always the same    {1e3 * np.median(same):.1f} ms")
        print(f"inspecting, another each time  {1e3 * np.median(turns):.1f} ms")
        own = Inspector.load(folder / f"{names[0]}.fsad", encoder=encoder)
        alone = [own.inspect(image).timings_ms["total"] for _ in range(40)][10:]
        print(f"inspecting with Inspector      {np.median(alone):.1f} ms")
        # Further ones that share its encoder share what is compiled.
        before, ready, kept = resident_mb(), [], [own]
        for _ in range(10):
            start = time.perf_counter()
            kept.append(Inspector.load(folder / f"{names[0]}.fsad", encoder=encoder))
            kept[-1].inspect(image)
            ready.append(time.perf_counter() - start)
        grown = (resident_mb() - before) / len(ready)
        print(f"a further Inspector            {grown:.1f} MB, first verdict after {1e3 * np.median(ready):.0f} ms")
        # All have been loaded once.
        routing = []
        for name in sorted(images):
            start = time.perf_counter()
            found = catalog.route(images[name]).name or "none"
            routing.append((time.perf_counter() - start, found.split("_0")[0] == name))
        seconds, right = np.array(routing).T
        counted = f"{int(right.sum())} of {len(right)} right"
        print(f"routing among {len(names)}             {1e3 * np.median(seconds):.0f} ms, {counted}")


if __name__ == "__main__":
    main()
