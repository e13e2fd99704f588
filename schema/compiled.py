"""One decorator for compiled code: numba, without the GIL, cached on disk wherever a folder can be written.

Compiled code is cached beside its source, else in the user's cache folder; where neither can be written each process
compiles anew. A cached function is renewed when its own file changes and not when a file it calls into does, so a
compiled function calls only compiled functions of its own file; between files, flat arrays are passed from Python.
Arguments keep one type each (dtype, contiguity, writability): with one signature, processes that fill the cache at
once write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Nothing divides by zero, and nobody asks for C callbacks: both would cost compile time, a third of it.
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled at its first call; called with other argument types it compiles again."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)  # type: ignore[no-any-return]
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return numba.njit(**_OPTIONS)(function)  # type: ignore[no-any-return]
