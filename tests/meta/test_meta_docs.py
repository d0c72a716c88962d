"""The documented example of the meta-learning library, and the library's imports."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_documented_example_learns():
    text = (ROOT / "docs" / "meta_gradients.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    names = {}
    exec(compile(example, "docs/meta_gradients.md", "exec"), names)
    history = names["history"]
    before, after = sum(history[:20]) / 20, sum(history[-20:]) / 20
    print(f"query loss: {before:.2f}, after {len(history)} meta-steps {after:.2f}")
    assert after < 0.7 * before


def test_the_library_does_not_import_the_music_model():
    code = (
        "import sys, dsaml_jax.meta, dsaml_jax.meta.diagnostics\n"
        "print([name for name in sys.modules if name.startswith('dsaml_jax')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = set(ran.stdout.strip("[]\n").replace("'", "").split(", "))
    allowed = {"dsaml_jax", "dsaml_jax.errors", "dsaml_jax.meta"}
    assert {n for n in imported if not n.startswith("dsaml_jax.meta.")} == allowed


def test_the_libraries_import_without_the_run_extra():
    """Imports meta-learning and the model without the packages of the extra `run`."""
    code = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jaxtyping", "librosa", "ml_collections", "matplotlib", "tqdm"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import dsaml_jax.meta.diagnostics, dsaml_jax.model.objective
names = {name.split(".")[1] for name in sys.modules if name.startswith("dsaml_jax.")}
assert names == {"constraints", "errors", "meta", "model"}, names
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
