"""Training the pose network: by known warps."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.encoder.registration import warp
from fewshot_ad.errors import TrainingError
from fewshot_ad.registration import POSE_SIDE, PoseEstimator
from fewshot_ad.training.parts import render_placed
from fewshot_ad.training.pose import PoseRecipe, pose_losses, train_pose
from fewshot_ad.training.pose_network import PoseNetwork, Poses, as_seen_by_the_part
from fewshot_ad.training.publish_pose import publish_pose

SMALL = PoseRecipe(generated=1, generated_images=2, steps=4, batch=4)


def test_the_pose_of_a_turned_map_is_the_turn_of_its_pose() -> None:
    """By construction: a network that draws the gray levels themselves is equivariant without any training."""
    network = PoseNetwork().eval()

    def drawn(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images[:, :1] * 4 - 3, images[:, :1].repeat(1, 5, 1, 1)], 1)

    network._drawn = drawn
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    blobs = torch.exp(-((x - 0.3) ** 2 + y**2) / 0.02) + 0.5 * torch.exp(-((x + 0.1) ** 2 + (y - 0.3) ** 2) / 0.05)
    image = blobs.expand(1, 3, 64, 64)
    angle, shift = 0.7, torch.tensor([0.1, -0.05])
    cos, sin = np.cos(angle), np.sin(angle)
    transform = torch.tensor([[[cos, -sin, shift[0]], [sin, cos, shift[1]]]], dtype=torch.float32)
    before, after = (network.poses(one) for one in (image, warp(image, transform)))
    brought = as_seen_by_the_part(after, transform)
    torch.testing.assert_close(brought.center, before.center, atol=0.02, rtol=0)
    torch.testing.assert_close(brought.log_spread, before.log_spread, atol=0.03, rtol=0)
    strong = before.moments.norm(dim=2) > 0.05
    assert strong.any()
    torch.testing.assert_close(brought.moments[strong], before.moments[strong], atol=0.03, rtol=0)


def test_losses_are_zero_for_equal_poses_and_charge_for_moments_without_length() -> None:
    center, spread = torch.zeros(4, 2), torch.zeros(4)
    strong = torch.tensor([1.0, 0.0]).expand(4, 5, 2)
    equal = pose_losses(Poses(center, spread, strong))
    assert equal["center"] == equal["spread"] == 0
    assert float(equal["turn"]) < 0.01
    assert float(pose_losses(Poses(center, spread, strong * 1e-4))["turn"]) > 0.99


def test_a_rendered_part_says_where_it_lies() -> None:
    placed = [render_placed("key", seed, 128, variant=5, placement="free") for seed in (0, 1)]
    # The first, looked up where the second's transform leads, is the second.
    first, second = (torch.from_numpy(np.vstack([p.transform, [[0, 0, 1]]])).double() for p in placed)
    between = (torch.linalg.inv(first) @ second)[None, :2].float()
    pixels = [torch.from_numpy(p.image).permute(2, 0, 1)[None].float() for p in placed]
    brought = warp(pixels[0], between)
    middle = (..., slice(40, 88), slice(40, 88))
    assert (brought - pixels[1])[middle].abs().mean() < 0.5 * (pixels[0] - pixels[1])[middle].abs().mean()


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot_ad.training.pose.LOG_EVERY", 2)
    whole = train_pose(SMALL, tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == 3:
            raise StopError

    with pytest.raises(StopError):
        train_pose(SMALL, tmp_path / "again", progress=stop)
    again = train_pose(SMALL, tmp_path / "again")
    for a, b in zip(whole.network.state_dict().values(), again.network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    lines = [json.loads(line) for line in (tmp_path / "again" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert set(lines[0]) == {"step", "center", "spread", "turn", "eta_s"}


def test_real_images_are_warps_of_themselves(tmp_path: Path) -> None:
    good = tmp_path / "plate" / "train" / "good"
    good.mkdir(parents=True)
    for n in range(2):
        cv2.imwrite(str(good / f"{n}.png"), np.full((60, 90, 3), 40 * n, np.uint8))
    recipe = PoseRecipe(folders=(str(tmp_path / "plate"),), licenses=("CC0-1.0",), steps=2, batch=2)
    trained = train_pose(recipe, tmp_path / "run")
    assert trained.data == ({"name": "plate", "images": 2, "license": "CC0-1.0"},)


def test_published_files_are_what_inspection_reads(tmp_path: Path) -> None:
    trained = train_pose(SMALL, tmp_path / "run")
    card = publish_pose(trained, SMALL, tmp_path / "run", license="Apache-2.0", source="a test")
    estimator = PoseEstimator(tmp_path / "run" / card["file"], card["sha256"])
    image = np.random.default_rng(0).integers(0, 256, (POSE_SIDE, POSE_SIDE, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = trained.network(torch.from_numpy(image)[None])[0].numpy()
    poses = estimator([image])
    np.testing.assert_allclose(poses.center[0], expected[:2], atol=1e-4)
    np.testing.assert_allclose(poses.moments[0].real, expected[3::2], atol=1e-4)
    with pytest.raises(TrainingError, match="expected no pose network there"):
        publish_pose(trained, SMALL, tmp_path / "run", license="Apache-2.0", source="a test")
    assert str(tmp_path) not in json.dumps(card)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"turned": 2.0}, {"folders": ()}, {"licenses": ("a", "b")}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match="expected"):
        PoseRecipe(**wrong)
