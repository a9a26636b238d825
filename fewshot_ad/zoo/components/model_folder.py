"""The folder of a fitted baseline: JSON and tensors, hashed, replaced as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from fewshot_ad import __version__
from fewshot_ad.documents.json_text import parse_json
from fewshot_ad.errors import FewshotADError, ZooError
from fewshot_ad.storage import check_folder, replace_folder, write_failure
from fewshot_ad.zoo.components.freezing import Tensors, freeze, thaw
from fewshot_ad.zoo.method import WEIGHTS, cards, create, options
from fewshot_ad.zoo.placement import check_device

SCHEMA = "fewshot-ad/baseline/1"
MANIFEST, TENSORS = "baseline.json", "tensors.safetensors"


def write_model(folder: Path, info: Callable[[], Mapping[str, Any]], name: str, method: Any, *, force: bool) -> None:
    """Write a fitted method and what is said of it, whole or not at all.

    Args:
        folder: The folder.
        info: Gives what is said of it, as plain JSON types.
        name: Name of the baseline.
        method: Fitted, with a `skeleton`.
        force: As for `check_model_folder`.

    Raises:
        ZooError: It cannot be written or must stay as it is, or the method leaves behind what cannot be stored.
    """
    check_model_folder(folder, force=force)
    skeleton = getattr(method, "skeleton", None)
    if skeleton is None:
        raise ZooError(f"{name}: expected a baseline with a `skeleton`, by which it is stored, got one without.")
    tensors: Tensors = {}
    state = {key: freeze(getattr(method, key), key, tensors) for key in skeleton()}
    content = save(tensors)
    manifest = {**info(), "state": state, "sha256": hashlib.sha256(content).hexdigest()}
    manifest["manifest_sha256"] = _hash_of(manifest)
    try:
        with replace_folder(folder, (MANIFEST, TENSORS), MANIFEST) as staging:
            (staging / TENSORS).write_bytes(content)
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ZooError(write_failure(folder, error, len(content))) from error


@contextlib.contextmanager
def model_read(folder: Path, device: str = "cpu") -> Iterator[tuple[dict[str, Any], Any]]:
    """What was said of a stored method, and the method; what goes wrong with them in the block is a `ZooError`.

    Args:
        folder: The folder.
        device: Where it computes, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ZooError: There is none, it is damaged, or does not fit this installation.
    """
    check_device(device)
    manifest, content = _read(folder)
    if manifest["baseline"] not in cards():
        raise ZooError(
            f"{folder}: expected a baseline of this installation, got {manifest['baseline']!r}, which none of the "
            "installed packages brings. Install the one that it was fitted with."
        )
    try:
        name, state = manifest["baseline"], manifest["state"]
        where: dict[str, Any] = {"device": device} if device != "cpu" else {}
        method: Any = create(name, seed=manifest["seed"], **without_weights(name, manifest["settings"]), **where)
        tensors, blanks = {key: tensor.to(device) for key, tensor in load(content).items()}, method.skeleton()
        if blanks.keys() != state.keys():
            raise ZooError(f"expected the state of {sorted(blanks)}, got that of {sorted(state)}.")
        for key, blank in blanks.items():
            setattr(method, key, thaw(blank, state[key], tensors))
        yield manifest, method
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = str(error) if isinstance(error, FewshotADError) else f"{type(error).__name__}: {error}"
        written = manifest["version"]
        versions = "" if written == __version__ else f" (this is version {__version__}, it was written by {written})"
        raise ZooError(
            f"{folder}: expected a stored baseline that fits this version{versions}: {reason.rstrip('.')}. Fit it "
            "again."
        ) from error


def check_model_folder(folder: Path, *, inputs: Sequence[str | os.PathLike[str]] = (), force: bool = False) -> None:
    """Make sure that a baseline can be written to a folder without a loss.

    Args:
        folder: The folder.
        inputs: Files that are read, none of which may lie in it.
        force: As for `Baseline.save`.

    Raises:
        ZooError: It must stay as it is.
    """
    check_folder(folder, inputs=inputs, error=ZooError)
    for name in (MANIFEST, TENSORS):
        if (folder / name).exists() and not _is_ours(folder):
            raise ZooError(
                f"{folder / name}: expected a file of a stored baseline to replace, or none, got another one. Choose "
                "another folder."
            )
    try:
        others = folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise ZooError(write_failure(folder, error)) from error
    if others and not force:
        raise ZooError(
            f"{folder}: expected a new or empty folder, got one that holds files. Choose another folder, or give "
            "--force (force=True in Python) to replace a baseline in it, or to write beside other files."
        )


def without_weights(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with which a stored baseline is created again: files of weights are not read, since it holds them."""
    changed: dict[str, Any] = {}
    for option in WEIGHTS:
        given = settings.get(option)
        # Without a file, backbones come with the package, but teachers and latent models would be trained first. A
        # card of one's own says how its encoder is built.
        if option in options(name) and (option != "weights" or (given is not None and not given.endswith(".json"))):
            changed[option] = "random"
    if "latent_weights" in changed and settings.get("latent_weights") is None:
        # DSR's latent model is another network where it is trained here.
        changed = {"latent_steps": 0}
    if settings.get("detector") is not None:
        changed["detector"] = "random"
    return {**settings, **changed, **({"teacher": None} if "teacher" in settings else {})}


def _is_ours(folder: Path) -> bool:
    try:
        return json.loads((folder / MANIFEST).read_bytes())["schema"] == SCHEMA
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _hash_of(manifest: Mapping[str, Any]) -> str:
    """Hash of all that a manifest says but this."""
    said = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest of a stored baseline, and its tensors, which have the hash that it names."""
    try:
        text = (folder / MANIFEST).read_text("utf-8")
        content = (folder / TENSORS).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ZooError(
            f"{folder}: expected a folder that `fewshot-ad fit` wrote, with {MANIFEST} and {TENSORS}, cannot read them "
            f"({reason}). Check the path."
        ) from error
    manifest = parse_json(text, str(folder / MANIFEST), ZooError, "a stored baseline in JSON", fix="Fit it again")
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else "something else"
        newer = isinstance(found, str) and re.fullmatch(rf"{SCHEMA[:-1]}[0-9]+", found)
        fix = "Update fewshot_ad, which wrote it" if newer else "Fit it again"
        raise ZooError(f"{folder / MANIFEST}: expected a stored baseline ({SCHEMA}), got {found!r}. {fix}.")
    if manifest.get("manifest_sha256") != _hash_of(manifest):
        raise ZooError(f"{folder / MANIFEST}: expected it as `fewshot-ad fit` wrote it, got it changed. Fit it again.")
    if manifest.get("sha256") != hashlib.sha256(content).hexdigest():
        raise ZooError(f"{folder / TENSORS}: expected the tensors that {MANIFEST} names, got others. Fit it again.")
    return manifest, content
