"""Templates of new variants, one a family."""
