"""The error of this folder: one sentence that names the mistake and the next step."""


class ReportsError(ValueError):
    """A report that cannot be made as asked."""
