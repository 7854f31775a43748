"""Tiny examples of every layout, as it is published, with files of a second or two."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from scipy.io import savemat

RATE = 16_000
SIZE = (48, 64)
PICTURES_PER_SECOND = 10


def grey_level(i):
    """Level of picture i: pictures are told apart by it, and codecs keep it to within 3."""
    return 16 + (11 * i) % 220


def tone(seconds, hz=440.0, rate=RATE):
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def write_sound(path, seconds=2.0, hz=440.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, hz), RATE)
    return path


def write_video(
    path,
    seconds=2.0,
    *,
    sound=True,
    pictures=True,
    samples=None,
    sound_from_s=0.0,
    gap=(0.0, 0.0),
    rate=RATE,
    options=None,
    colour=None,
):
    """An .mp4 or .mkv whose picture i is grey_level(i), with a tone or with samples.

    colour : (red, green, blue) of all pictures instead
    gap : time from which on the sound comes so much later, in seconds
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        video = audio = None
        if pictures:
            video = container.add_stream("mpeg4", rate=PICTURES_PER_SECOND)
            video.height, video.width = SIZE
            video.pix_fmt = "yuv420p"
            video.gop_size = 5
            video.codec_context.qmin = video.codec_context.qmax = 2
        if sound:
            # PCM keeps the samples; the others have it in AAC, as files of the web do.
            codec = "pcm_s16le" if path.suffix == ".mkv" else "aac"
            audio = container.add_stream(codec, rate=rate, layout="mono")
        if video is not None:
            for i in range(round(seconds * PICTURES_PER_SECOND)):
                picture = np.full((*SIZE, 3), colour or grey_level(i), np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, PICTURES_PER_SECOND)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None:
            wave = tone(seconds, rate=rate) if samples is None else samples
            steps = np.clip(np.round(wave * 32_768), -32_768, 32_767).astype(np.int16)
            for start in range(0, len(steps), 1024):
                block = av.AudioFrame.from_ndarray(
                    steps[None, start : start + 1024], format="s16", layout="mono"
                )
                late_s = sound_from_s + gap[1] * (start >= gap[0] * rate)
                block.sample_rate = rate
                block.pts = start + round(late_s * rate)
                block.time_base = Fraction(1, rate)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def write_table(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


AUDIOSET_CLASSES = """\
index,mid,display_name
0,/m/09x0r,"Speech"
1,/m/0bt9lr,"Dog"
2,/m/05x_td,"Air horn, truck horn"
"""


def write_audioset(folder):
    """Four segments: with video, with sound alone, with nothing, with both."""
    write_table(folder / "class_labels_indices.csv", AUDIOSET_CLASSES)
    write_table(
        folder / "balanced_train_segments.csv",
        "# Segments csv created Sun Mar  5 10:54:25 2017\n"
        "# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '-0RWZT-miFs, 4.000, 6.000, "/m/09x0r,/m/05x_td"\n'
        '--aE2O5G5WE, 0.000, 2.000, "/m/0bt9lr"\n'
        'Y10I9JSvJuQ, 30.000, 32.000, "/m/09x0r"\n',
    )
    write_table(
        folder / "eval_segments.csv",
        "# Segments csv created\n# num_ytids=1\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '--ZhevVpy1s, 5.500, 7.500, "/m/0bt9lr,/m/09x0r"\n',
    )
    write_video(folder / "video" / "-0RWZT-miFs_4000_6000.mp4")
    write_sound(folder / "audio" / "Y--aE2O5G5WE.wav")
    write_sound(folder / "audio" / "Y--ZhevVpy1s_5.500_7.500.wav")
    write_video(folder / "video" / "eval" / "--ZhevVpy1s_5500_7500.mp4", sound=False)
    return folder


def write_dcase2017(folder):
    """Rows as published, their times cut to two seconds."""
    write_table(
        folder / "training_set.csv",
        '-5QrBL6MzLg,60.000,62.000,"Train horn,Train","/m/0284vy3,/m/07jdr"\n'
        '-sfn1NDHWJI,30.000,32.000,"Fire engine, fire truck (siren)",/m/012ndj\n',
    )
    write_table(
        folder / "groundtruth_weak_label_training_set.csv",
        "-5QrBL6MzLg_60.000_62.000.wav\t60.000\t62.000\tTrain horn\n"
        "-sfn1NDHWJI_30.000_32.000.wav\t30.000\t32.000\tFire engine, fire truck (siren)\n"
        "-5QrBL6MzLg_60.000_62.000.wav\t60.000\t62.000\tTrain\n",
    )
    write_table(
        folder / "groundtruth_weak_label_evaluation_set.csv",
        "-JMT0mK0Dbg_30.000_32.000.wav\t30.000\t32.000\tAir horn, truck horn\n"
        "-JMT0mK0Dbg_30.000_32.000.wav\t30.000\t32.000\tCar\n",
    )
    part = folder / "unbalanced_train_segments_training_set_audio_formatted_and_segmented_downloads"
    write_sound(part / "Y-5QrBL6MzLg_60.000_62.000.wav")
    write_sound(part / "Y-sfn1NDHWJI_30.000_32.000.wav")
    write_video(folder / "video" / "-5QrBL6MzLg_60000_62000.mp4")
    write_video(folder / "video" / "-sfn1NDHWJI_30000_32000.mp4")
    write_video(folder / "video" / "-JMT0mK0Dbg_30000_32000.mp4")
    return folder


def write_dcase2018(folder):
    metadata = folder / "metadata"
    write_table(
        metadata / "train" / "weak.csv",
        "filename\tevent_labels\n"
        "Y-BJNMHMZDcU_50.000_52.000.wav\tAlarm_bell_ringing,Dog\n"
        "Y0lNm9pXXHxA_0.000_2.000.wav\tCat;Speech\n",
    )
    write_table(
        metadata / "train" / "unlabel_in_domain.csv",
        "filename\nY-0X1juZHG6I_30.000_32.000.wav\n",
    )
    write_table(
        metadata / "test" / "test.csv",
        "filename\tonset\toffset\tevent_label\n"
        "Y0eh_N-cmcuI_350.000_352.000.wav\t0.467\t0.717\tAlarm_bell_ringing\n"
        "Y0eh_N-cmcuI_350.000_352.000.wav\t1.1\t2.0\tRunning_water\n"
        "Y0eh_N-cmcuI_350.000_352.000.wav\t1.5\t2.0\tAlarm_bell_ringing\n"
        "Y00pbt6aJV8Y_350.000_352.000.wav\t\t\t\n",
    )
    write_table(metadata / "eval" / "eval.csv", "filename\nYSb0169-lqLs_0.000_2.000.wav\n")
    audio = folder / "audio"
    write_sound(audio / "train" / "weak" / "Y-BJNMHMZDcU_50.000_52.000.wav")
    write_sound(audio / "train" / "weak" / "Y0lNm9pXXHxA_0.000_2.000.wav")
    write_sound(audio / "train" / "unlabel_in_domain" / "Y-0X1juZHG6I_30.000_32.000.wav")
    write_sound(audio / "test" / "Y0eh_N-cmcuI_350.000_352.000.wav")
    write_sound(audio / "test" / "Y00pbt6aJV8Y_350.000_352.000.wav")
    write_sound(audio / "eval" / "YSb0169-lqLs_0.000_2.000.wav")
    write_video(folder / "video" / "-BJNMHMZDcU_50000_52000.mp4")
    return folder


SCENE_FILES = (
    ("audio/airport-barcelona-0-0-a.wav", "airport", "barcelona-0", "train"),
    ("audio/airport-barcelona-0-1-a.wav", "airport", "barcelona-0", "train"),
    ("audio/metro_station-helsinki-60-1785-a.wav", "metro_station", "helsinki-60", "train"),
    ("audio/park-london-93-2796-a.wav", "park", "london-93", "test"),
    ("audio/tram-milan-1136-42000-a.wav", "tram", "milan-1136", None),
)


def write_scenes(folder):
    rows = "".join(f"{name}\t{scene}\t{place}\ta\n" for name, scene, place, _ in SCENE_FILES)
    write_table(folder / "meta.csv", "filename\tscene_label\tidentifier\tsource_label\n" + rows)
    setup = folder / "evaluation_setup"
    of = {split: [row for row in SCENE_FILES if row[3] == split] for split in ("train", "test")}
    both = {split: "".join(f"{r[0]}\t{r[1]}\n" for r in rows) for split, rows in of.items()}
    write_table(setup / "fold1_train.txt", both["train"])
    write_table(setup / "fold1_evaluate.txt", both["test"])
    write_table(setup / "fold1_test.txt", "".join(f"{row[0]}\n" for row in of["test"]))
    for name, *_ in SCENE_FILES:
        write_sound(folder / name, 10.0)
    return folder


def write_esc50(folder):
    write_table(
        folder / "meta" / "esc50.csv",
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
        "2-100038-A-14.wav,2,14,chirping_birds,False,100038,A\n",
    )
    write_sound(folder / "audio" / "1-100032-A-0.wav", 5.0)
    write_sound(folder / "audio" / "2-100038-A-14.wav", 5.0)
    return folder


def action_frame(location, subject, action, number, n_microphones=4):
    """Image, stored sound and picture of one frame, told apart by their numbers."""
    rng = np.random.default_rng([location, subject, action, number])
    image = rng.normal(size=(36, 48, 12)).astype(np.float32)
    block = rng.integers(-(2**31), 2**31, (n_microphones, 1024)).astype(np.int32)
    picture = np.full((*SIZE, 3), grey_level(number), np.uint8)
    return image, block, picture


def write_jpeg(path, picture):
    """A JPEG by another encoder than the package's: that of Pillow, which matplotlib brings."""
    from PIL import Image

    Image.fromarray(picture).save(path, quality=95)


def write_actions(folder, recordings=((1, 1, 1), (2, 1, 3)), n_frames=3, settings=True):
    """Recordings of four microphones, the last broken, by scipy, numpy and Pillow."""
    if settings:
        table = {
            "schema": "soundpost.actions/1",
            "name": "tiny",
            "actions": {"1": "clap", "3": "speak"},
            "locations": {"1": "anechoic", "2": "office"},
            "n_microphones": 4,
            "broken_microphones": [3],
        }
        write_table(folder / "actions.json", json.dumps(table))
    for location, subject, action in recordings:
        path = (
            Path(folder)
            / f"Location_{location:02d}"
            / f"Subject_{subject:02d}"
            / f"Action_{action:02d}"
        )
        for kind in ("MFCC_Image", "audio", "video"):
            (path / kind).mkdir(parents=True)
        for number in range(1, n_frames + 1):
            image, block, picture = action_frame(location, subject, action, number)
            savemat(path / "MFCC_Image" / f"Data_{number}.mat", {"MFCC": image})
            np.save(path / "audio" / f"A_{number:06d}.npy", block)
            write_jpeg(path / "video" / f"I_{number:06d}.jpeg", picture)
    return folder
