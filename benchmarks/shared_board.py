"""The shared board: accuracy of few-shot enrollment on real products, next to anomalib's PatchCore.

Runs the plan shared_board.yaml through the benchmark engine, one job at a time in a process of its own; stopped at any
point, it goes on where it was. Prints one table for each dataset and number of shots: means over the products, then
mean and standard deviation over the support draws.

    python benchmarks/shared_board.py             # needs the extra `zoo` and ../shared/data
    python benchmarks/shared_board.py --report    # the tables of what is on record
"""

from boards import DECISIONS, board_script

if __name__ == "__main__":
    board_script(__doc__, "shared_board", ["shared_board.yaml"], DECISIONS)
