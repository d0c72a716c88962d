"""A folder for the functions that librosa compiles on import.

numba caches them beside librosa or in the user's cache folder, and its import fails if neither is
writable, as in a container with read-only packages and no home.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"

_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process exits


def ensure_folder(package: Path | None = None) -> None:
    """Sets `VARIABLE` to a private temporary folder if numba can write nowhere else.

    Call it before librosa is imported.

    Args:
      package: The folder of librosa; None to locate it.
    """
    if package is None:
        spec = importlib.util.find_spec("librosa")
        if spec is None or spec.origin is None:
            return
        package = Path(spec.origin).parent
    if _can_write(package / "__pycache__"):
        return
    configured = os.environ.get(VARIABLE)
    if configured and _can_write(Path(configured)):
        return
    import platformdirs  # a dependency of librosa's

    if _can_write(Path(platformdirs.user_cache_dir("numba", appauthor=False))):
        return
    with contextlib.suppress(OSError):  # numba's own error then names the file
        folder = tempfile.TemporaryDirectory(prefix="numba-")
        _FOLDERS.append(folder)
        os.environ[VARIABLE] = folder.name


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
