"""Whether the light of images is taken out: where good images under other light are told from defects better then."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np

from fewshot_ad.arrays import Progress, Uint8Array, in_steps
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import enroll_scale
from fewshot_ad.enrollment.drawing import compared, probes_on
from fewshot_ad.enrollment.embedding import embed_support, scale_image
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.probes import Probes
from fewshot_ad.enrollment.selection import candidate_sizes
from fewshot_ad.enrollment.support import SupportImage
from fewshot_ad.images import LIGHTING_KINDS, Lighting, LightingKind
from fewshot_ad.registration import Framing

LightingChoice: TypeAlias = Literal["off", "auto", "normalized", "log_chromaticity"]
LIGHTING_CHOICES: tuple[LightingChoice, ...] = ("off", "auto", *LIGHTING_KINDS)
# Of red, green and blue: a lamp that ages or is turned up, and a warmer and a colder one.
RELIT = ((0.75, 0.75, 0.75), (1.25, 1.25, 1.25), (1.1, 1.0, 0.85), (0.88, 1.0, 1.12))
# Log chromaticity throws most of an image away: it is taken where drawn defects stand out from relit good images by so
# much more than with anything else, in logarithms. Normalizing leaves all of it, and is taken where it helps at all.
MIN_GAIN = 0.05


class RelitProbes(Probes):
    """Images under other light in place of what a line varies else."""

    def nuisances(self, at: int) -> Iterator[Uint8Array]:
        """Image number `at` under each of `RELIT`."""
        if at in self._images:
            yield from (relit(self._images[at], gains) for gains in RELIT)


def relit(image: Uint8Array, gains: Sequence[float]) -> Uint8Array:
    """An image (H, W, 3) uint8 RGB with each channel multiplied."""
    return np.clip(np.rint(image * np.asarray(gains)), 0, 255).astype(np.uint8)


def choose_lighting(
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    choice: LightingChoice,
    encoder: Encoder,
    progress: Progress | None = None,
) -> tuple[Lighting | None, tuple[str, ...]]:
    """How the light of images is taken out, and why; None leaves it as it is.

    Args:
        images: The support set.
        settings: What was asked for, with registration and region of interest.
        choice: What was asked for of the light.
        encoder: The encoder.
        progress: Called as `progress("lighting", done, total)` where all kinds are compared.
    """
    if choice == "off":
        return None, ()
    if choice != "auto":
        return lighting_of(images, settings, choice, encoder), (f"lighting: {choice}, as asked.",)
    if len(images) < 2:
        return None, ("lighting: as it is; a single image cannot tell whether it helps to take light out.",)
    chosen = compared(images)
    # All kinds need the same means.
    first = lighting_of(images, settings, LIGHTING_KINDS[0], encoder)
    options = [None, *(dataclasses.replace(first, kind=kind) for kind in LIGHTING_KINDS)]
    margins = [
        _margin(
            chosen,
            dataclasses.replace(settings, lighting=one),
            encoder,
            in_steps(progress, at, len(options), "lighting"),
        )
        for at, one in enumerate(options)
    ]
    gains = dict(zip(LIGHTING_KINDS, (margin - margins[0] for margin in margins[1:]), strict=True))
    taken: LightingKind | None = "normalized" if gains["normalized"] > 0 else None
    if gains["log_chromaticity"] >= max(0.0, gains["normalized"]) + MIN_GAIN:
        taken = "log_chromaticity"
    rises = ", ".join(f"{kind} {gain:+.1%}" for kind, gain in gains.items())
    return None if taken is None else dataclasses.replace(first, kind=taken), (
        f"lighting: {taken or 'as it is'}; how much more drawn defects stand out from good images under other light: "
        f"{rises}.",
    )


def lighting_of(
    images: Sequence[SupportImage], settings: EnrollmentSettings, kind: LightingKind, encoder: Encoder
) -> Lighting:
    """A kind of lighting with what it needs to know of the support set."""
    size = min(candidate_sizes(images, settings))
    # As `registration.scaled_image` measures them.
    framing = Framing(roi=settings.roi if settings.registration is None else None)
    contents = []
    for image in images:
        scaled = scale_image(image.pixels, size, encoder, framing)
        contents.append(scaled.content[scaled.geometry.window()])
    return Lighting.of(kind, contents)


def _margin(
    images: Sequence[SupportImage], settings: EnrollmentSettings, encoder: Encoder, progress: Progress | None
) -> float:
    """How far drawn defects lie above held-out good images under any light, in logarithms."""
    size = min(candidate_sizes(images, settings))
    embedded = embed_support(images, settings, size, encoder, progress)
    probes = probes_on(images, embedded, settings, size, encoder, RelitProbes)
    scale = enroll_scale(embedded, settings, size, encoder, probes)
    good = [m.score for m in scale.good] + list(scale.nuisances)
    defects = np.log(np.maximum(scale.defects, 1e-12))
    return float(defects.mean() - np.quantile(np.log(np.maximum(good, 1e-12)), 0.9))
