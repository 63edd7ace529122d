"""What the fork server imports once, so that no worker has to: torch and every variant of the package.

Imports only. A thread pool started here would not survive the fork.
"""

from ..variants import api, registry

registry.discover()

__all__ = ["api"]
