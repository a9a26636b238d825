"""Files of the first format."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_ad import Inspector, ScoringConfig
from fewshot_ad.artifact import FORMAT_VERSION, read_artifact
from fewshot_ad.errors import ArtifactError
from tests.artifact.conftest import ABSENT, FIRST, changed


@pytest.mark.parametrize("field", ["enrolment", "scoring", "encoder"])
def test_a_file_of_the_first_format_without_its_fields_is_refused(field: str, tmp_path: Path) -> None:
    for value, got in ((ABSENT, "nothing"), ([1], r"\[1\]")):
        (tmp_path / "p.fsad").write_bytes(changed(FIRST.read_bytes(), field, value))
        with pytest.raises(ArtifactError, match=f": {field}: expected an object, got {got}"):
            read_artifact(tmp_path / "p.fsad")
    (tmp_path / "p.fsad").write_bytes(changed(FIRST.read_bytes(), "enrolment.seed", ABSENT))
    with pytest.raises(ArtifactError, match=r"enrollment\.settings\.seed: expected this field, got nothing"):
        read_artifact(tmp_path / "p.fsad")


def test_a_file_of_the_first_format_keeps_all_its_settings(tmp_path: Path) -> None:
    inspector = Inspector.load(FIRST)
    enrollment, settings = inspector.enrollment, inspector.enrollment.settings
    assert inspector.product == enrollment.product_name == "brick"
    assert [str(view) for view in settings.views] == ["hflip", "gray", "rotate=90"]
    assert (settings.image_sizes, settings.budget, settings.seed, settings.precision) == ((128,), 150, 0, "f32")
    assert settings.auto == ()
    # It averaged a share of all patches.
    assert settings.scoring == ScoringConfig(max_patches=None)
    assert [name for name, _ in enrollment.support] == [f"image[{i}]" for i in range(4)]
    assert enrollment.created.startswith("2026-")
    assert "openvino" in enrollment.versions
    assert inspector.threshold == inspector.calibration.threshold
    inspector.save(tmp_path / "p.fsad")
    assert read_artifact(tmp_path / "p.fsad")[1]["format_version"] == FORMAT_VERSION
    again = Inspector.load(tmp_path / "p.fsad")
    assert again.enrollment == enrollment
    assert again.calibration == inspector.calibration


def test_only_the_renamed_view_of_the_first_format_changes(tmp_path: Path) -> None:
    strengths = {"brightness": 0.5, "contrast": 0.5, "grey": 0.0, "hflip": 0.0, "rotate": 0.5, "translate_x": 0.5}
    views = [{"kind": kind, "value": value} for kind, value in strengths.items()]
    (tmp_path / "p.fsad").write_bytes(changed(FIRST.read_bytes(), "enrolment.views", views))
    read = read_artifact(tmp_path / "p.fsad")[1]["enrollment"]["settings"]["views"]
    assert read == [{**view, "kind": str(view["kind"]).replace("grey", "gray")} for view in views]
