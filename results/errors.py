"""The error of this folder: one sentence that names the file, the mistake and the next step."""


class ResultsError(ValueError):
    """A run folder or a result file that cannot be used."""
