"""Curves of one listener from a song that they rated: `Listener.open`, `adapt`, `predict`."""

from dsaml_jax.personal.curves import Curves
from dsaml_jax.personal.listener import Listener, Progress, RatedSong
from dsaml_jax.personal.rating import Bins, Rating, write_rating
from dsaml_jax.personal.rating_files import read_rating

__all__ = [
    "Bins",
    "Curves",
    "Listener",
    "Progress",
    "RatedSong",
    "Rating",
    "read_rating",
    "write_rating",
]
