"""Curves while a song plays: sound in as it arrives, a value out every half second."""

from dsaml_jax.streaming.features import StreamedWindow, StreamingFeatures
from dsaml_jax.streaming.predictor import StreamingPredictor, Value, WindowReader

__all__ = ["StreamedWindow", "StreamingFeatures", "StreamingPredictor", "Value", "WindowReader"]
