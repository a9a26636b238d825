"""What a product finds and what it cannot see, in words and as a picture; for enroll, add and info."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from fewshot_ad.cli.terminal import say

if TYPE_CHECKING:
    from fewshot_ad.arrays import Uint8Array

# What the picture says of itself, see `demo.png`.
LIMITS_MARK = "limits"
LimitsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Write one PNG of the product's limits: of the defects drawn at enrollment, the smallest that it catches "
        "and the largest that it misses."
    ),
]


def say_limits(record: Mapping[str, Any], limits: Path | None = None) -> None:
    """What the product finds and what it cannot see at the threshold that holds.

    Args:
        record: All that is known of it, see `Inspector.info`.
        limits: The picture, if it has been written.
    """
    found = record["sensitivity"]
    if found is not None:
        by_hand = (
            f"at the threshold {record['threshold']:.4g}, set by hand: " if record["threshold_set_by_hand"] else ""
        )
        say(f"{by_hand}{found['explanation']}")
        if found["warning"] is not None:
            say(f"warning: {found['warning']}")
    if limits is not None:
        say(f"picture of the limits: {limits}")


def check_limits(limits: Path | None, artifact: Path, images: Iterable[str], *, force: bool) -> None:
    """Before the work, not after it.

    Args:
        limits: The picture.
        artifact: The product's file.
        images: What the images are enrolled from.
        force: Whether another PNG may be replaced.

    Raises:
        FewshotADError: The picture has the place of something that must stay.
        ArgumentError: It would lie among the images.
    """
    if limits is None:
        return
    from fewshot_ad.cli.outputs import check_picture
    from fewshot_ad.images import expand_sources

    files = [Path(image) for image in expand_sources(list(images), keep_errors=True) if isinstance(image, str | Path)]
    check_picture(limits, "--limits", LIMITS_MARK, files, [artifact], force=force)


def stored_limits(tensors: Mapping[str, Any], record: Mapping[str, Any]) -> Uint8Array:
    """The picture of a stored product, which needs no encoder for it; (H, W, 3) uint8 RGB.

    Args:
        tensors: The arrays of its file.
        record: The description in its file.

    Raises:
        ArtifactError: The product has no drawn defects, or no image to draw them on.
    """
    from fewshot_ad.artifact import unpacked_references
    from fewshot_ad.check import draw_limits
    from fewshot_ad.enrollment.calibration import Calibration
    from fewshot_ad.enrollment.presets import EnrollmentSettings

    return draw_limits(
        record["enrollment"]["product_name"],
        Calibration.from_dict(record["calibration"]),
        unpacked_references(tensors, record),
        len(record["enrollment"]["support"]),
        record["threshold"],
        EnrollmentSettings.from_dict(record["enrollment"]["settings"]),
        narrowed=any(change["kind"] == "roi" for change in record.get("history", ())),
    )


def write_limits(limits: Path, picture: Uint8Array, *, force: bool) -> None:
    """Write the picture, whole or not at all.

    Raises:
        FewshotADError: It cannot be written, or something is there that must stay.
    """
    from fewshot_ad.demo import write_png

    write_png(limits, picture, LIMITS_MARK, force=force)
