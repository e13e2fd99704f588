"""The decorator for compiled code: numba, without the GIL, cached on disk if a folder is writable.

The cache is beside the source file, or else in the user's cache folder. If neither is writable, every process compiles
again. Two rules follow from numba's cache:

- A compiled function calls only compiled functions of its own file, because the cache notices changes in that file
  only. Python passes flat arrays between files. `schema.splitmix` is the exception, because its results never change.
- Every argument keeps one type (dtype, contiguity, writability). Processes that fill the cache at the same time then
  write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Checks for division by zero and wrappers for C callbacks are not needed; they take a third of the compile time.
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled at its first call; called with other argument types it compiles again."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)  # type: ignore[no-any-return]
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return numba.njit(**_OPTIONS)(function)  # type: ignore[no-any-return]
