"""Presets: sweeps as TOML files, to run as they are or to copy."""
