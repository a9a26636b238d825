"""An asyncio loop on a thread of its own, for the servers that a control system reads from."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from fewshot_ad.line.sinks.sink import SinkError

_Result = TypeVar("_Result")
# Seconds that one piece of work may take; opening a server is the longest.
PATIENCE_S = 30.0


class LoopThread:
    """A loop that runs until it is closed.

    Args:
        name: Of its thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Have something done there, and wait for it.

        Args:
            work: What is to be done.

        Returns:
            What comes of it.

        Raises:
            SinkError: It takes too long; it is given up.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(PATIENCE_S)
        except concurrent.futures.TimeoutError as error:
            future.cancel()
            raise SinkError(
                f"expected a server to answer within {PATIENCE_S:g} s, got no answer. Is this computer overloaded?"
            ) from error

    def close(self, last: Coroutine[Any, Any, object] | None = None) -> None:
        """End what still runs there, and the thread.

        Args:
            last: What is to be done before, such as to end a server; where it fails, the thread ends all the same.

        Raises:
            SinkError: That takes too long.
        """
        try:
            if last is not None:
                self.run(last)
        finally:
            self._end()

    def _end(self) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
