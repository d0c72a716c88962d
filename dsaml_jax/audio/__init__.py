"""Log-mel images and global embeddings from audio."""

from dsaml_jax.audio.numba_cache import ensure_folder

ensure_folder()
