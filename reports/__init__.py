"""What the results mean: a page, figures and sentences. Reads results only, so that no torch is needed."""
