"""Objects in a picture: the 80 everyday things of the COCO data set.

SSD-MobileNetV2, run by OpenCV. Needs the `tools` extra and the model that
`python -m data_pipeline.assets tools` fetches. A detector this small misses what is small, dark or
crowded: that it finds something is worth more than that it finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from data_pipeline.agents import tool_files

_TOOL = "detector"
_SIDE = 300  # the network's own

# By the data set's numbers, some of which name nothing.
_COCO = """
1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat,
10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench, 16 bird, 17 cat,
18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, 23 bear, 24 zebra, 25 giraffe, 27 backpack,
28 umbrella, 31 handbag, 32 tie, 33 suitcase, 34 frisbee, 35 skis, 36 snowboard, 37 sports ball,
38 kite, 39 baseball bat, 40 baseball glove, 41 skateboard, 42 surfboard, 43 tennis racket,
44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl, 52 banana, 53 apple,
54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake, 62 chair,
63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet, 72 tv, 73 laptop, 74 mouse,
75 remote, 76 keyboard, 77 cell phone, 78 microwave, 79 oven, 80 toaster, 81 sink,
82 refrigerator, 84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear, 89 hair drier,
90 toothbrush
"""
_NAMES = {
    int(number): name
    for number, _, name in (entry.strip().partition(" ") for entry in _COCO.split(","))
}
LABELS = frozenset(_NAMES.values())
"""What can be found."""


@dataclass(frozen=True, slots=True)
class Found:
    """One object. `box` is left, top, right, bottom, relative to the picture's size."""

    label: str
    score: float
    box: tuple[float, float, float, float]


class Detector:
    """Finds objects in pictures. least_score: of what is told; threads: of one call, a setting of
    OpenCV that all in a process share."""

    def __init__(self, *, least_score: float = 0.5, threads: int = 1) -> None:
        self.least_score, self.threads = least_score, threads
        self.key = tool_files.key(_TOOL, least_score)

    def __call__(self, picture: Image.Image) -> list[Found]:
        """The objects in `picture`, the surest first."""
        small = np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE)), np.float32)
        self._net.setInput(np.ascontiguousarray(small.transpose(2, 0, 1)[None]))
        found = []
        for _, number, score, *corners in self._net.forward()[0, 0].tolist():
            if score >= self.least_score and int(number) in _NAMES:
                left, top, right, bottom = (min(max(corner, 0.0), 1.0) for corner in corners)
                found.append(Found(_NAMES[int(number)], score, (left, top, right, bottom)))
        return sorted(found, key=lambda one: -one.score)

    @cached_property
    def _net(self) -> Any:
        cv2 = tool_files.module("cv2", _TOOL)
        folder = tool_files.files(_TOOL)
        cv2.setNumThreads(self.threads)
        return cv2.dnn.readNetFromTensorflow(str(folder / "model.pb"), str(folder / "model.pbtxt"))


def counted(found: Iterable[Found]) -> dict[str, int]:
    """How many of each label."""
    counts: dict[str, int] = {}
    for one in found:
        counts[one.label] = counts.get(one.label, 0) + 1
    return counts
