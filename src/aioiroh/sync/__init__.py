"""The package for programs that block: the same names, without `await`.

Everything here is derived from the asynchronous package (see `facade`) and runs on a loop of its own in
a background thread, so it works in threads and also where a loop is running, as in a notebook.
"""

from __future__ import annotations

from .facade import Facade
from .namespace import blocking_module
from .portal import timeout

__all__, __getattr__, __dir__ = blocking_module(
    "aioiroh",
    without=("sync", "testing"),
    rooms=("blobs", "lookup"),
    own=(Facade.__name__, timeout.__name__),
)
