"""How a benchmark tells its numbers: for people, or as one JSON object, on the last line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_json_flag(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--json",
        nargs="?",
        const="",
        metavar="FILE",
        help="the last line is one JSON object; also write it to FILE, if one is given",
    )


def tell(values: dict[str, Any], json_flag: str | None) -> None:
    """Prints the numbers, and writes them to a file where the flag names one."""
    print(json.dumps(values, indent=1 if json_flag is None else None))
    if json_flag:
        Path(json_flag).write_text(json.dumps(values, indent=1) + "\n")
