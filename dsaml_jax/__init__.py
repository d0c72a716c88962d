"""DSAML in JAX: what one listener feels while a song plays."""
