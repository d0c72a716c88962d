"""Evaluation sets: whole songs from windows, both protocols, and consensus of other raters."""

import dataclasses

import jax
import numpy as np
import pytest

from dsaml_jax.audio.features import SongFeatures
from dsaml_jax.commands.evaluate import eval_sets
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.data.corpus import build_corpus
from dsaml_jax.data.scaling import Scaling
from dsaml_jax.data.tasks import fixed_episodes, same_song_episodes
from dsaml_jax.datasets.schema import EVERYONE, Rating, Song
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation import encoding, predictor
from dsaml_jax.evaluation.consensus import consensus_curves
from dsaml_jax.evaluation.methods import support_error
from dsaml_jax.evaluation.predictor import make_predictor, predict_windows
from dsaml_jax.evaluation.protocols import EvalSet
from dsaml_jax.evaluation.sequences import episode_sequences, song_sequences
from dsaml_jax.evaluation.splicing import song_windows, splice
from dsaml_jax.evaluation.windows import episode_windows, window_inputs, window_plan
from dsaml_jax.meta import MetaParams
from dsaml_jax.model import initialize
from dsaml_jax.model.weights import Weights
from tests import tiny

S, HOPS = 12, (5, 1)
LENGTHS = (31, 12, 24, 40)
WIDTH = 4


def curve(rng, length):
    return np.cumsum(rng.normal(0, 0.1, (length, 2)), axis=0).astype(np.float32)


def songs_and_features(image=(3, 2), per_segment=False):
    """Returns four songs of different lengths with ratings by three annotators, and features."""
    rng = np.random.default_rng(0)
    songs, features = [], []
    for i, length in enumerate(LENGTHS):
        ratings = [
            Rating(name, curve(rng, max(S - 2, length - cut)))
            for name, cut in (("a", 0), ("b", 3), ("c", 9))
        ]
        ratings.append(Rating(EVERYONE, curve(rng, length)))
        songs.append(Song(f"song {i}", 60.0, 0.0, tuple(ratings)))
        last, hop = (length - 1, 1) if per_segment else (length - S, 5)
        starts = np.unique([*range(0, last, hop), last])
        features.append(
            SongFeatures(
                rng.normal(size=(length, *image)).astype(np.float32),
                rng.normal(size=(len(starts), WIDTH)).astype(np.float32),
                starts,
            )
        )
    return songs, features


def corpus_of(whole_songs=True, labels="personal", **changes):
    songs, features = songs_and_features(**changes)
    return build_corpus(
        songs,
        features,
        segments=S,
        min_songs=2,
        source="here",
        labels=labels,
        whole_songs=whole_songs,
        embedding_per_segment=changes.get("per_segment", False),
    )


def eval_set_of(corpus, sequences, episodes=None):
    return EvalSet(
        corpus, episodes, sequences, window_inputs(corpus), window_plan(corpus, sequences, HOPS)
    )


def fake_model(log_mel, embedding):
    """Returns curves that depend on the segment and on its window, in place of a model's."""
    values = np.stack([log_mel.mean((-2, -1)), log_mel.max((-2, -1))], -1)
    return values * np.arange(1, S + 1)[:, None] + embedding[..., :1, None]


