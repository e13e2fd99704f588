"""Check that the libraries of an extra are installed, before a command begins."""

from __future__ import annotations

from importlib.util import find_spec

from schema.errors import ConfigError


def require(purpose: str, extra: str, *modules: str) -> None:
    """Check that all modules can be imported.

    Args:
        purpose: the subject of the error line, such as "training".
        extra: the extra that holds them.

    Raises:
        ConfigError: a module is missing; the line names it and the extra.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{purpose} needs {', '.join(missing)}: install the extra with `pip install feedmill[{extra}]`"
        )


def require_code(purpose: str) -> None:
    """Check that the libraries for source code and tokenizers are installed; raises the error of `require`."""
    require(purpose, "code", "dulwich", "detect_secrets", "tokenizers")
