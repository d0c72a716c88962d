"""Small folders in the layouts of the real data sets, for tests to write and spoil."""

import json

import numpy as np
import soundfile

DEAM_AVERAGED = "annotations averaged per song/dynamic (per second annotations)"
DEAM_PER_RATER = "annotations per each rater/dynamic (per second annotations)"


def audio(path, seconds):
    """Writes quiet noise of the given length; the suffix determines the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.01, int(seconds * 8000))
    soundfile.write(path, noise, 8000)
    return path


def table(path, header, rows, joint=","):
    """Writes a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *rows]
    text = "\n".join(joint.join(str(cell) for cell in line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def sample_header(first, values, start_ms=15000):
    return [*first, *(f"sample_{start_ms + 500 * i}ms" for i in range(values))]


def wave(n, level=0.0, size=0.3):
    """n values that move, rounded as files hold them."""
    return [round(level + size * float(np.sin(i / 5 + level)), 4) for i in range(n)]


def deam(root):
    """DEAM with its quirks. Songs: 2 (45 s), 1001 and 1002 (45 s), 2001 (whole).

    1001 has a WorkerId twice, 1002 has audio shorter than its ratings, 3 has labels and no audio,
    9 has audio and no labels, the raters of 2 have no ids, tails are ragged.
    """
    annotations = root / "DEAM_Annotations" / "annotations"
    whole = 70
    for dimension, level in (("arousal", 0.2), ("valence", -0.2)):
        table(
            annotations / DEAM_AVERAGED / f"{dimension}.csv",
            sample_header(["song_id"], whole),
            [
                [2, *wave(60, level)],
                [3, *wave(60, level)],
                [1001, *wave(60, level), *[""] * 10],
                [1002, *wave(60, level)],
                # One value more in arousal than in valence, as a few songs of DEAM have.
                [2001, *wave(whole if dimension == "arousal" else whole - 1, level)],
            ],
            joint=", ",
        )
        folder = annotations / DEAM_PER_RATER / dimension
        table(folder / "2.csv", sample_header([], 60), [wave(60, level), wave(60, level)])
        table(
            folder / "1001.csv",
            sample_header(["WorkerId"], 61),
            [
                ["w1", *wave(60, level)],
                ["w2", *wave(61, level + 0.1)],
                ["w1", *wave(60, level + 0.3)],
            ],
            joint=", ",
        )
        table(
            folder / "1002.csv",
            sample_header(["WorkerId"], 60),
            [["w1", *wave(60, level)], ["w3", *[0.5] * 60]],
        )
        raters = [["w2", *wave(whole, level)]]
        raters += [["w4", *wave(whole, level)]] if dimension == "valence" else []
        table(folder / "2001.csv", sample_header(["WorkerId"], whole), raters)
    table(
        root / "metadata" / "metadata_2013.csv",
        ["song_id", "file_name", "Artist", "Song title", "start", "end", "Genre"],
        [[2, "2.mp3", "\tSomeone", '"A song, slow\t"', 1.0, 1.45, "Blues"]],
        joint=", ",
    )
    clips = root / "DEAM_audio" / "MEMD_audio"
    for song_id, seconds in (("2", 45.0), ("1001", 44.7), ("1002", 40.1), ("2001", 51), ("9", 1)):
        audio(clips / f"{song_id}.mp3", seconds)
    (clips / "._2.mp3").write_bytes(b"a trace of another system")
    return root


def deam_file(root, dimension, song_id=None):
    """One of its tables: a song's raters, or the averages."""
    annotations = root / "DEAM_Annotations" / "annotations"
    if song_id is None:
        return annotations / DEAM_AVERAGED / f"{dimension}.csv"
    return annotations / DEAM_PER_RATER / dimension / f"{song_id}.csv"


def pmemo(root):
    """PMEmo of 2019: songs 1 and 4, song 5 without audio, audio 6 without labels."""
    rows = []
    for song_id, n in ((1, 34), (4, 2), (5, 10)):
        for i in range(n):
            rows.append([song_id, 15.5 + i / 2, 0.5 + 0.01 * (i % 7), 0.6])
    table(
        root / "annotations" / "dynamic_annotations.csv",
        ["musicId", "frameTime", "Arousal(mean)", "Valence(mean)"],
        rows,
    )
    table(
        root / "metadata.csv",
        ["musicId", "fileName", "title", "artist", "album", "duration"],
        [[1, "1.mp3", "One", "Somebody", '"An album, vol. 2"', 32.1]],
    )
    for song_id, seconds in ((1, 32.1), (4, 16.1), (6, 20)):
        audio(root / "chorus" / f"{song_id}.mp3", seconds)
    return root


def pmemo_2018(root, header=("userId", "static", "dynamic")):
    """PMEmo of 2018: two subjects on song 7, of whom one rated two half seconds more."""
    for folder, letter, level in (("Arousal", "A", 0.5), ("Valence", "V", 0.4)):
        table(
            root / "Annotations" / folder / f"7-{letter}.csv",
            header,
            [[100177, 0.5, *wave(20, level, 0.2)], [100178, 0.6, *wave(22, level, 0.1)]],
        )
    audio(root / "Chorus" / "7.mp3", 26.5)
    return root


PERSON = {"age": "21-25", "gender": "Male", "country": "US", "musicianship": 1}
ANSWER = {
    "ex1_arousal": "1",
    "ex1_description": "my dog would howl to this",
    "ex1_valence": "2",
    "ex2_arousal": "1",
    "ex2_valence": "0",
}


def annotation(bars, level, person, answer):
    return {
        "arousal": wave(bars, level),
        "valence": wave(bars, -level),
        "isKnown": False,
        **PERSON,
        **person,
        **answer,
    }


def vgmidi_set():
    """Two pieces, two raters of both, an orphan, and three raters of one profile, no answers."""
    first, second = ANSWER, ANSWER | {"ex1_description": "rather sad"}
    silent = {"age": "61-65"}
    return {
        "pieces": {
            "piece0": {"midi": "A tune.mid", "duration": 6, "measures": 4, "name": "A tune"},
            "piece1": {"midi": "Another.mid", "duration": 5, "measures": 5, "name": "Another"},
        },
        "annotations": {
            "piece0_1": annotation(4, 0.1, {}, first),
            "piece1_1": annotation(5, 0.2, {}, first),
            "piece0_2": annotation(4, 0.3, {}, second),
            "piece1_2": annotation(5, 0.4, {}, second),
            "piece0_3": annotation(4, 0.5, silent, {}),
            "piece1_3": annotation(5, 0.5, silent, {}),
            "piece1_4": annotation(5, 0.6, silent, {}),
            "piece81_1": annotation(4, 0.1, {}, first),
        },
    }


def vgmidi(root, content=None, folder="labeled"):
    """VGMIDI's labeled part; MIDI of piece 0 alone, and a file that no piece names."""
    base = root / folder
    (base / "annotations").mkdir(parents=True)
    (base / "midi").mkdir()
    text = json.dumps(vgmidi_set() if content is None else content)
    (base / "annotations" / "vgmidi_raw_1.json").write_text(text)
    for name in ("A tune.mid", "Unlabeled.mid"):
        (base / "midi" / name).write_bytes(midi_bytes(6))
    return root


def midi_bytes(seconds, note=60):
    """Returns a MIDI file with one note of the given length, at 120 beats per minute."""
    ticks = round(seconds * 960)
    length = bytes([0x80 | ticks >> 14, 0x80 | (ticks >> 7) & 0x7F, ticks & 0x7F])
    track = bytes([0, 0x90, note, 100]) + length + bytes([0x80, note, 0, 0, 0xFF, 0x2F, 0])
    return b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk" + len(track).to_bytes(4, "big") + track
