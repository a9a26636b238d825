"""The zoo on the shared board: accuracy, time to fit, milliseconds per image and size of each method.

Runs the plans zoo_board.yaml (K = 4 and 8) and zoo_board_full.yaml (all images) as shared_board.py runs its own;
`--plans` names others: zoo_board_survey.yaml, zoo_board_survey_trained.yaml, zoo_board_efficientad.yaml,
zoo_board_labeled.yaml, zoo_board_detectors.yaml, zoo_board_noisy.yaml.

    python benchmarks/zoo_board.py                     # needs the extra `zoo` and ../shared/data
    python benchmarks/zoo_board.py --report            # the tables of what is on record
    python benchmarks/zoo_board.py --html report.html  # and the page
"""

from boards import board_script

if __name__ == "__main__":
    board_script(__doc__, "zoo_board", ["zoo_board.yaml", "zoo_board_full.yaml"])
