"""Attention through features, landmarks or a fixed-size state: linear in the sequence length."""
