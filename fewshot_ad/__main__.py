"""The console script `fewshot-ad`, which is `python -m fewshot_ad` too; torchrun starts modules this way."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import sys
import traceback
from typing import NoReturn

# What the process ends with, unless the program itself says otherwise.
_exit_code = 2


def main() -> NoReturn:
    """Run the program. What cannot even be imported is one message and exit code 2, as every other error is."""
    global _exit_code
    _own_the_exit_code()
    try:
        from fewshot_ad.cli import main as run
    except (Exception, KeyboardInterrupt) as error:
        _report(error)
        sys.exit(2)
    try:
        run()
    except SystemExit as end:
        _exit_code = end.code if isinstance(end.code, int) else 2
        raise


def _own_the_exit_code() -> None:
    """Let nothing but the program end the process with 0 or 1: 1 means an anomaly.

    Native libraries call the C function exit(1) where memory is short, OpenBLAS for one. So the first thing that exit()
    does is to end the process with 2, and the regular end does not go through exit(). Registered before all others,
    `_leave` runs after them.
    """
    atexit.register(_leave)
    with contextlib.suppress(OSError, AttributeError, TypeError):  # Windows has other functions
        libc = ctypes.CDLL(None)
        libc.__cxa_atexit(ctypes.cast(libc._exit, ctypes.c_void_p), ctypes.c_void_p(2), None)


def _leave() -> None:
    code = _exit_code
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            code = code if stream is None else 2
    os._exit(code)


def _report(error: BaseException) -> None:
    from fewshot_ad.failures import explanation
    from fewshot_ad.printable import printable

    # OpenBLAS, too, raises the signal of Ctrl-C, where it cannot start its threads.
    interrupted = "interrupted while libraries were loading: by Ctrl-C, or one that expected enough memory or threads"
    message = f"{interrupted} and got less." if isinstance(error, KeyboardInterrupt) else explanation(error)
    as_json = "--json" in sys.argv
    try:
        if as_json:
            print(json.dumps({"schema": "fewshot-ad/error/1", "error": message}, allow_nan=False), flush=True)
        elif sys.stderr is not None:
            print(f"error: {printable(message)}", file=sys.stderr)
            if os.environ.get("FEWSHOT_AD_DEBUG"):
                traceback.print_exception(error)
    except OSError:
        # Nobody listens, and the interpreter must not fail at its end for what is left.
        os._exit(2)


if __name__ == "__main__":
    main()
