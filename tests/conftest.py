"""Settings of the whole suite.

Compilation is most of its time: the compiled programs are kept, and LLVM optimizes less. Both must
be set before JAX starts; neither changes what is computed.
"""

import importlib.metadata
import os
from pathlib import Path

# The older emitters compile in half the time. An XLA that does not know a flag would not start.
KNOWN = importlib.metadata.version("jaxlib").startswith("0.10.")
EMITTERS = " --xla_cpu_use_fusion_emitters=false" if KNOWN else ""
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0" + EMITTERS)

import jax  # noqa: E402

# librosa compiles functions where it is imported, into a cache that processes which start at the
# same moment can leave in a state that crashes (numba issue 10128): fill it before the workers do.
import librosa.core.pitch  # noqa: E402
import librosa.util.utils  # noqa: E402, F401
from hypothesis import HealthCheck, settings  # noqa: E402

CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compiled"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# How long an example takes says how busy the machine is, and what was compiled before.
settings.register_profile("dsaml_jax", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dsaml_jax")
