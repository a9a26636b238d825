"""Fields that no product has are refused by name, and the form is the published one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from fewshot_ad import Inspector, ScoringConfig
from fewshot_ad.artifact import forms, read_artifact
from fewshot_ad.encoder import EncoderSpec
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.views import View
from fewshot_ad.errors import ArtifactError
from fewshot_ad.inspection.regions import MapScale
from fewshot_ad.product import Enrollment
from tests.artifact.conftest import ABSENT, changed
from tests.robustness.artifact_mutator import Raw


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        *(
            (name, ABSENT, f": {name}: expected this field, got nothing")
            for name in ("encoder", "enrollment", "calibration", "level_scale", "threshold", "preprocessing")
        ),
        ("threshold", Raw("1e999"), r"threshold: expected a finite number, got inf"),
        ("threshold", 0, r"threshold: expected at least 1e-30, got 0"),
        ("threshold", "2", r"threshold: expected a valid number, got '2'"),
        ("threshold", True, r"threshold: expected a valid number, got True"),
        ("level_scale", [0.0], r"level_scale\[0\]: expected at least 1e-12, got 0"),
        ("level_scale", [1.0, 1.0], r"level_scale: expected one divisor per level and working scale \(1\), got 2"),
        ("calibration.n", 0, r"calibration\.n: expected at least 1"),
        ("calibration.n", 2**70, r"calibration\.n: expected less than 2147483648"),
        ("calibration.n", 6, r"calibration\.n: expected at most 5 images"),
        ("calibration.scores", [], r"calibration\.scores: .*at least 1 item"),
        ("calibration.scores.0", -1.0, r"calibration\.scores\[0\]: expected at least 0"),
        ("calibration.false_reject_rate", 1.5, r"false_reject_rate: expected at most 1, got 1\.5"),
        (
            "calibration.defects.0.kind",
            "hole",
            r"defects\[0\]\.kind: expected .spot., .scratch. or .patch.",
        ),
        ("calibration.map_peaks", [1.0], r"calibration\.map_peaks: expected one per score \(5\), got 1"),
        ("calibration.map_scale.threshold", 1e-9, r"map_scale\.threshold: expected more than median_good"),
        ("calibration.status", "final", r"calibration\.status: expected 'provisional' or 'calibrated', got 'final'"),
        ("encoder.stages", [], r"encoder\.stages: .*at least 1 item"),
        ("encoder.channels", [152, 152], r"encoder\.channels: expected one per stage \(1\), got 2"),
        ("encoder.norm_power", 2, r"encoder\.norm_power: expected at most 1, got 2"),
        ("enrollment.settings.image_sizes.0", 4097, r"image_sizes\[0\]: expected at most (2048|4096), got 4097"),
        ("enrollment.settings.image_sizes", [256, 128], r"image_sizes: expected ascending numbers, got \[256, 128\]"),
        ("enrollment.settings.min_defect", 0.9, r"min_defect: expected at most 0\.5, got 0\.9"),
        ("enrollment.settings.budget", 0, r"settings\.budget: expected at least 1"),
        ("enrollment.settings.budget", 10, r"bank0\.vectors: expected 1 to 10 bank vectors"),
        ("enrollment.settings.seed", -1, r"settings\.seed: expected at least 0"),
        ("enrollment.settings.precision", "bf16", r"settings\.precision: expected the encoder's \(f32\)"),
        ("enrollment.settings.scoring.sigma", 1e9, r"scoring\.sigma: expected at most 64, got"),
        ("enrollment.settings.scoring.metric", "l1", r"scoring\.metric: expected 'l2' or 'cosine', got 'l1'"),
        ("enrollment.settings.views.0.kind", "zoom", r"views\[0\]\.kind: expected one of gray, .*got 'zoom'"),
        ("enrollment.settings.views", [{"kind": "rotate", "value": 1e9}], r"strength of rotate in -360\.\.360"),
        ("enrollment.settings.views", [], r"bank0\.view: expected values in 0\.\.0"),
        ("enrollment.support", [["a", "0" * 64]] * 4, r"calibration\.n: expected at most 4"),
        ("enrollment.support.0", ["a"], r"enrollment\.support\[0\]\[1\]: expected this field"),
        ("enrollment.product_name", "x" * 5000, r"product_name: .*at most 4096 characters"),
        ("references.0", [1, 128], r"references\[0\]\[0\]: expected at least 16, got 1"),
        ("references.0", [128, 200], r"reference0: expected a PNG file, RGB, 8 bits, of 160 x 102 pixels"),
        ("references", [], r"'reference0': expected no array of this name, got one"),
        ("surprise", 1, r"surprise: expected no field of this name, got 1"),
    ],
)
def test_a_field_that_no_product_has_is_named(field: str, value: object, says: str, saved: Path) -> None:
    saved.write_bytes(changed(saved.read_bytes(), field, value))
    with pytest.raises(ArtifactError, match=says):
        Inspector.load(saved)
    with pytest.raises(ArtifactError, match=says):
        read_artifact(saved)


FORMS = {
    forms.EncoderForm: EncoderSpec,
    forms.MapScaleForm: MapScale,
    forms.CalibrationForm: Calibration,
    forms.ViewForm: View,
    forms.ScoringForm: ScoringConfig,
    forms.SettingsForm: EnrollmentSettings,
    forms.EnrollmentForm: Enrollment,
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_the_file_has_the_fields_of_what_it_becomes(form: type[BaseModel]) -> None:
    assert set(form.model_fields) == {field.name for field in dataclasses.fields(FORMS[form])}


def test_the_published_schema_is_that_of_the_program(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs" / "scripts"))
    import fsad_schema

    assert fsad_schema.OUTPUT.read_text(encoding="utf-8") == fsad_schema.schema()
    published = json.loads(fsad_schema.schema())
    assert set(published["required"]) <= set(read_artifact(saved)[1]) == set(published["properties"])
