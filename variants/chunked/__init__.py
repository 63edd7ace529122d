"""Attention by chunks of the sequence: exact with a running softmax, or local to a chunk."""
