"""Preparation: from a data set's folder to songs with features, ready for training."""

from dsaml_jax.preparation.songs import Prepared, prepared_songs

__all__ = ["Prepared", "prepared_songs"]
