"""Encoders are trained here, once: distillation, Siamese training, generated parts. Needs the extra `torch`."""
