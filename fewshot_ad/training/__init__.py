"""Trains encoders, once for all products: distillation, Siamese training, generated parts. Needs the extra `torch`."""
