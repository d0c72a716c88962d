"""A listener: a shared model, and what differs from it for one person."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.predictor import encode_clips
from dsaml_jax.evaluation.windows import Clips, map_windows
from dsaml_jax.meta import MetaParams
from dsaml_jax.meta.subset import merge
from dsaml_jax.model.batch import Batch, Encoded
from dsaml_jax.model.objective import encoder_is_frozen
from dsaml_jax.model.weights import Weights
from dsaml_jax.personal.curves import Curves
from dsaml_jax.personal.prediction import predict_songs
from dsaml_jax.personal.rating import Rating, joined
from dsaml_jax.personal.shared import SharedModel, flat
from dsaml_jax.personal.sound import FeatureSource, Span, whole_span
from dsaml_jax.personal.support import level_notes, rated_span, support_batch, support_song

Progress = Callable[[float, str], None]
"""(share that is done, 0 to 1, what is being done); called from the calling thread."""

PathLike = str | Path

_TOGETHER_S = 1200.0
"""Seconds of sound whose features are in memory at once, if a song is not longer."""


@dataclasses.dataclass(frozen=True)
class RatedSong:
    """What a listener was inferred from.

    Attributes:
      audio, ratings: where they were read from.
      clips: number of clips of S segments.
      notes: sentences about what was used and what was left out.
    """

    audio: str
    ratings: str
    clips: int
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Listener:
    """A model of one listener, or of nobody in particular before it is adapted.

    Attributes:
      shared: the model that all listeners share.
      adapted: the weights that differ, as a pytree with None in place of the others; None if the
        listener is not adapted.
      songs: what it was adapted to.
      losses: [K + 1] support losses along the inner loop.
      cache: folder in which the features of songs are kept; "" to compute them every time.
      processes: processes that compute features; 0 for one per core.
    """

    shared: SharedModel
    adapted: Any = None
    songs: tuple[RatedSong, ...] = ()
    losses: tuple[float, ...] = ()
    cache: str = ""
    processes: int = 1

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        shared: PathLike | None = None,
        experiment: Experiment | None = None,
        embedding_weights: str = "",
        cache: PathLike | None = None,
        processes: int = 1,
    ) -> Listener:
        """Opens a model.

        Args:
          path: a run's workdir, an exported folder, a listener's folder, or a `.pt` of the release.
          shared: for a listener's folder, where the shared model is now, if it has moved.
          experiment: for a `.pt`, sizes and settings that are not the release's.
          embedding_weights: ImageBind's file of weights, where the model uses its embedding.
          cache: folder in which features of songs are kept, for songs that are used again.
          processes: processes that compute features; 0 for one per core.

        Raises:
          UserError: there is no model, or it is damaged, unfinished, or another one than the
            listener was adapted from.
        """
        from dsaml_jax.personal.saved import open_listener

        opened = open_listener(Path(path), shared, experiment, embedding_weights)
        return dataclasses.replace(opened, cache=str(cache or ""), processes=processes)

    @property
    def is_adapted(self) -> bool:
        """Whether `predict` gives curves of this listener, beside the population's."""
        return self.adapted is not None

    @property
    def can_adapt(self) -> bool:
        """Whether the shared model is meta-learned."""
        return self.shared.meta is not None and self.shared.inner.steps > 0

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of everything but the songs that curves depend on."""
        if self.adapted is None:
            return self.shared.hash
        digest = hashlib.sha256(self.shared.hash.encode())
        for name, array in sorted(flat(self.adapted).items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def adapt(
        self,
        songs: Sequence[tuple[PathLike, Rating]],
        *,
        clips: int | None = None,
        progress: Progress | None = None,
    ) -> Listener:
        """Infers a listener from rated songs; this one stays as it is.

        It runs the inner loop of evaluation's row `adapted`, from the shared weights, on all songs
        at once: what this listener was adapted to before does not count.

        Args:
          songs: (audio file, rating). A song may be given twice, with an arousal rating and a
            valence rating.
          clips: the largest number of clips of a song; None for all that are rated, 1 for the first
            alone, as in evaluation.
          progress: called as the work goes on.

        Raises:
          UserError: the model cannot adapt; a file cannot be used; or a rating does not fit its
            song.
        """
        meta = self.shared.checked_meta()
        report = progress or _silent
        audio = self.shared.audio
        by_song: dict[str, list[Rating]] = {}
        for path, rating in songs:
            by_song.setdefault(str(path), []).append(rating)
        if not by_song:
            raise UserError("No rated song is given; expected at least one to adapt to.")
        report(0.0, "reading")
        rated = [rated_span(path, joined(given), audio) for path, given in by_song.items()]
        cut = [support_song(song, audio, clips) for song in rated]
        features = []
        for song in self.source().features([song.span for song in rated]):
            features.append(song)
            report(0.8 * len(features) / len(rated), "features")
        batch = support_batch([*zip(features, cut, strict=True)], audio)
        report(0.8, "adapting")
        params, losses = jax.device_get(self.shared.adapter(meta, self._encoded(meta, batch)))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
            raise UserError(
                f"Adapting {self.shared.source} to {', '.join(by_song)} gave weights that are not "
                "finite; check the ratings, or give another song."
            )
        adapted, _ = self.shared.inner.loop().partition(params)
        report(0.9, "comparing")
        population = self._curves(self.shared.population, features)
        described = tuple(
            RatedSong(
                audio=path,
                ratings=" and ".join(rating.source for rating in given),
                clips=len(clip.at),
                notes=(
                    *song.notes,
                    *(
                        [f"{clip.left_out_s:g} s of rating are left out: too short for a clip"]
                        if clip.left_out_s and clips is None
                        else []
                    ),
                    *(
                        [f"{clip.left_out_s:g} s of rating after {clips} clips are left out"]
                        if clip.left_out_s and clips is not None
                        else []
                    ),
                    *level_notes(song, curve),
                ),
            )
            for (path, given), song, clip, curve in zip(
                by_song.items(), rated, cut, population, strict=True
            )
        )
        report(1.0, "done")
        return dataclasses.replace(
            self, adapted=adapted, songs=described, losses=tuple(losses.tolist())
        )

    @overload
    def predict(
        self,
        audio: PathLike,
        *,
        start_s: float = ...,
        end_s: float | None = ...,
        progress: Progress | None = ...,
    ) -> Curves: ...

    @overload
    def predict(
        self,
        audio: Sequence[PathLike],
        *,
        start_s: float = ...,
        end_s: float | None = ...,
        progress: Progress | None = ...,
    ) -> list[Curves]: ...

    def predict(
        self,
        audio: PathLike | Sequence[PathLike],
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        progress: Progress | None = None,
    ) -> Curves | list[Curves]:
        """Predicts the curves of a song, or of several at once, which gives the same numbers.

        The windows and the splicing are those of evaluation. A song shorter than a window of S
        segments is followed by silence up to there, as in evaluation; only its own half seconds are
        returned. A last half second that the song fills in part is returned.

        Args:
          audio: one file, or several.
          start_s: where to begin. Evaluation begins where the ratings of a data set do.
          end_s: where to end; None for the end of the song.
          progress: called as the work goes on.

        Raises:
          UserError: a file cannot be used.
        """
        if isinstance(audio, str | Path):
            return self.predict([audio], start_s=start_s, end_s=end_s, progress=progress)[0]
        report = progress or _silent
        spans = [whole_span(path, self.shared.audio, start_s, end_s) for path in audio]
        curves: list[Curves] = []
        for done in self.predict_spans(spans):
            curves.append(done)
            report(len(curves) / len(spans), done.song)
        return curves

    def predict_spans(self, spans: Sequence[Span]) -> Iterator[Curves]:
        """Yields the curves of spans, in order; as many share memory as last 20 minutes."""
        segment_s = self.shared.audio.segment_s
        group: list[Span] = []
        features: list[Any] = []
        for span, song in zip(spans, self.source().features(spans), strict=True):
            group.append(span)
            features.append(song)
            if sum(len(song.log_mel) for song in features) * segment_s >= _TOGETHER_S:
                yield from self._predicted(group, features)
                group, features = [], []
        yield from self._predicted(group, features)

    def save(self, folder: PathLike) -> None:
        """Saves what differs from the shared model, which is named by its hash.

        Raises:
          UserError: the listener is not adapted, or the folder cannot be written.
        """
        from dsaml_jax.personal.saved import save_listener

        save_listener(self, Path(folder))

    @property
    def weights(self) -> Weights:
        """The shared weights with the adapted ones in their place."""
        meta = self.shared.checked_meta()
        _, frozen = self.shared.inner.loop().partition(meta.params)
        return Weights(
            MetaParams(merge(self.adapted, frozen), meta.meta_params.rates), meta.batch_stats
        )

    def source(self) -> FeatureSource:
        """Returns what computes the features of songs for this listener."""
        return FeatureSource(self.shared, self.cache, self.processes)

    def _encoded(self, meta: Weights, batch: Batch) -> Batch:
        """Encodes the support once if the inner loop freezes the encoder, as evaluation does."""
        shared = self.shared
        if not encoder_is_frozen(shared.inner.loop(), meta.params):
            return batch
        inputs = Clips(np.asarray(batch.log_mel), np.asarray(batch.embedding))

        def encode(rows: np.ndarray) -> jax.Array:
            return encode_clips(shared.model, meta.variables, Clips(*(x[rows] for x in inputs)))

        encoded = Encoded(
            jnp.asarray(map_windows(encode, len(batch.curve))), jnp.zeros(()), meta.batch_stats
        )
        return batch._replace(log_mel=None, embedding=None, encoded=encoded)

    def _curves(self, weights: Weights, songs: Sequence[Any]) -> list[np.ndarray]:
        shared = self.shared
        return predict_songs(shared.model, weights.variables, songs, shared.audio, shared.hops)

    def _predicted(self, spans: Sequence[Span], songs: Sequence[Any]) -> Iterator[Curves]:
        if not spans:
            return
        population = self._curves(self.shared.population, songs)
        personal = self._curves(self.weights, songs) if self.is_adapted else [None] * len(songs)
        for span, everybody, own in zip(spans, population, personal, strict=True):
            n = span.segments
            yield Curves(
                span.path,
                span.start_s + self.shared.audio.segment_s * np.arange(n),
                None if own is None else own[:n],
                everybody[:n],
            )


def _silent(share: float, what: str) -> None:
    pass
