"""What was measured: immutable records, an append-only store, statistics. Imports nothing of ours and no torch."""
