"""Config files: where the shipped ones are, and how one is loaded.

`--config=demo` names a shipped config, `--config=PATH.py` any other. Config files build on each
other with `from configs import base`; `configs` is the shipped folder, wherever it is installed,
extended by a folder `configs` in the working directory.
"""

from __future__ import annotations

import difflib
import importlib.machinery
import importlib.util
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError

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
    try:
        exists = file.is_file()
    except (OSError, ValueError):  # such as a name that is too long
        exists = False
    if not exists:
        names = shipped_names()
        near = difflib.get_close_matches(Path(name).stem, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"--config: there is no {'config' if is_name else 'file'} {name}; {hint}give a path, "
            f"or one of {', '.join(names)}."
        )
    return file


def load_config(file: Path) -> ConfigDict:
    """Returns what `get_config` of a config file returns.

    Raises:
      UserError: the file is not valid Python, has no `get_config`, or fails; its line is named.
    """
    _make_configs_importable()
    loader = importlib.machinery.SourceFileLoader("config_file", str(file))
    spec = importlib.util.spec_from_loader("config_file", loader)
    assert spec is not None  # there is a loader
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
        function = getattr(module, "get_config", None)
        if not callable(function):
            raise UserError(
                f"{file} defines no function get_config; expected a Python file that defines one "
                "without parameters that returns the experiment, as configs/demo.py does."
            )
        config = function()
    except UserError:
        raise
    except SystemExit as error:
        raise UserError(
            f"{file} exits the program; expected only a config as its result."
        ) from error
    except OSError as error:
        if error.filename != str(file):
            raise _located(error, file) from error
        raise UserError(f"{file} cannot be read ({error.strerror}).") from error
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise UserError(f"{error.filename or file}{line}: {error.msg}.") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what a config file raises is its own fault
        raise _located(error, file) from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{file}: get_config returns {type(config).__name__}; expected a ConfigDict, as "
            "configs.base.get_config() returns."
        )
    return config


def to_plain_dict(config: ConfigDict) -> dict[str, Any]:
    """Returns a config as nested dicts.

    Raises:
      UserError: a required field is not set, a field name is not a string, or a field contains
        itself.
    """
    try:
        return config.to_dict()
    except RequiredValueError as error:
        field = _unset(config)
        raise UserError(f"{field} is not set; set it with --config.{field}=VALUE.") from error
    except TypeError as error:
        raise UserError(f"--config: field names must be strings ({error}).") from error
    except RecursionError as error:
        raise UserError("--config: a field contains itself; expected plain values.") from error


def _unset(config: ConfigDict) -> str:
    """Returns the path of the first `required_placeholder` without a value; "" if there is none."""
    for name in config:
        try:
            value = config[name]
        except RequiredValueError:
            return str(name)
        inner = _unset(value) if isinstance(value, ConfigDict) else ""
        if inner:
            return f"{name}.{inner}"
    return ""


def _located(error: BaseException, file: Path) -> UserError:
    """Returns an error that names the line of a config file that failed."""
    lines = traceback.extract_tb(error.__traceback__)
    folders = (file.parent, shipped_folder())
    ours = [line for line in lines if Path(line.filename).parent in folders]
    try:
        reason = " ".join(str(error).split()) or type(error).__name__
    except Exception:  # its own __str__ fails
        reason = type(error).__name__
    if not ours:
        return UserError(f"{file}: {reason}")
    return UserError(
        f"{ours[-1].filename}, line {ours[-1].lineno}: {new_line(ours[-1].line or '') or reason}"
    )


def _make_configs_importable() -> None:
    if "configs" not in sys.modules:
        package = types.ModuleType("configs")
        folders = [shipped_folder(), Path.cwd() / "configs"]
        package.__path__ = list(dict.fromkeys(str(f) for f in folders if f.is_dir()))
        sys.modules["configs"] = package
