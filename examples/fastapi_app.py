"""An Inspector in a web application of your own (extra `line`): POST an image, get the verdict.

python examples/fastapi_app.py bracket.fsad
curl --data-binary @line/0005.png -H "Content-Type: image/png" http://127.0.0.1:8000/inspect

For a journal, kept pictures, a token and a web page beside it: `fewshot-ad serve`.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

from fewshot_ad import ImageError, Inspection, Inspector

MAX_BYTES = 32_000_000
# Inspections take turns at the cores; images that wait for theirs take memory.
AT_ONCE = 4


class Verdict(BaseModel):
    """What is answered."""

    product: str
    verdict: str
    severity: float
    reason: str
    boxes: list[tuple[int, int, int, int]]


async def body_of(request: Request) -> bytes:
    """The body, refused as soon as it is too long, whatever length it claims to have."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"expected at most {MAX_BYTES:,} bytes")
    return bytes(body)


def create_app(artifact: Path) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Before the first request: reading takes a moment, and so does compiling the network.
        app.state.inspector = await to_thread.run_sync(Inspector.load, artifact)
        await to_thread.run_sync(app.state.inspector.warm_up)
        app.state.limiter = CapacityLimiter(AT_ONCE)
        yield

    app = FastAPI(title="Inspection", lifespan=lifespan)

    @app.post("/inspect")
    async def inspect(request: Request) -> Verdict:
        state, image = request.app.state, await body_of(request)
        try:
            # On a thread: the event loop must go on answering meanwhile.
            found: Inspection = await to_thread.run_sync(state.inspector.inspect, image, limiter=state.limiter)
        except ImageError as error:
            raise HTTPException(422, str(error)) from error
        boxes = [region.box for region in found.regions]
        severity = float(found.severity)
        return Verdict(
            product=found.product, verdict=found.verdict, severity=severity, reason=found.reason, boxes=boxes
        )

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="the product's .fsad file")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    uvicorn.run(create_app(args.artifact), port=args.port)
