"""The shell commands of fitted baselines: fit one to a product, and inspect with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.cli.inspecting import judge_images
from fewshot_ad.cli.options import (
    CurvesOption,
    DownloadOption,
    ForceOption,
    JsonOption,
    MapsOption,
    MonitorOption,
    ZooDeviceOption,
    ZooPrecisionOption,
    training_curves,
)
from fewshot_ad.cli.terminal import print_json, progress_bar, reported_errors, say, say_note
from fewshot_ad.errors import ArgumentError

if TYPE_CHECKING:
    from fewshot_ad.zoo import Labeled

commands = typer.Typer()


@commands.command()
def fit(
    method: Annotated[str, typer.Argument(help="A baseline, see `fewshot-ad zoo`.")],
    good: Annotated[list[str], typer.Argument(help="Good images: a folder, files, or a quoted glob.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the fitted baseline to.")],
    product: Annotated[str | None, typer.Option(help="Name of the product. Default: the folder's name.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="GOOD is the folder of a dataset in this layout, see `fewshot-ad datasets`: its good images."
        ),
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="With --layout: the product. Default: the only one there is.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A hyper-parameter as name=value (YAML), once for each; `fewshot-ad zoo METHOD` lists them."
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="Hyper-parameters as published; its weights with --set weights=FILE, or =timm."
        ),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Scores above it are anomalous. Default: from good images that it is not fitted on; with a threshold "
            "of your own it is fitted to all, once."
        ),
    ] = None,
    max_false_reject: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected by the threshold.")
    ] = 0.05,
    defects: Annotated[
        Path | None, typer.Option(help="Images of defective parts, for detectors, which learn from them.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Masks of these defects, in files of the same names: white where defective.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="In place of masks, boxes around these defects: a folder of YOLO labels (.txt), or COCO annotations "
            "(.json)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: ZooDeviceOption = None,
    precision: ZooPrecisionOption = None,
    monitor: MonitorOption = None,
    curves: CurvesOption = None,
    allow_download: DownloadOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a baseline of the zoo to one product (extra 'zoo'); `predict` inspects with it.

    The threshold comes from good images that it is not fitted on: each in turn, or, of methods that train, a quarter.
    """
    with reported_errors(as_json):
        from fewshot_ad.zoo import cards
        from fewshot_ad.zoo.components.model_folder import check_model_folder
        from fewshot_ad.zoo.fitted import Baseline

        check_model_folder(output, inputs=[Path(path) for path in good], force=force)
        settings = _with_running(_settings(changes), device, precision)
        images = good if layout is None else _good_of_dataset(layout, good, category)
        if layout is None and category is not None:
            raise ArgumentError("--category: expected --layout with it, got none.")
        drawn = training_curves(monitor, curves, output)
        if drawn is not None and output.resolve() in (drawn.folder.resolve(), *drawn.folder.resolve().parents):
            raise ArgumentError(
                f"--curves: expected a folder outside of {output}, got {drawn.folder}. Name another one, or give "
                "--monitor none."
            )
        with progress_bar(as_json) as progress:
            baseline = Baseline.fit(
                method,
                images,
                product=product or output.resolve().name,
                labeled=_labeled(method, defects, masks, boxes),
                threshold=threshold,
                max_false_reject=max_false_reject,
                seed=seed,
                published=published,
                allow_download=allow_download,
                curves=drawn,
                progress=progress,
                **settings,
            )
        baseline.save(output, force=force)
    if as_json:
        print_json("fit", {**baseline.info(), "schema": "fewshot-ad/fit/1", "folder": str(output)})
        return
    for note in baseline.notes:
        say(note)
    scale = baseline.scores
    fitted = f"{method} fitted to {len(baseline.support)} images -> {output}"
    say(f"{fitted}; threshold {scale.threshold:.4g}, {scale.explain()}")
    if drawn is not None and drawn.folder.is_dir() and cards()[method].trains:
        say(f"training curves: {drawn.folder}")
    for difference in baseline.info()["differs"]:
        say(f"not as published: {difference}")


