"""The console script `fewshot-ad`, which is `python -m fewshot_ad` too; torchrun starts modules this way."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import NoReturn


def main() -> NoReturn:
    """Run the program. What cannot even be imported is one message and exit code 2, as every other error is."""
    try:
        from fewshot_ad.cli import main as run
    except (Exception, KeyboardInterrupt) as error:
        _report(error)
        sys.exit(2)
    run()


def _report(error: BaseException) -> None:
    from fewshot_ad.failures import explanation
    from fewshot_ad.printable import printable

    message = "interrupted" if isinstance(error, KeyboardInterrupt) else explanation(error)
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
