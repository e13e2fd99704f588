"""Where files are kept that were fetched or built once and that all data folders of a user share."""

from __future__ import annotations

from pathlib import Path

from schema.settings import Settings


def cache_folder(settings: Settings, name: str) -> Path:
    """Return the cache folder of that name, which may not exist yet.

    It is in `settings.cache_dir` if that is set. Otherwise it is in the user's home folder, which all data folders
    share, or in `settings.data_dir` if the home folder is not writable.
    """
    if settings.cache_dir is not None:
        return settings.cache_dir / name
    try:
        shared = Path.home() / ".cache" / "feedmill" / name
        shared.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return settings.data_dir.absolute() / "cache" / name
    return shared
