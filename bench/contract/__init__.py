"""The contract of a variant as checks, for everything registered: pytest and `attnbench check` run them."""
