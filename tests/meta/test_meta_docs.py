"""The documented examples of the meta-learning library, and the library's imports."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsaml_jax.meta import ENGINES, Engine, Unrolled

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names():
    """Runs the examples of the guide in order; returns what they define."""
    text = (ROOT / "docs" / "meta_gradients.md").read_text()
    defined = {}
    for example in text.split("```python\n")[1:]:
        exec(compile(example.split("```")[0], "docs/meta_gradients.md", "exec"), defined)
    return defined


def test_the_sinusoid_example_learns(names):
    history = names["history"]
    before, after = sum(history[:20]) / 20, sum(history[-20:]) / 20
    print(f"query loss: {before:.2f}, after {len(history)} meta-steps {after:.2f}")
    assert after < 0.7 * before


def test_the_reader_learns_a_language_while_it_reads(names):
    before, after = names["before"], names["after"]
    print("loss by tenth of the text:", np.round(after.reshape(10, 10).mean(1), 2))
    print(f"mean {after.mean():.3f}, before meta-training {before.mean():.3f}")
    assert after.mean() < before.mean() - 0.1
    assert after[-20:].mean() < after[:3].mean() - 0.3


def test_mixed_mode_in_chunks_needs_a_fortieth_of_the_memory_of_reverse_mode(names):
    def memory(engine):
        gradient = functools.partial(names["text_gradient"], Unrolled(engine=engine))
        compiled = jax.jit(gradient).lower(names["reader"], jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    reverse, mixed = memory(ENGINES["reverse"]), memory(Engine(mixed=True, chunk=10))
    print(f"reverse {reverse / 2**20:.1f} MiB, mixed in chunks {mixed / 2**20:.1f} MiB")
    assert mixed < reverse / 40


def test_the_online_example_forgets_less(names):
    forgetting = names["forgetting"]
    assert np.mean(forgetting[-10:]) < 0.8 * np.mean(forgetting[:10])


def test_the_example_of_batch_statistics_has_finite_gradients(names):
    assert names["result"].losses.shape == (20,)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(names["gradient"]))
    assert float(jnp.abs(names["gradient"].params["w"]).max()) > 1e-4


def test_the_learned_loss_and_optimizer_beat_those_they_start_from(names):
    errors = names["errors"]
    print(f"error: {np.mean(errors[:10]):.3f}, after meta-learning {np.mean(errors[-10:]):.3f}")
    assert np.mean(errors[-10:]) < 0.5 * np.mean(errors[:10])
    assert names["missing"] == ["params/loss/log_scale", "params/loss/log_slope"]


def test_reweighting_tells_wrong_labels_from_right_ones(names):
    trust = np.asarray(names["trust"])
    wrong, right = trust[:20].mean(), trust[20:].mean()
    print(f"mean weight of wrong labels {wrong:.2f}, of right ones {right:.2f}")
    assert wrong < right - 0.2


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
