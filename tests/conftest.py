"""Settings for the whole test suite.

Most of the suite's time is compilation, so compiled programs are cached and LLVM optimizes less.
Both must be set before JAX starts; neither changes what is computed.
"""

import gc
import importlib.metadata
import os
from pathlib import Path

# The older emitters compile in half the time, and one module for LLVM in nine tenths of the time of
# many. An XLA that does not know a flag would not start.
KNOWN = importlib.metadata.version("jaxlib").startswith("0.10.")
FASTER = " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0" + FASTER * KNOWN)

import jax  # noqa: E402

# librosa compiles functions on import, into a cache that processes starting at the same moment can
# corrupt (numba issue 10128): fill it before the workers start.
import librosa.core.pitch  # noqa: E402
import librosa.util.utils  # noqa: E402, F401
from hypothesis import HealthCheck, settings  # noqa: E402

CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compiled"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Tracing makes many objects and few cycles.
gc.set_threshold(200_000, 50, 50)

# The time of an example depends on the machine's load and on what has been compiled already.
settings.register_profile("dsaml_jax", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dsaml_jax")


def pytest_collection_modifyitems(items):
    """Starts the longest test first, so that no worker waits for it at the end."""
    items.sort(key=lambda item: "test_devices" not in item.nodeid)
