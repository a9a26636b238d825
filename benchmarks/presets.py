"""The presets on the shared board, at K = 4: the plan presets.yaml, run as shared_board.py runs its own.

python benchmarks/presets.py
python benchmarks/presets.py --report
"""

from boards import DECISIONS, board_script

if __name__ == "__main__":
    board_script(__doc__, "presets", ["presets.yaml"], DECISIONS)
