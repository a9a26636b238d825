"""U-Flow on the paper's two transformers, here smaller ones of the same kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo import create, differences
from fewshot_ad.zoo.anomalib import flows
from tests.conftest import make_part

pytest.importorskip("anomalib")

SMALL = (("cait_xxs24_224", 3), ("cait_xs24_384", 2))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "CAITS", SMALL)
    monkeypatch.setattr(flows, "CAIT_SIDE", 64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for (name, _), side in zip(SMALL, (64, 32), strict=True):
            model = timm.create_model(name, img_size=side, num_classes=0)
            save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    return tmp_path


def test_it_runs_on_two_transformers_of_a_folder(folder: Path) -> None:
    images = [make_part(seed, 64) for seed in range(3)]
    settings = {"backbone": "mcait", "weights": str(folder), "image_size": 64, "flow_steps": 1, "epochs": 1}
    method = create("anomalib_uflow", **settings)
    method.fit(images)
    assert np.isfinite(method.predict(images[:1]).scores).all()
    assert differences("anomalib_uflow", {"backbone": "mcait", "weights": str(folder)}) == ()
    # The features are those of timm's own transformer after as many blocks.
    extractor = method._model.feature_extractor
    assert extractor.channels == [192, 288]
    model = timm.create_model(SMALL[0][0], img_size=64, num_classes=0)
    model.load_state_dict(extractor.extractor1.state_dict(), strict=False)
    batch = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().forward_intermediates(batch, indices=[2], norm=False, intermediates_only=True)[0]
        got = extractor.extract_features(batch)[0]
    torch.testing.assert_close(got.transpose(1, 2).reshape(expected.shape), expected)


def test_missing_weights_and_other_sizes_are_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match="cait_m48_448 and cait_s24_224"):
        create("anomalib_uflow", backbone="mcait")
    (folder / "cait_xs24_384.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"cait_xs24_384\.safetensors or cait_xs24_384\.pth"):
        create("anomalib_uflow", backbone="mcait", weights=str(folder), image_size=64)
    with pytest.raises(ZooError, match="image_size 64"):
        create("anomalib_uflow", backbone="mcait", weights=str(folder), image_size=128)
