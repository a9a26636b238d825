"""Which images of a support set are compared and drawn on, and where."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.embedding import Embedded, places_to_draw
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.probes import MAX_DRAWN_ON, Probes, defect_series
from fewshot_ad.enrollment.support import SupportImage

# Of very many images so many tell as well what to look at: each choice embeds every view of them again.
MAX_COMPARED = 32


def compared(images: Sequence[SupportImage]) -> list[SupportImage]:
    """The images that a choice is made on, by hash, so that the order of the support set decides nothing."""
    return sorted(images, key=lambda image: image.sha256)[:MAX_COMPARED]


def probes_on(
    images: Sequence[SupportImage],
    embedded: Embedded,
    settings: EnrollmentSettings,
    side: int,
    encoder: Encoder,
    kind: type[Probes] = Probes,
) -> Probes:
    """What is drawn on a support set: on at most `MAX_DRAWN_ON` of the images that are held out.

    Of many images only some are held out, and only on these has a drawn defect a score.

    Args:
        images: The support set.
        embedded: Its patches, with the images that are held out.
        settings: The smallest defect that matters, the region that counts, and the seed.
        side: Working scale in pixels that the drawn images are at least to show in full.
        encoder: The encoder.
        kind: What draws them.
    """
    # By hash, so that the order of the support set decides nothing.
    on = sorted({stand_in.image for stand_in in embedded.stand_ins}, key=lambda at: images[at].sha256)[:MAX_DRAWN_ON]
    within = {at: p for at in on if (p := places_to_draw(images[at].pixels, settings, encoder.threads)) is not None}
    series = defect_series(on, settings.min_defect, settings.seed)
    return kind({at: images[at].pixels for at in on}, series, settings.seed, 2 * side, within)
