"""Softmax attention over every key: the yardstick, and the kernels that compute it."""
