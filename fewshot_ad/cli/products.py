"""The shell commands of a product: enroll, add, info."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.cli.catalogs import report_each
from fewshot_ad.cli.comparing import verified
from fewshot_ad.cli.limits import LimitsOption, check_limits, say_limits, stored_limits, write_limits
from fewshot_ad.cli.options import (
    ArtifactArgument,
    DeviceOption,
    DownloadOption,
    EncoderOption,
    EngineOption,
    ForceOption,
    ForegroundChoice,
    Fusion,
    IgnoreOption,
    ImageScore,
    JsonOption,
    KeepOutliersOption,
    LightingChoice,
    Metric,
    PartsChoice,
    Precision,
    PresetName,
    RegisterOption,
    RoiOption,
    TakeOutliersOption,
    ThreadsOption,
    WeightsOption,
    is_product,
    load_product,
    locked,
    refuse_misplaced,
    region,
    whole_numbers,
    working_scales,
)
from fewshot_ad.cli.terminal import (
    EXIT_ERROR,
    EXIT_GOOD,
    print_json,
    progress_bar,
    reported_errors,
    say,
    say_note,
)

if TYPE_CHECKING:
    from fewshot_ad.inspector import Inspector
    from fewshot_ad.scoring import ScoringConfig


commands = typer.Typer()


@commands.command()
def enroll(
    good: Annotated[list[str], typer.Argument(help="Good images: a folder, files, or a quoted glob.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The product's file, for example bracket.fsad.")],
    *,
    product_name: Annotated[
        str | None, typer.Option("--product", help="Name of the product. Default: the output's name.")
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            help="A shipped encoder, dinov2_small (extra 'dinov2'), or a timm model such as resnet18 (extra 'torch')."
        ),
    ] = "lite0_parts",
    preset: Annotated[
        PresetName,
        typer.Option(
            help="Settings that go together: views, image size, budget and precision; options of these names come "
            "before it."
        ),
    ] = "balanced",
    views: Annotated[
        str | None,
        typer.Option(
            help="Views of the good images, enrolled beside them: auto, none, all, or names with optional strengths: "
            "gray, hflip, vflip, translate, rotate=90/180/270, scale, brightness=0.8/1.2, contrast, hue. Default: the "
            "preset's."
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            help="Working scale in pixels (64 to 4096), or auto. Larger finds smaller defects, slower; 256,512 looks "
            "at both. Default: the preset's."
        ),
    ] = None,
    min_defect: Annotated[
        float | None,
        typer.Option(
            help="Size of the smallest defect that matters, as a share of the image's side: 0.01 is 10 pixels of a "
            "1000 x 1000 image. It decides the working scale. Default: 0.02."
        ),
    ] = None,
    min_defect_px: Annotated[float | None, typer.Option(help="The same in pixels, instead.")] = None,
    min_defect_mm: Annotated[
        float | None, typer.Option(help="The same in millimeters, instead; needs --mm-per-px.")
    ] = None,
    mm_per_px: Annotated[float | None, typer.Option(help="Millimeters that one pixel of the images covers.")] = None,
    max_ms: Annotated[
        float | None, typer.Option(help="Milliseconds that the encoder may take per image on this machine.")
    ] = None,
    max_false_reject: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts that may be rejected, such as 0.01: a higher threshold for less. Default: "
            "rejected good parts and missed defects weigh the same."
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Size of each memory bank, in vectors. Default: the preset's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    metric: Annotated[Metric | None, typer.Option(help="Distance of patch embeddings. Default: l2.")] = None,
    image_score: Annotated[
        ImageScore | None, typer.Option(help="How patch distances become a score. Default: top_mean.")
    ] = None,
    top_fraction: Annotated[
        float | None, typer.Option(help="Share of the patches that top_mean averages. Default: 0.02.")
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Smoothing of the score map, in pixels at a scale of 256. Default: 4.")
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="Which feature maps of the encoder to use, for example 2,3. ResNet and EfficientNet: 1, 2, 3 have one "
            "vector per 4, 8, 16 pixels (ConvNeXt: 0, 1, 2; DINOv2: blocks, 14 pixels); the last number of a trained "
            "encoder is its embedding. Default: the encoder's own choice."
        ),
    ] = None,
    fusion: Annotated[Fusion, typer.Option(help="Join the stages, or search each on its own.")] = "concat",
    engine: EngineOption = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="f32: the same scores on every processor; bf16: faster where the processor has it, refused elsewhere; "
            "auto: bf16 where it is faster and the scores stay the same. Default: the preset's."
        ),
    ] = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    keep_outliers: KeepOutliersOption = False,
    register: RegisterOption = False,
    roi: RoiOption = None,
    ignore: IgnoreOption = None,
    foreground: Annotated[
        ForegroundChoice,
        typer.Option(
            help="part: only the part on its plain background is looked at, and what is close to it; auto: so it is "
            "where that tells drawn defects better from the good images."
        ),
    ] = "off",
    lighting: Annotated[
        LightingChoice,
        typer.Option(
            help="normalized: exposure and tint are brought to those of the good images; log_chromaticity: an input "
            "that light hardly changes, for parts of color; auto: whichever helps on the good images under other light."
        ),
    ] = "off",
    parts: Annotated[
        PartsChoice,
        typer.Option(
            help="auto: images show several parts, or one that lies anywhere, on a plain background; each is cut out, "
            "turned into one pose and judged by itself."
        ),
    ] = "off",
    expect: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --parts auto: how many parts each image shows; with fewer or more it is anomalous."
        ),
    ] = None,
    known_defects: Annotated[
        Path | None,
        typer.Option(
            help="An earlier product's file: the defects that were shown to it (reject) are carried over, and good "
            "images that are like one are refused. It may be the file to be replaced."
        ),
    ] = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="Enroll a product from each sub-folder of the folder that is given; --output is the folder for them. "
            "What is there already is left alone, so that what was interrupted goes on.",
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="With --each: products at a time. Default: one per processor.")
    ] = None,
    limits: LimitsOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Enroll a product from 2 to 8 good images; a few seconds, nothing is trained."""
    with reported_errors(as_json), progress_bar(quiet=as_json) as progress:
        from fewshot_ad.artifact import check_product_file
        from fewshot_ad.catalog import enroll_each
        from fewshot_ad.errors import ArgumentError
        from fewshot_ad.inspector import Inspector

        _refuse_products(good)
        settings: dict[str, Any] = {
            "encoder": encoder,
            "preset": preset,
            "views": views,
            "image_size": working_scales(image_size, "--image-size"),
            "budget": budget,
            "seed": seed,
            "min_defect": min_defect,
            "min_defect_px": min_defect_px,
            "min_defect_mm": min_defect_mm,
            "mm_per_px": mm_per_px,
            "max_ms": max_ms,
            "max_false_reject": max_false_reject,
            "scoring": _scoring(metric=metric, image_score=image_score, top_fraction=top_fraction, sigma=sigma),
            "engine": engine,
            "precision": precision,
            "stages": whole_numbers(stages, "--stages"),
            "fusion": fusion,
            "weights": weights,
            "allow_download": allow_download,
            "device": device,
            "keep_outliers": keep_outliers,
            "register": register,
            "roi": region(roi, "--roi"),
            "ignore": region(ignore, "--ignore"),
            "foreground": foreground,
            "lighting": lighting,
            "parts": parts,
            "expect": expect,
        }
        if each:
            _refuse_of_each(good, product_name, limits, threads, known_defects)
            results = enroll_each(good[0], output, workers=workers, force=force, settings=settings)
            raise typer.Exit(EXIT_GOOD if report_each(results, output, as_json) else EXIT_ERROR)
        if workers is not None:
            raise ArgumentError("expected --workers with --each, got it alone. Leave it out; --threads is for one.")
        check_product_file(output, replace=force, protected=force)
        check_limits(limits, output, good, force=force)
        lost = known_defects is None and _knows_defects(output)
        former = None if known_defects is None else _former(known_defects, settings, threads)
        inspector = Inspector.from_support(
            good,
            product=product_name or output.stem,
            threads=threads,
            progress=progress,
            known_defects=former,
            **settings,
        )
        # Once more: another process may have written it meanwhile.
        check_product_file(output, replace=force, protected=force)
        inspector.save(output, force=force)
        if limits is not None:
            write_limits(limits, inspector.limits_picture(), force=force)
    if lost:
        say_note("the product that was replaced knew defects; --known-defects carries them over")
    if as_json:
        print_json("product", {"artifact": str(output), **inspector.info()})
        return
    for note in inspector.enrollment.notes:
        say(f"note: {note}")
    for reason in inspector.enrollment.reasons:
        say(reason)
    say(inspector.calibration.explain())
    say_limits(inspector.info(), limits)
    word = "image(s)" if inspector.enrollment.settings.parts is None else "part(s)"
    say(f"enrolled {inspector.product} from {len(inspector.enrollment.support)} {word} -> {output}")


