"""Cases of `watch`: a command is killed at a random moment; its output is there as it was, or as it was to be."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_ad import Inspector
from fewshot_ad.errors import FewshotADError
from tests.conftest import make_part
from tests.robustness.scene import SIDE, Scene, run, start


def case(seed: int, number: int) -> dict[str, Any]:
    """Kill one command, look at what it left, and run it again to its end."""
    built, seconds = _built()
    name = list(seconds)[number % len(seconds)]
    rng = np.random.default_rng((seed, number))
    with tempfile.TemporaryDirectory() as place:
        # Elsewhere at the same depth: a product does not know where it lies.
        folder = Path(place) / "scene"
        shutil.copytree(built.folder, folder)
        scene = Scene(folder, folder / "good", folder / "line", folder / "p.fsad", folder / "plan.yaml")
        # Every other time something is there already.
        if number % 8 >= 4:
            run(scene.commands()[name], folder, check=True)
        process = start(scene.commands()[name], folder)
        time.sleep(float(rng.uniform(0.1, 0.9)) * seconds[name])
        process.kill()
        process.communicate()
        faults = [*_damage(scene), *_second_run(scene, name)]
    what = {"command": name, "killed": process.returncode != 0}
    return {"outcome": "lost", "detail": "; ".join(faults)[:300], **what} if faults else {"outcome": "held", **what}


def _damage(scene: Scene) -> list[str]:
    """What is neither as it was nor as it was to be."""
    faults = []
    try:
        score = Inspector.load(scene.product).inspect(make_part(9, SIDE)).score
        faults += [] if np.isfinite(score) else ["the product's scores are not finite"]
    except FewshotADError as error:
        faults.append(f"the product does not load: {error}")
    if len(list(scene.good.iterdir())) != 5:
        faults.append("the good images are not as they were")
    exported = scene.folder / "exported"
    if exported.exists() and not list(exported.glob("*.json")):
        faults.append("a part of an export")
    return faults


def _second_run(scene: Scene, name: str) -> list[str]:
    """Whether the command goes on from there, and sweeps up."""
    again = run(scene.commands()[name], scene.folder)
    # `add` after a kill that came too late finds nothing new, and says so.
    if again.returncode and not (name == "add" and "none" in again.stderr):
        return [f"the next {name} fails: {again.stderr[-200:]}"]
    faults = [f"left behind: {p.name}" for p in scene.folder.rglob("*") if p.name.endswith((".tmp", ".old"))]
    record = scene.folder / "record.jsonl"
    if name == "benchmark":
        jobs = [json.loads(line) for line in record.read_text().splitlines()]
        faults += [] if sum("error" not in job or not job["error"] for job in jobs) >= 2 else ["jobs are lost"]
    return faults


@functools.cache
def _built() -> tuple[Scene, dict[str, float]]:
    """A scene, and how long each command takes in it."""
    scene = Scene.build(Path(tempfile.mkdtemp(prefix="scene_")) / "scene")
    seconds = {}
    for name, command in scene.commands().items():
        begin = time.perf_counter()
        run(command, scene.folder, check=True)
        seconds[name] = time.perf_counter() - begin
    shutil.rmtree(scene.folder / "exported")
    os.unlink(scene.folder / "record.jsonl")
    run(scene.commands()["enroll"], scene.folder, check=True)
    return scene, seconds
