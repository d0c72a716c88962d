"""From a data set's folder to songs with features, ready to train on."""

from dsaml_jax.preparation.songs import Prepared, prepared_songs

__all__ = ["Prepared", "prepared_songs"]
