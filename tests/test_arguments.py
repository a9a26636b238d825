"""Every wrong argument of the Python interface gets an error of the package, in one sentence: expected, got, fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewshot_ad import ArgumentError, FewshotADError, ImageError, Inspector, ScoringConfig, SupportSetError
from fewshot_ad.arguments import flag, number
from fewshot_ad.datasets import check, download
from fewshot_ad.demo import folder_product, texture_product
from fewshot_ad.encoder import Encoder, load_encoder
from fewshot_ad.enrollment.presets import enrollment_settings
from fewshot_ad.enrollment.support import distinct_names, read_support
from fewshot_ad.latency import bench
from tests.conftest import make_part

NAN, INFINITY = float("nan"), float("inf")
SETTINGS: list[tuple[str, Any, str]] = [
    ("preset", "slow", "'fast', 'balanced', 'accurate'"),
    ("preset", ["fast"], "list"),
    ("preset", None, "None"),
    ("views", 5, "a list of names"),
    ("views", True, "a list of names"),
    ("views", [1], "a list of names"),
    ("views", "sideways", "hflip"),
    ("views", "hfilp", "Did you mean hflip"),
    ("views", "none,hflip", "'none' alone"),
    ("views", ["auto"], "'auto' alone"),
    ("views", "rotate=a", "separated by '/'"),
    ("views", {"rotate": 90}, r"\[90\]"),
    ("views", {"rotate": np.linspace(-179, 178, 1001)}, "at most 1000 views, got 1001"),
    ("views", {"rotate": ["a"]}, "strength of view rotate"),
    ("views", {"rotate": [NAN]}, "strength of view rotate"),
    ("image_size", "big", "'auto'"),
    ("image_size", 3, r"64\.\.4096"),
    ("image_size", 128.0, r"128\.0"),
    ("image_size", True, "bool"),
    ("budget", 0, r"in 1\.\.2147483647, got 0"),
    ("budget", 2**31, r"in 1\.\.2147483647, got 2147483648"),
    ("budget", "many", "'many'"),
    ("seed", -1, "seed"),
    ("seed", 2**63, "seed"),
    ("seed", "x", "seed"),
    ("precision", "f16", "'f32', 'bf16', 'auto'"),
    ("scoring", {}, r"ScoringConfig\(sigma=2.0\)"),
    ("scoring", "l2", "ScoringConfig"),
]
SCORINGS: list[tuple[str, Any, str]] = [
    ("metric", "l1", "'l2', 'cosine'"),
    ("metric", None, "None"),
    ("image_score", 1, "'top_mean'"),
    ("top_fraction", 0.0, "above 0 and at most 1, got 0.0"),
    ("top_fraction", 2, "above 0 and at most 1, got 2"),
    ("top_fraction", "a", "'a'"),
    ("neighbors", 1, r"neighbors as a whole number in 2\.\.2147483647, got 1"),
    ("neighbors", 2.5, "2.5"),
    ("edge_weight", NAN, "nan"),
    ("sigma", -3, "sigma as a finite number of at least 0 and at most 64, got -3"),
    ("sigma", INFINITY, "inf"),
    ("sigma", "4", "'4'"),
]


@pytest.mark.parametrize(("name", "value", "answer"), SETTINGS)
def test_settings_of_a_wrong_kind_are_refused(name: str, value: Any, answer: str) -> None:
    with pytest.raises(SupportSetError, match=answer) as caught:
        enrollment_settings(**{name: value} if name == "preset" else {"preset": "fast", name: value})
    assert "expected" in str(caught.value)


@pytest.mark.parametrize(("name", "value", "answer"), SCORINGS)
def test_scorings_of_a_wrong_kind_are_refused(name: str, value: Any, answer: str) -> None:
    with pytest.raises(SupportSetError, match=answer):
        ScoringConfig(**{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    settings = enrollment_settings(image_size=np.int64(128), budget=np.int32(100), seed=np.uint8(3))
    assert (settings.image_sizes, settings.budget, settings.seed) == ((128,), 100, 3)
    assert type(settings.budget) is int
    assert ScoringConfig(sigma=np.float32(2)).sigma == 2


@pytest.mark.filterwarnings("error")
def test_narrow_numbers_of_numpy_are_compared_with_any_limit() -> None:
    assert number(np.float32(0.5), "n", 0) == 0.5
    assert type(number(np.float16(0.5), "n", 1e-30, 1e30)) is float
    for value in (np.float32("inf"), np.float16("nan"), 10**400, -(10**400)):
        with pytest.raises(ArgumentError, match="n as a finite number of at least 0, got"):
            number(value, "n", 0)


def test_a_flag_is_true_or_false() -> None:
    assert flag(True, "f") is True
    assert flag(np.bool_(False), "f") is False
    for value in (0, 1, None, "yes", np.array([True])):
        with pytest.raises(ArgumentError, match="expected f as True or False, got"):
            flag(value, "f")


@pytest.mark.parametrize("value", [0, -1, 1e-31, 1e31, NAN, INFINITY, "2", "a", True, None, [2.0], np.array([1.0])])
def test_a_threshold_is_a_positive_number(inspector: Inspector, value: Any) -> None:
    before = inspector.threshold
    with pytest.raises(ArgumentError, match=r"expected threshold as a finite number .* 1e-30 and at most 1e\+30, got"):
        inspector.threshold = value
    assert inspector.threshold == before


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"product": 5}, "product as text"),
        ({"product": ""}, "product as text"),
        ({"product": "x" * 4097}, "at most 4096 characters"),
        ({"product": "bottle\udcff"}, "no UTF-8"),
        ({"encoder": 5}, "encoder"),
        ({"encoder": None}, "encoder"),
        ({"progress": True}, "progress as a function"),
        ({"threads": 0}, "threads as a whole number in 1..1024, got 0"),
        ({"threads": "all"}, "threads"),
        ({"color": "gbr"}, "'gbr'"),
        ({"device": "tpu"}, "tpu"),
        ({"engine": "abacus"}, "abacus"),
        ({"allow_download": "no"}, "allow_download as True or False, got 'no'"),
        ({"allow_download": 1}, "allow_download as True or False, got 1"),
    ],
)
def test_arguments_of_from_support(parts: list[np.ndarray], arguments: dict[str, Any], answer: str) -> None:
    with pytest.raises(FewshotADError, match="expected") as caught:
        Inspector.from_support(parts[:1], preset="fast", precision="f32", **arguments)
    assert answer in str(caught.value)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda inspector: inspector.warm_up(128), "image_hw as height and width in pixels"),
        (lambda inspector: inspector.warm_up((128,)), "image_hw"),
        (lambda inspector: inspector.warm_up(("a", "b")), "image_hw"),
        (lambda inspector: inspector.warm_up((0, 128)), "image_hw"),
        (lambda inspector: inspector.warm_up((10, 128)), "at least 16 x 16 pixels"),
        (lambda inspector: inspector.warm_up((1_000_000, 1_000_000)), "at most 200 megapixels"),
        (lambda inspector: inspector.warm_up((10**30, 10**30)), "1..2147483647"),
        (lambda inspector: inspector.warm_up((10**5000, 64)), "1..2147483647, got a int"),
        (lambda inspector: inspector.save("a.fsad", force="yes"), "force as True or False, got 'yes'"),
        (lambda inspector: Inspector.load("a.fsad", allow_download=2), "expected"),
        (lambda inspector: download("mvtec", "x", "no"), "accept_license as True or False, got 'no'"),
        (lambda inspector: check("mvtec", "x", decode="no"), "decode as True or False, got 'no'"),
        (lambda inspector: inspector.save(None), "path as the name of a file"),
        (lambda inspector: inspector.save(5), "path as the name of a file"),
        (lambda inspector: inspector.save(""), "path as the name of a file"),
        (lambda inspector: inspector.save("a\0.fsad"), "path as the name of a file"),
        (lambda inspector: Inspector.load(None), "path as the name of a file"),
        (lambda inspector: Inspector.load(b""), "path as the name of a file"),
        (lambda inspector: Inspector.load([]), "path as the name of a file"),
        (lambda inspector: inspector.add(None), "None"),
        (lambda inspector: inspector.add([]), "at least one further good image, got no usable one: none was given"),
        (lambda inspector: inspector.add(make_part(9), color="x"), "color among 'rgb', 'bgr', got 'x'"),
        (lambda inspector: inspector.inspect_batch([], color="x", errors="return"), "color among 'rgb', 'bgr'"),
        (lambda inspector: Inspector.from_support("gone", color="x"), "color among 'rgb', 'bgr', got 'x'"),
        (lambda inspector: inspector.add("good/", progress=1), "progress as a function"),
        (lambda inspector: inspector.inspect(None), "NoneType"),
        (lambda inspector: inspector.inspect({}), "dict"),
        (lambda inspector: list(inspector.inspect_batch({"a": 1})), "list(images.values())"),
        (lambda inspector: list(inspector.inspect_batch("")), "an empty text"),
        (lambda inspector: list(inspector.inspect_batch([""])), "an empty text"),
        (lambda inspector: bench(inspector, []), "at least one image"),
        (lambda inspector: bench(inspector, [1], NAN), "seconds as a finite number"),
        (lambda inspector: texture_product("felt", 8, 0), "'brick', 'grass', 'gravel'"),
        (lambda inspector: texture_product("brick", 8, -1), "seed"),
        (lambda inspector: folder_product(Path(), 0, 0), "shots"),
        (lambda inspector: folder_product(Path("nowhere"), 1, 0), "nowhere, but there is no such folder"),
    ],
)
def test_calls_with_an_argument_of_a_wrong_kind(
    inspector: Inspector, call: Callable[[Inspector], Any], answer: str
) -> None:
    with pytest.raises(FewshotADError) as caught:
        call(inspector)
    assert answer in str(caught.value)
    assert isinstance(caught.value, ValueError | RuntimeError)


@pytest.mark.parametrize("images", [None, [], (), "", " ", [""], {}, iter(()), 5, [None], [5], np.zeros(3), set()])
def test_what_is_no_support_set_is_refused(images: Any) -> None:
    with pytest.raises((SupportSetError, ImageError), match="expected") as caught:
        read_support(images)
    assert ".. " not in str(caught.value)


class Table:
    """What pandas and polars have in common: a thing with columns, which iterates over their names."""

    columns = ("path",)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


def test_a_table_is_no_list_of_images(inspector: Inspector, part_folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    for table in (Table(), pandas.DataFrame({"path": sorted(part_folder.iterdir())})):
        for call in (Inspector.from_support, inspector.add, lambda images: list(inspector.inspect_batch(images))):
            with pytest.raises((SupportSetError, ImageError), match=r"df\['path'\].tolist\(\)"):
                call(table)


def names(images: Any) -> list[str]:
    return [image.name for image in read_support(images).images]


def test_paths_in_any_sequence_are_the_same_support_set(part_folder: Path) -> None:
    paths = sorted(part_folder.iterdir())
    expected = [path.name for path in paths]
    texts = [str(path) for path in paths]
    for images in (paths, texts, tuple(paths), iter(texts), (path for path in paths), dict.fromkeys(paths).keys()):
        assert names(images) == expected
    assert names({"a": paths[0], "b": paths[1]}.values()) == expected[:2]
    # The order of a set changes from run to run.
    assert names(set(texts)) == names(frozenset(paths)) == expected


def test_a_column_of_a_table_is_a_list(part_folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    paths = [str(path) for path in sorted(part_folder.iterdir())]
    assert names(pandas.Series(paths)) == [Path(path).name for path in paths]


def test_images_of_one_name_are_told_apart(tmp_path: Path, parts: list[np.ndarray]) -> None:
    files = [tmp_path / folder / name for folder in ("a", "b") for name in ("0.png", "1.png")]
    for file, part in zip([*files, tmp_path / "a" / "9.png"], parts, strict=True):
        file.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(file), part)
    assert names([tmp_path / "a", tmp_path / "b"]) == ["a/0.png", "a/1.png", "9.png", "b/0.png", "b/1.png"]
    assert distinct_names([files[0], files[0]]) == ["0.png", "0.png"]
    assert distinct_names([files[0]], taken=["0.png"]) == ["a/0.png"]


def test_an_image_from_memory_that_is_added_gets_a_number_of_its_own(parts: list[np.ndarray], encoder: Encoder) -> None:
    live = Inspector.from_support(parts[:2], encoder=encoder, views="none", image_size=64)
    live.add(parts[2])
    live.add([parts[3]])
    assert [name for name, _ in live.enrollment.support] == [f"image[{i}]" for i in range(4)]


def test_a_wrong_number_of_threads_is_refused_where_an_encoder_is_loaded() -> None:
    with pytest.raises(FewshotADError, match="threads"):
        load_encoder(threads=-1)
