"""The shell command that lists the encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from fewshot_ad.cli.options import JsonOption
from fewshot_ad.cli.terminal import print_json, reported_errors, say

if TYPE_CHECKING:
    from fewshot_ad.encoder.weights import WeightsCard

commands = typer.Typer()


@commands.command()
def encoders(as_json: JsonOption = False) -> None:
    """List the encoders that ship: size, license, what they were trained on, accuracy and speed."""
    with reported_errors(as_json):
        from fewshot_ad.encoder.weights import shipped_encoders

        rows = [_encoder_row(card) for card in shipped_encoders().values()]
    if as_json:
        for row in rows:
            print_json("encoders", row)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    listing = Table("MB", "AUROC", "AU-PRO", "ms", "encoder", "license", box=None)
    for row in rows:
        figures = (row["megabytes"], row["image_auroc"], row["au_pro"], row["encoder_ms"])
        cells = [*("" if figure is None else str(figure) for figure in figures)]
        name = f"{row['name']}{' (default)' if row['default'] else ''}"
        listing.add_row(*cells, escape(name), escape(str(row["license"])))
    Console().print(listing)
    say("AUROC (image) and AU-PRO: mean of the six products of the shared board, K = 4, 256 px; ms: encoder alone.")
    say(
        "By name beside these: dinov2_small (Apache-2.0, extra 'dinov2'), for --image-size 448; and timm models (extra "
        "'torch')."
    )


def _encoder_row(card: WeightsCard) -> dict[str, Any]:
    from fewshot_ad.encoder import DEFAULT_ENCODER
    from fewshot_ad.encoder.weights import weights_folder

    figures = card.measured or {}
    return {
        "name": card.name,
        "default": card.name == DEFAULT_ENCODER,
        "backbone": card.backbone,
        "megabytes": round((weights_folder() / card.file).stat().st_size / 1e6, 1),
        "license": card.license,
        "image_auroc": figures.get("image_auroc"),
        "au_pro": figures.get("au_pro"),
        "encoder_ms": figures.get("encoder_ms"),
        "training_data": card.training_data,
        "recipe": card.recipe,
    }
