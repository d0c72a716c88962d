"""Config files: where the shipped ones are, and how one is loaded.

`--config=demo` names a shipped config, `--config=PATH.py` any other. Config files build on each
other with `from configs import base`; `configs` is the shipped folder, wherever it is installed,
extended by a folder `configs` in the working directory.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from dsaml_jax.config.renamed import new_line
from dsaml_jax.errors import UserError

_PACKAGE = Path(__file__).parents[1]


def shipped_folder() -> Path:
    """Returns the folder of the shipped configs: in the installed package, or in the checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def shipped_names() -> list[str]:
    """Returns the names of the shipped configs, for --config."""
    return sorted(file.stem for file in shipped_folder().glob("[!_]*.py"))


def config_file(name: str) -> Path:
    """Returns the file that --config names: a path, or the name of a shipped config.

    Raises:
      UserError: there is no such file.
    """
    is_name = "/" not in name and not name.endswith(".py")
    file = shipped_folder() / f"{name}.py" if is_name else Path(name)
    if not file.is_file():
        names = shipped_names()
        near = difflib.get_close_matches(Path(name).stem, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"--config: there is no {'config' if is_name else 'file'} {name}; {hint}give a path, "
            f"or one of {', '.join(names)}."
        )
    return file


def load_config(file: Path) -> Any:
    """Returns what `get_config` of a config file returns.

    Raises:
      UserError: the file is no valid Python, has no `get_config`, or fails; its line is named.
    """
    _make_configs_importable()
    spec = importlib.util.spec_from_file_location("config_file", file)
    assert spec is not None and spec.loader is not None  # the file is Python source
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config()
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}.") from error
    except Exception as error:
        lines = traceback.extract_tb(error.__traceback__)
        ours = [
            line for line in lines if Path(line.filename).parent in (file.parent, shipped_folder())
        ]
        line = (ours or lines)[-1]
        reason = new_line(line.line or "") or " ".join(str(error).split())
        raise UserError(f"{line.filename}, line {line.lineno}: {reason}") from error


def _make_configs_importable() -> None:
    if "configs" not in sys.modules:
        package = types.ModuleType("configs")
        folders = [shipped_folder(), Path.cwd() / "configs"]
        package.__path__ = list(dict.fromkeys(str(f) for f in folders if f.is_dir()))
        sys.modules["configs"] = package
