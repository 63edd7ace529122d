"""Softmax attention over a chosen few keys."""
