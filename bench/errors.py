"""The errors of this folder: one sentence that names the mistake and the next step. The command line exits with 2."""


class BenchError(ValueError):
    """A request that cannot be carried out."""


class ConfigError(BenchError):
    """A configuration, an option or a preset that makes no sense."""


class InputsError(BenchError):
    """Input that cannot be had: a model or text that is missing, a length that the model cannot reach."""
