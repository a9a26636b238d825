"""What the scripts that train share: an encoder by a recipe, as a card that a method of a plan can name."""

from __future__ import annotations

import sys
from pathlib import Path

from fewshot_ad.cli.terminal import progress_bar
from fewshot_ad.training.publish import publish
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.siamese import train


def own_encoder(recipe: TrainingRecipe, folder: Path, initialization: str, license: str) -> Path:
    """Train an encoder, unless it is there already; a run that was killed goes on.

    Args:
        recipe: The recipe.
        folder: Folder of the run.
        initialization: For the card.
        license: For the card.

    Returns:
        The card.

    Raises:
        TrainingError: Training stopped.
    """
    card = folder / "encoder.json"
    if card.exists():
        return card
    with progress_bar(False) as progress:
        result = train(recipe, folder, device="cpu", progress=progress)
    if result is None:
        raise SystemExit("expected one process, got several of torchrun")
    publish(
        result.encoder,
        folder,
        "encoder",
        recipe=recipe,
        data=result.data,
        initialization=initialization,
        license=license,
        source=f"benchmarks/{Path(sys.argv[0]).name}",
        replace=True,
    )
    return card