@commands.command()
def predict(
    model: Annotated[Path, typer.Argument(help="The folder that `fit` wrote.")],
    images: Annotated[list[str], typer.Argument(help="Images: folders, files, or quoted globs.")],
    *,
    heatmaps: Annotated[
        Path | None,
        typer.Option("--heatmaps", "--overlays", help="Write an overlay of each image into this folder, as PNG."),
    ] = None,
    maps: MapsOption = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a table of the verdicts.")] = None,
    device: ZooDeviceOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Inspect with a fitted baseline; verdicts, table, overlays and exit codes are those of `inspect`."""
    with reported_errors(as_json):
        from fewshot_ad.zoo import cards
        from fewshot_ad.zoo.components.model_folder import MANIFEST, TENSORS
        from fewshot_ad.zoo.fitted import RANDOM_WEIGHTS, Baseline

        baseline = Baseline.load(model, device=device or "cpu")
        if RANDOM_WEIGHTS in baseline.notes:
            say_note(RANDOM_WEIGHTS)
        if maps is not None and not cards()[baseline.name].maps:
            raise ArgumentError(f"--maps: expected a method with anomaly maps, but {baseline.name} has none.")
    judge_images(
        partial(baseline.inspect_batch, errors="return"),
        images,
        read=[model / MANIFEST, model / TENSORS],
        heatmaps=heatmaps,
        maps=maps,
        csv_file=csv_file,
        device="cuda" if device is not None and device.startswith("cuda") else "cpu",
        force=force,
        as_json=as_json,
    )


def _good_of_dataset(layout: str, folders: list[str], category: str | None) -> list[Path]:
    """The good training images of one category of a dataset.

    Raises:
        ArgumentError: There is more than one folder or category, or no such images.
        DatasetError: The folder does not have the layout.
    """
    from fewshot_ad.datasets import open_dataset

    if len(folders) != 1:
        raise ArgumentError(f"--layout: expected one folder of a dataset, got {len(folders)}.")
    dataset = open_dataset(layout, folders[0])
    categories = dataset.categories
    if category is None and len(categories) > 1:
        raise ArgumentError(f"--category: expected one of {', '.join(categories)}, got none.")
    if category is not None and category not in categories:
        raise ArgumentError(f"--category: expected one of {', '.join(categories)}, got {category!r}.")
    paths = [s.path for s in dataset.samples(category=category, split="train") if s.label == 0]
    if not paths:
        raise ArgumentError(f"{folders[0]}: expected good training images of {category or categories}, found none.")
    return paths


def _with_running(settings: dict[str, Any], device: str | None, precision: str | None) -> dict[str, Any]:
    """Hyper-parameters, and how a baseline is to run, as far as the options say.

    Raises:
        ArgumentError: One of them is among the hyper-parameters, too.
    """
    for name, value in (("device", device), ("precision", precision)):
        if value is not None and name in settings:
            raise ArgumentError(f"--set {name}: expected it once, got --{name} too.")
        if value is not None:
            settings[name] = value
    return settings


def _settings(changes: list[str] | None) -> dict[str, Any]:
    from fewshot_ad.documents.yaml_text import parse_yaml

    settings: dict[str, Any] = {}
    for change in changes or []:
        name, equals, value = change.partition("=")
        if not equals:
            raise ArgumentError(f"--set: expected name=value, as in epochs=5, got {change!r}.")
        if name in settings:
            raise ArgumentError(f"--set: expected each name once, got {name} twice.")
        if name == "seed":
            raise ArgumentError("--set seed: expected --seed for the seed.")
        settings[name] = parse_yaml(value, f"--set {change}", ArgumentError).content
    return settings


def _labeled(method: str, defects: Path | None, masks: Path | None, boxes: Path | None) -> list[Labeled]:
    """Defects with their masks or boxes; for methods that need neither, marked as a whole where there are none.

    Raises:
        ArgumentError: Defects are given without masks and boxes, or with both, or one of them has none.
        DatasetError: A mask or a box does not fit its image.
    """
    import numpy as np

    from fewshot_ad.datasets.sample import Sample
    from fewshot_ad.images import list_images, read_image
    from fewshot_ad.zoo import Labeled, cards

    card = cards().get(method)
    marked = masks is not None or boxes is not None
    # Without a card, it is said elsewhere that there is no such method.
    needed = defects is not None and card is not None and card.needs_masks
    if (masks is not None and boxes is not None) or (needed and not marked) or (marked and defects is None):
        raise ArgumentError("expected --defects together with --masks or with --boxes, got one of them, or all three.")
    if defects is None:
        return []
    marks_of = _masks_in(masks) if masks is not None else _boxes_in(boxes) if boxes is not None else None
    labeled = []
    for path in list_images(defects):
        if marks_of is None:
            image = read_image(path)
            labeled.append(Labeled(image, np.ones(image.shape[:2], bool)))
            continue
        sample = Sample(path, "", "test", 1, "defect", **marks_of(path))
        if not sample.has_mask:
            raise ArgumentError(f"{path}: expected a mask or a box of its own name in {masks or boxes}, got none.")
        image = read_image(path)
        labeled.append(Labeled(image, sample.mask((image.shape[0], image.shape[1]))))
    return labeled


def _masks_in(folder: Path) -> Callable[[Path], dict[str, Any]]:
    """What says where an image is defective: `mask_paths` of its sample."""
    from fewshot_ad.images import list_images

    files = {mask.stem: mask for mask in list_images(folder)}

    def marks_of(path: Path) -> dict[str, Any]:
        mask = files.get(path.stem) or files.get(f"{path.stem}_mask")
        return {"mask_paths": (mask,) if mask is not None else ()}

    return marks_of


def _boxes_in(place: Path) -> Callable[[Path], dict[str, Any]]:
    """What says where an image is defective: `boxes` or `box_shares` of its sample."""
    from fewshot_ad.datasets.box_labels import coco_boxes, yolo_boxes

    if place.is_dir():
        return lambda path: {"box_shares": tuple(box for _, box in yolo_boxes(place / f"{path.stem}.txt"))}
    found = {Path(name).name: marked for name, marked in coco_boxes(place).items()}
    return lambda path: {"boxes": tuple(box for _, box in found.get(path.name, ()))}
