"""Comparisons with PyTorch (extra `oracle`): the same call, the same numbers."""
