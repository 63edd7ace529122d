"""For all tests: what has to be set before torch loads."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes two lines to stderr each time it is used