def test_whole_songs_equal_splicing_each_song_alone():
    corpus = corpus_of()
    eval_set = eval_set_of(corpus, song_sequences(corpus))
    log_mel, embedding = eval_set.clips(np.arange(len(eval_set.plan.at)))
    curves = eval_set.plan.splice(fake_model(np.asarray(log_mel), np.asarray(embedding)))
    assert curves.shape == (12, max(LENGTHS), 2)
    for m, song in enumerate(eval_set.sequences.song):
        features = corpus.features[song]
        length = len(features.log_mel)

        plan = song_windows(length, S, HOPS)
        windows = features.log_mel[plan.starts[:, None] + np.arange(S)]
        # A window has the embedding of the embedded window whose start is nearest.
        nearest = np.abs(features.starts[:, None] - plan.starts).argmin(0)
        window_curves = fake_model(windows, features.embeddings[nearest])
        whole = splice(window_curves, plan.window, plan.position)
        np.testing.assert_allclose(curves[m, :length], whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("whole_songs", [True, False])
def test_windows_have_the_embeddings_of_their_segments(whole_songs):
    corpus = corpus_of(whole_songs, per_segment=True)
    _, features = songs_and_features(per_segment=True)
    assert corpus.tables.embedding.shape == (4, S, WIDTH)
    scaled = corpus.scaled(Scaling.of(corpus.tables.embedding))
    eval_set = eval_set_of(scaled, song_sequences(scaled))
    log_mel, embedding = map(np.asarray, eval_set.clips(np.arange(len(eval_set.plan.at))))
    assert embedding.shape == (len(log_mel), S, WIDTH)
    # The embedding of the segment whose image is in that place, scaled over all segments.
    first = np.concatenate([song.embeddings[:S] for song in features])
    images = np.concatenate([song.log_mel for song in features])
    rows = (np.concatenate([song.embeddings for song in features]) - first.mean(0)) / first.std(0)
    for image, row in zip(log_mel.reshape(-1, 3, 2), embedding.reshape(-1, WIDTH), strict=True):
        place = np.flatnonzero((images == image).all((1, 2)))
        np.testing.assert_allclose(row, rows[place[0]], atol=1e-5)


def test_first_clips_have_one_window_each():
    corpus = corpus_of(whole_songs=False)
    eval_set = eval_set_of(corpus, song_sequences(corpus))
    assert eval_set.plan.at.tolist() == [0, S, 2 * S, 3 * S]
    assert eval_set.sequences.curve.shape == (12, S, 2)
    np.testing.assert_array_equal(eval_set.plan.position[0, :, 0], np.arange(S))
    np.testing.assert_array_equal(eval_set.sequences.curve, corpus.tables.curve)
    # Segments past the end of a rating are not valid.
    assert eval_set.sequences.valid.sum(1).min() == S - 2


def test_the_same_song_protocol_tests_only_the_rest_of_the_song():
    corpus = corpus_of()
    episodes = same_song_episodes(corpus, seed=0)
    # Ratings of two clips or more: all of the first and last song, one of the third.
    rated = [corpus.valid[r].sum() for r in episodes.support[:, 0]]
    assert sorted(rated) == [24, 28, 31, 31, 37, 40]
    np.testing.assert_array_equal(episodes.support, episodes.query)
    owner = np.asarray(corpus.tables.annotator_of)
    assert (owner[episodes.control[:, 0]] != episodes.annotator).all()
    assert episodes.same_songs.all()
    sequences = episode_sequences(corpus, episodes, first=S)
    for m, rating in enumerate(sequences.rating):
        length = int(sequences.valid[m].sum())
        np.testing.assert_array_equal(
            sequences.curve[m, :length], corpus.curve[rating, S : S + length]
        )
    plan = window_plan(corpus, sequences, HOPS)
    start = (
        plan.at
        - np.concatenate([[0], np.cumsum(LENGTHS)])[
            np.searchsorted(np.cumsum(LENGTHS), plan.at, side="right")
        ]
    )
    used = start[plan.window[sequences.valid]]
    assert used.min() == S, "no window of the tested part overlaps the support"


def test_the_same_song_protocol_rejects_short_songs():
    with pytest.raises(UserError, match="two clips"):
        same_song_episodes(corpus_of(whole_songs=False), seed=0)


def test_splicing_by_episode_gives_the_same_curves():
    corpus = corpus_of()
    episodes = fixed_episodes(corpus, support=1, episodes=2, query=2, seed=0)
    sequences = episode_sequences(corpus, episodes)
    plan = window_plan(corpus, sequences, HOPS)
    windows = np.random.default_rng(0).normal(size=(len(plan.at), S, 2))
    needed, local = episode_windows(plan, sequences, len(episodes.annotator))
    curves = plan.splice(windows)
    for m, episode in enumerate(sequences.episode):
        curve = splice(windows[needed[episode]], local[m], plan.position[m])
        valid = sequences.valid[m]
        np.testing.assert_array_equal(curve[valid], curves[m][valid])


def test_consensus_is_the_mean_of_the_other_raters():
    corpus = corpus_of()
    songs, _ = songs_and_features()
    stranger = Rating("of another split", np.full((5, 2), 0.7, np.float32))
    corpus = dataclasses.replace(
        corpus,
        ratings_by_song=((*corpus.ratings_by_song[0], stranger), *corpus.ratings_by_song[1:]),
    )
    sequences = song_sequences(corpus)
    fallback = np.array([9.0, 8.0])
    curves, segments_without_other_raters = consensus_curves(corpus, sequences, fallback)
    by_name = [{r.annotator_id: r.curve for r in song.ratings} for song in songs]
    first = [m for m in range(12) if sequences.song[m] == 0]
    b, c = (by_name[0][name] for name in "bc")
    of_a = next(m for m in first if corpus.annotator_ids[sequences.unit[m]] == "a")
    np.testing.assert_allclose(curves[of_a, :5], (b[:5] + c[:5] + 0.7) / 3, rtol=1e-6)
    np.testing.assert_allclose(curves[of_a, 5:22], (b[5:22] + c[5:22]) / 2, rtol=1e-6)
    np.testing.assert_allclose(curves[of_a, 22:28], b[22:28], rtol=1e-6)
    np.testing.assert_array_equal(curves[of_a, 28:31], [fallback] * 3)
    # Where only "a" rates: the last three segments of every long song, two of the short one.
    assert segments_without_other_raters == 3 + 2 + 3 + 3


@pytest.fixture(scope="module")
def small():
    """Returns a tiny experiment, random weights for its model, and a corpus of long songs."""
    config = tiny.get_config()
    config.evaluation.whole_songs = True
    config.evaluation.hops = HOPS
    config.evaluation.protocols = ("cross_song", "same_song")
    experiment = experiment_from_config(config.to_dict())
    image = experiment.audio.image
    variables = initialize(experiment.model, jax.random.key(0), image, WIDTH)
    weights = Weights(MetaParams(variables["params"], {}), variables.get("batch_stats", {}))
    return experiment, weights, corpus_of(image=image)


@pytest.mark.parametrize("per_segment", [False, True])
def test_what_windows_share_changes_no_curve(small, per_segment):
    """Checks overlapping windows, of an evaluation set and of one song, against each alone."""
    experiment = small[0]
    model = dataclasses.replace(experiment.model, normalization="running")
    corpus = corpus_of(image=experiment.audio.image, per_segment=per_segment)
    variables = initialize(model, jax.random.key(0), experiment.audio.image, WIDTH)
    weights = Weights(MetaParams(variables["params"], {}), variables["batch_stats"])
    eval_set = eval_set_of(corpus, song_sequences(corpus))
    assert encoding.blocks_of(model, eval_set.windows, sum(LENGTHS)) is not None
    together = predict_windows(model, weights, eval_set)
    clips = eval_set.clips(np.arange(len(eval_set.plan.at)))
    alone = np.asarray(encoding.read_clips(encoding.curves_of, model, variables, clips))
    assert together.std() > 1e-4
    np.testing.assert_allclose(together, alone, atol=1e-6)
    whole = encoding.predict_song(model, variables, corpus.features[3], S, HOPS)
    rated = int(np.flatnonzero(eval_set.sequences.song == 3)[0])
    spliced = eval_set.plan.splice(alone)[rated]
    np.testing.assert_allclose(whole, spliced[: LENGTHS[3]], atol=1e-6)
    # A song of one window has nothing to share, and other normalizations are never shared.
    one = eval_set.windows._replace(at=np.zeros(1, int), row=eval_set.windows.row[:1])
    assert encoding.blocks_of(model, one, sum(LENGTHS)) is None
    assert encoding.blocks_of(experiment.model, eval_set.windows, sum(LENGTHS)) is None


@pytest.mark.parametrize("protocol", ["cross_song", "same_song"])
def test_zero_inner_steps_predict_what_the_model_does(small, protocol):
    """Checks that chunks, rounds of windows and gathering change nothing with K = 0."""
    experiment, weights, corpus = small
    eval_set = eval_sets(experiment, corpus)[protocol]
    predict = make_predictor(experiment.model, experiment.inner.without_steps(), chunk=4)
    curves, losses = predict(weights, eval_set, eval_set.episodes.support)
    plain = eval_set.plan.splice(predict_windows(experiment.model, weights, eval_set))
    assert losses.shape == (len(eval_set.episodes.annotator), 1)
    valid = eval_set.sequences.valid
    np.testing.assert_allclose(curves[valid], plain[valid], rtol=1e-4, atol=1e-5)
    if protocol == "same_song":
        window_predictions = predict_windows(experiment.model, weights, eval_set)
        rating = eval_set.episodes.support[0, 0]
        song = int(corpus.tables.song_of[rating])
        expected = (corpus.curve[rating, :S] - window_predictions[song]).mean(0)
        np.testing.assert_allclose(
            support_error(window_predictions, corpus.tables, eval_set.episodes.support)[0],
            expected,
            rtol=1e-5,
            atol=1e-6,
        )


def test_encoding_once_for_all_heads_gives_the_same_curves(small, monkeypatch):
    experiment, weights, corpus = small
    inner = dataclasses.replace(
        experiment.inner, adapt="predictor/output", rates="fixed", rates_learning_rate=0.0
    )
    eval_set = eval_sets(experiment, corpus)["cross_song"]
    once, losses = make_predictor(experiment.model, inner, 4)(
        weights, eval_set, eval_set.episodes.support
    )
    monkeypatch.setattr(predictor, "_FEATURE_BYTES", 0)
    repeated, _ = make_predictor(experiment.model, inner, 4)(
        weights, eval_set, eval_set.episodes.support
    )
    valid = eval_set.sequences.valid
    np.testing.assert_allclose(once[valid], repeated[valid], rtol=1e-4, atol=1e-5)
    assert (losses[:, -1] != losses[:, 0]).all()
