"""What a process of its own needs, and how busy the machine is. Linux."""

from __future__ import annotations

import os
from pathlib import Path


def load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes: timings on a busy machine are ratios at best."""
    return [round(value, 2) for value in os.getloadavg()]


def memory() -> int:
    """Bytes this process has in memory."""
    return _status("VmRSS")


def peak_memory() -> int:
    """Most bytes this process has had in memory since `forget_peak_memory`."""
    return _status("VmHWM")


def forget_peak_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