def _refuse_products(good: list[str]) -> None:
    """Images to enroll from that are a product's file: what was meant is to add to it.

    Raises:
        ArgumentError: There is one among them.
    """
    from fewshot_ad.errors import ArgumentError

    for name in good:
        if is_product(name):
            raise ArgumentError(
                f"expected good images, got the product {name}. To take further images into it: "
                f"{shlex.join(['fewshot-ad', 'add', name, 'IMAGES'])}"
            )


def _former(path: Path, settings: dict[str, Any], threads: int | None) -> Inspector:
    """The product whose known defects are carried over, on the encoder that is asked for."""
    from fewshot_ad.encoder.weights import shipped_encoders

    encoder = settings["encoder"]
    return load_product(
        path,
        # Of one that ships the file says which.
        encoder=None if encoder in shipped_encoders() else encoder,
        engine=settings["engine"],
        weights=settings["weights"],
        allow_download=settings["allow_download"],
        threads=threads,
        device=settings["device"],
    )


def _knows_defects(path: Path) -> bool:
    """Whether a product that is about to be replaced has defects that were shown to it."""
    from fewshot_ad.artifact import read_artifact
    from fewshot_ad.errors import FewshotADError

    if not path.exists():
        return False
    try:
        return bool(read_artifact(path)[1].get("known_defects"))
    except FewshotADError:
        # A damaged one is replaced all the same.
        return False


