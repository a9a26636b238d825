"""The presets on the shared board: accuracy, and how long an inspection takes.

K = 4, three fixed draws; records go where encoder_board.py's go, under the label "preset NAME".

    python benchmarks/presets.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from shared_board import HERE

from fewshot_ad.enrollment.presets import PRESETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rest", nargs="*", help="further arguments of encoder_board.py, after --")
    rest = parser.parse_args().rest
    for name in PRESETS:
        settings = f'{{"preset": "{name}"}}'
        command = [sys.executable, str(HERE / "encoder_board.py"), "--encoders", "lite0_parts", "--shots", "4"]
        subprocess.run([*command, "--settings", settings, "--label", f"preset {name}", *rest], check=True)


if __name__ == "__main__":
    main()
