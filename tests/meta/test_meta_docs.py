"""The worked example of the documentation runs, and needs nothing of the music model."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_worked_example_learns():
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