def _refuse_of_each(
    good: list[str],
    product_name: str | None,
    limits: Path | None,
    threads: int | None,
    known_defects: Path | None,
) -> None:
    """What goes with one product only.

    Raises:
        ArgumentError: It was given with `--each`.
    """
    from fewshot_ad.errors import ArgumentError

    if len(good) != 1:
        raise ArgumentError(
            f"--each: expected one folder with a sub-folder for each product, got {len(good)} arguments."
        )
    given = {
        "--product": product_name,
        "--limits": limits,
        "--threads": threads,
        "--known-defects": known_defects,
    }
    for option, value in given.items():
        if value is not None:
            raise ArgumentError(f"--each: expected no {option}, which is for a single product. Leave it out.")


def _scoring(**options: str | float | None) -> ScoringConfig:
    """The scoring with the defaults of `ScoringConfig` where an option was left out."""
    from fewshot_ad.scoring import ScoringConfig

    settings: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    return ScoringConfig(**settings)


@commands.command()
def add(
    artifact: Annotated[Path, typer.Argument(help="The product's .fsad file; it is replaced once all is done.")],
    good: Annotated[list[str], typer.Argument(help="Further good images: a folder, files, or a quoted glob.")],
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    force: TakeOutliersOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take further good images into a product; its views, scale and other settings stay."""
    with reported_errors(as_json), progress_bar(quiet=as_json) as progress:
        refuse_misplaced("add", artifact, good)
        from fewshot_ad.artifact import check_product_file

        # Whoever adds to the product at the same time waits here, so that no addition is lost.
        with locked(artifact):
            inspector = load_product(
                artifact, encoder=encoder, weights=weights, allow_download=allow_download, threads=threads
            )
            # Before the work, not after it.
            check_product_file(artifact)
            notes = inspector.add(good, progress=progress, force=force)
            inspector.save(artifact)
    if as_json:
        print_json("product", {"artifact": str(artifact), **inspector.info()})
        return
    for note in notes:
        say(f"note: {note}")
    say(inspector.calibration.explain(inspector.threshold if inspector.threshold_set_by_hand else None))
    say_limits(inspector.info())
    say(f"{inspector.product}: {len(inspector.enrollment.support)} images now -> {artifact}")


@commands.command()
def info(
    artifact: ArtifactArgument,
    limits: LimitsOption = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Look whether all of it is true: hash, encoder, and where each step back leads. Exit code 0 or 2.",
        ),
    ] = False,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a product was enrolled from, with which settings, where its threshold comes from and what it finds."""
    with reported_errors(as_json):
        from fewshot_ad.artifact import describe, read_artifact
        from fewshot_ad.errors import ArgumentError

        refuse_misplaced("info", artifact)
        if verify:
            if limits is not None:
                raise ArgumentError("expected --verify or --limits, got both. Leave one out.")
            raise typer.Exit(verified(artifact, encoder, weights, as_json))
        if encoder is not None or weights is not None:
            raise ArgumentError("expected --encoder and --weights with --verify, which alone needs an encoder.")
        check_limits(limits, artifact, (), force=force)
        tensors, stored = read_artifact(artifact)
        record = describe(tensors, stored)
        if limits is not None:
            write_limits(limits, stored_limits(tensors, stored), force=force)
    if as_json:
        print_json("product", record)
        return
    import yaml

    for line in yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=110).splitlines():
        say(line)
    say("")
    say(record["calibration"]["explanation"])
    say_limits(record, limits)
