"""What holds for the package as a whole: light to import, no torch, no network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fewshot_ad

ROOT = Path(__file__).resolve().parents[1]

BLOCK = """
import sys, socket
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked by the test)", name=name)
sys.meta_path.insert(0, Blocked())
def no_network(*args, **kwargs):
    raise OSError("the network is blocked by the test")
socket.socket.connect = no_network
socket.create_connection = no_network
"""
EXTRAS = {
    "torch",
    "torchvision",
    "timm",
    "kornia",
    "onnxruntime",
    "onnx",
    "PIL",
    "skimage",
    "sklearn",
    "scipy",
    "pandas",
}


def python(code: str, *args: object) -> str:
    command = [sys.executable, "-c", code, *(str(a) for a in args)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_base_install_enrolls_and_inspects_without_torch_and_without_network(part_folder: Path, tmp_path: Path) -> None:
    code = BLOCK.format(blocked=EXTRAS) + (
        "from fewshot_ad import Inspector\n"
        "inspector = Inspector.from_support(sys.argv[1])\n"
        "inspector.save(sys.argv[2])\n"
        "print(Inspector.load(sys.argv[2]).inspect(sys.argv[1] + '/0.png').is_anomalous)\n"
        "assert not {'torch', 'PIL'} & set(sys.modules)\n"
    )
    assert python(code, part_folder, tmp_path / "p.fsad").strip() == "False"


def test_base_install_says_which_extra_is_missing() -> None:
    code = BLOCK.format(blocked=EXTRAS) + (
        "from fewshot_ad import load_encoder\n"
        "for options in (dict(name='resnet18'), dict(engine='torch'), dict(engine='onnxruntime')):\n"
        "    try:\n"
        "        load_encoder(**options)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    lines = python(code).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("WeightsError") for line in lines)
    assert "fewshot-ad[torch]" in lines[0]
    assert "fewshot-ad[onnx]" in lines[2]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, fewshot_ad; print(sorted({'cv2', 'faiss', 'openvino', 'torch', 'numpy'} & set(sys.modules)))"
    assert python(code).strip() == "[]"


def test_public_names_exist_and_no_others() -> None:
    classes = {"Calibration", "Check", "Inspection", "Inspector", "MapScale", "Region", "ScoringConfig"}
    functions = {"list_images", "load_encoder", "read_image"}
    errors = {name for name, value in vars(fewshot_ad.errors).items() if name.endswith("Error")}
    packages = {"datasets", "metrics", "zoo"}
    assert set(fewshot_ad.__all__) == {*classes, *functions, *errors, *packages, "__version__"}
    assert set(fewshot_ad._HOMES) == {*classes, *functions, *errors}
    for name in fewshot_ad.__all__:
        assert getattr(fewshot_ad, name) is not None
    with pytest.raises(AttributeError):
        _ = fewshot_ad.Nonsense


def test_version_is_the_projects() -> None:
    assert f'version = "{fewshot_ad.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_the_library_prints_nothing(part_folder: Path) -> None:
    code = (
        "import sys\nfrom fewshot_ad import Inspector\n"
        "Inspector.from_support(sys.argv[1], views='hflip', image_size=128).inspect(sys.argv[1] + '/0.png')\n"
    )
    assert python(code, part_folder) == ""
