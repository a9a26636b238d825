"""The shell command of archives: reinspect."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from fewshot_ad.cli.options import ArtifactArgument, JsonOption
from fewshot_ad.cli.terminal import (
    EXIT_ERROR,
    EXIT_GOOD,
    print_json,
    progress_bar,
    report_failure,
    reported_errors,
    say,
)
from fewshot_ad.errors import ArgumentError

commands = typer.Typer()

# Starting a process takes as long as some hundred images.
PIECES_PER_PROCESS = 100
# Images that cannot be read and are named on the screen, at most.
NAMED = 10


@commands.command()
def reinspect(
    artifact: ArtifactArgument,
    archive: Annotated[Path, typer.Argument(help="Folder of images, with sub-folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The record, for example verdicts.jsonl.")],
    *,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="Work on all processors, or on a cluster (extra 'ray').")
    ] = False,
    ray_address: Annotated[str | None, typer.Option(help="Of a running Ray cluster. Default: a local one.")] = None,
    chunk: Annotated[int, typer.Option(min=1, max=100_000, help="Images of one piece of work.")] = 500,
    as_json: JsonOption = False,
) -> None:
    """Inspect an archive again with a product as it is now; the same command goes on where it was interrupted.

    The record has a line of JSON for each image. Exit code 2 if some cannot be read, or if workers were lost: run it
    again.
    """
    with reported_errors(as_json):
        from fewshot_ad.host.cluster import RayPool
        from fewshot_ad.line.archive import reinspect as run

        pool = (
            RayPool(ray_address, pieces_per_process=PIECES_PER_PROCESS) if on_ray or ray_address is not None else None
        )
        # Ray prints the end of a worker there.
        with progress_bar(quiet=as_json) as progress, contextlib.redirect_stdout(sys.stderr):
            try:
                done = run(artifact, archive, output, pool=pool, chunk=chunk, progress=progress)
            except KeyboardInterrupt:
                raise ArgumentError("interrupted; the same command goes on where it was") from None
    if as_json:
        print_json("reinspect", {"output": str(output), **done._asdict()})
    else:
        failures = [*done.reasons, *(f"{name}: cannot be read; {output} says why" for name in done.unreadable[:NAMED])]
        if len(done.unreadable) > NAMED:
            failures.append(f"{len(done.unreadable) - NAMED} more cannot be read")
        for failure in failures:
            report_failure(failure, False)
        shown = ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in sorted(done.counts.items()))
        shown += f", {done.lost} lost" if done.lost else ""
        say(f"{done.images} images ({done.before} before): {shown} -> {output}")
    raise typer.Exit(EXIT_ERROR if done.lost or done.unreadable else EXIT_GOOD)
