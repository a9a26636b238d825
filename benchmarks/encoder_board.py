"""The encoders side by side on the shared board: what training brought, product by product.

Runs the plan encoder_board.yaml as shared_board.py runs its own. Encoders that ship were never trained on a product of
the board. Other questions about views and banks have plans of their own:

    python benchmarks/encoder_board.py                                      # all encoders that ship
    python benchmarks/encoder_board.py --plans benchmarks/views.yaml        # kinds of views
    python benchmarks/encoder_board.py --plans benchmarks/bank_size.yaml    # sizes of the memory bank
    python benchmarks/encoder_board.py --report
"""

from boards import board_script

if __name__ == "__main__":
    board_script(__doc__, "encoder_board", ["encoder_board.yaml"])
