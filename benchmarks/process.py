"""Memory of this process and load of the machine, as Linux reports them."""

from __future__ import annotations

import os
from pathlib import Path


def load() -> list[float]:
    """Returns the load averages over 1, 5 and 15 minutes.

    On a busy machine only ratios within one run mean anything.
    """
    return [round(value, 2) for value in os.getloadavg()]


def memory() -> int:
    """Returns the bytes of memory that this process occupies."""
    return _status("VmRSS")


def peak_memory() -> int:
    """Returns the largest memory of this process since `reset_peak_memory`, in bytes."""
    return _status("VmHWM")


def reset_peak_memory() -> None:
    """Starts a new measurement of the peak memory."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no field {field}")
