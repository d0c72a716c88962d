"""A song survives the trip through its TFDS example."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.datasets import schema


@given(st.lists(st.integers(0, 7), max_size=4), st.booleans(), st.integers(0, 2**31))
def test_decode_inverts_encode(lengths, simulated, seed):
    rng = np.random.default_rng(seed)

    def curve(n):
        return rng.uniform(-1, 1, (n, 2)).astype(np.float32)

    simulated = simulated and sum(lengths) > 0
    song = schema.Song(
        song_id="ä 1",
        duration_s=45.0,
        ratings_start_s=15.0,
        ratings=tuple(
            schema.Rating(f"rater {i}", curve(n), curve(n) if simulated else None)
            for i, n in enumerate(lengths)
        ),
        waveform=rng.integers(-99, 99, 50).astype(np.int16) if simulated else None,
        sample_rate=16_000 if simulated else 0,
        population=curve(3) if simulated else None,
        audio="" if simulated else "audio/1.mp3",
        genre="waltz",
    )
    features = schema.features()
    stored = features.serialize_example(features.encode_example(schema.encode(song)))
    again = schema.decode(features.deserialize_example_np(stored))
    np.testing.assert_equal(vars(again) | {"ratings": None}, vars(song) | {"ratings": None})
    assert len(again.ratings) == len(song.ratings)
    for left, right in zip(again.ratings, song.ratings, strict=True):
        np.testing.assert_equal(vars(left), vars(right))
