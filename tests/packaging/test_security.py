"""Calls and modules that could run code from a file: only those that docs/security.md names."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "dsaml_jax"
RUNS_CODE = {
    ("config/files.py", "exec_module"),  # a config file is Python
    ("__init__.py", "import_module"),  # the package's own modules
    ("runtime/pool.py", "import_module"),  # named libraries, before their threads are limited
}
NAMES = {
    *("eval", "exec", "compile_command", "exec_module", "import_module", "system", "popen"),
    *("Popen", "Unpickler", "loads_pickle", "load_module", "run_path", "literal_eval"),
}
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "subprocess"}
MAY_IMPORT = {
    ("interop/torch_file.py", "pickle"),  # the name of an exception, and the magic number
    ("interop/torch_pickle.py", "pickle"),  # the name of an exception
}


def used():
    """Yields (file, name) of calls that could run code from a file, and of imported MODULES."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names if alias.name in MODULES)
            elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
                yield file, str(node.module)
            elif isinstance(node, ast.Call):
                called = node.func
                name = called.attr if isinstance(called, ast.Attribute) else ""
                name = called.id if isinstance(called, ast.Name) else name
                owner = called.value if isinstance(called, ast.Attribute) else None
                is_pickle = isinstance(owner, ast.Name) and owner.id in MODULES
                if name in NAMES or (is_pickle and name in ("load", "loads")):
                    yield file, name
                if any(
                    keyword.arg == "allow_pickle" and getattr(keyword.value, "value", True)
                    for keyword in node.keywords
                ):
                    yield file, "allow_pickle"


def test_only_config_files_run_code():
    assert set(used()) == RUNS_CODE | MAY_IMPORT
