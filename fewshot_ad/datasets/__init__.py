"""Readers of public inspection datasets in their published layouts."""
