"""Text that can be read in a picture: where it is, and what it says.

Two networks of PP-OCRv4, run by onnxruntime: one finds lines of text, one reads them. They read
Latin letters, digits and Chinese; `Ocr.can_read` tells what they can't be asked about. Needs the
`tools` extra and the models that `python -m data_pipeline.assets tools` fetches.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.agents import tool_files

_TOOL = "ocr"
_STEP = 32  # the finder's sides are multiples of it
_HEIGHT = 48  # of a line for the reader
_TEXT = 0.3  # probability from which a pixel is text
_GROW = 1.6  # the finder marks the core of a line; this much is put back around it
_LONGEST = 4000  # pixels of a line for the reader: a hair's breadth across the picture is no text


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text. `box` is left, top, right, bottom, relative to the picture's size; `score`
    the reader's mean confidence in its letters."""

    text: str
    score: float
    box: tuple[float, float, float, float]


class Ocr:
    """Reads pictures, each on its own.

    side: pixels of the longer side at which lines are looked for; least_score: of a line that is
    told; threads: of one call.
    """

    def __init__(self, *, side: int = 640, least_score: float = 0.6, threads: int = 1) -> None:
        self.side, self.least_score, self.threads = side, least_score, threads
        self.key = tool_files.key(_TOOL, side, least_score)

    def __call__(self, picture: Image.Image) -> list[Line]:
        """The lines in `picture`, from top to bottom and left to right."""
        picture = picture.convert("RGB")
        image = np.asarray(picture)[:, :, ::-1]  # the networks were trained on blue first
        lines = []
        for corners in self._found(picture):
            text, score = self._read(self._cut(image, corners))
            if text.strip() and score >= self.least_score:
                left, top = corners.min(axis=0) / picture.size
                right, bottom = corners.max(axis=0) / picture.size
                box = (float(left), float(top), float(right), float(bottom))
                lines.append(Line(text.strip(), score, box))
        return sorted(lines, key=lambda line: (round(line.box[1] / 0.02), line.box[0]))

    def can_read(self, text: str) -> bool:
        """Whether all letters of `text` are known: not those of Russian, Greek or Korean."""
        wanted = set(squeezed(text))
        return bool(wanted) and wanted <= self._alphabet

    @cached_property
    def _alphabet(self) -> frozenset[str]:
        return frozenset(squeezed("".join(self._reader[1])))

    @cached_property
    def _cv2(self) -> Any:
        return tool_files.module("cv2", _TOOL)

    @cached_property
    def _finder(self) -> Any:
        return self._session("find.onnx")

    @cached_property
    def _reader(self) -> tuple[Any, list[str]]:
        session = self._session("read.onnx")
        letters = session.get_modelmeta().custom_metadata_map["character"].split("\n")
        return session, ["", *letters, " "]  # class 0 is "no letter"

    def _session(self, file: str) -> Any:
        runtime = tool_files.module("onnxruntime", _TOOL)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = self.threads
        path = tool_files.files(_TOOL) / file
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def _found(self, picture: Image.Image) -> Iterator[NDArray[Any]]:
        """Corners of each line, [4, 2] pixels: top left, top right, bottom right, bottom left."""
        cv2 = self._cv2
        scale = self.side / max(picture.size)
        width, height = (max(_STEP, round(n * scale / _STEP) * _STEP) for n in picture.size)
        small = picture.resize((width, height), Image.Resampling.BILINEAR)
        (found,) = self._finder.run(None, {"x": _network_input(np.asarray(small)[:, :, ::-1])})
        text = found[0, 0]
        mask = cv2.dilate((text > _TEXT).astype(np.uint8), np.ones((2, 2), np.uint8))
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        for outline in outlines:
            centre, (w, h), angle = cv2.minAreaRect(outline)
            if min(w, h) < 3:
                continue
            inside = np.zeros(mask.shape, np.uint8)
            cv2.drawContours(inside, [outline], -1, 1, cv2.FILLED)
            if text[inside > 0].mean() < 0.5:
                continue
            grown = 2 * _GROW * w * h / (2 * (w + h))
            corners = cv2.boxPoints((centre, (w + grown, h + grown), angle))
            yield _in_order(corners) * (picture.width / width, picture.height / height)

    def _cut(self, image: NDArray[Any], corners: NDArray[Any]) -> NDArray[Any]:
        """The line laid flat, upright where it stands on its side."""
        cv2 = self._cv2
        width = max(1, round(math.dist(corners[0], corners[1])))
        height = max(1, round(math.dist(corners[0], corners[3])))
        flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        turn = cv2.getPerspectiveTransform(corners.astype(np.float32), flat)
        cut = cv2.warpPerspective(
            image, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        return np.rot90(cut) if height > 1.5 * width else cut

    def _read(self, line: NDArray[Any]) -> tuple[str, float]:
        session, letters = self._reader
        width = math.ceil(line.shape[1] * _HEIGHT / line.shape[0])
        scaled = self._cv2.resize(line, (min(max(width, _HEIGHT), _LONGEST), _HEIGHT))
        (chances,) = session.run(None, {"x": _network_input(scaled)})
        best = chances[0].argmax(axis=1)
        # A letter stretches over several steps; one that comes twice has "no letter" between.
        first = np.concatenate([[True], best[1:] != best[:-1]]) & (best > 0)
        if not first.any():
            return "", 0.0
        return "".join(letters[n] for n in best[first]), float(chances[0].max(axis=1)[first].mean())


def squeezed(text: str) -> str:
    """Letters and digits alone, without case and accents: the reader drops spaces, and confuses
    what differs by a dot or a dash.

    >>> squeezed("Sortie à 9:15")
    'sortiea915'
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if letter.isalnum())


def shows(lines: Sequence[Line], text: str) -> float:
    """How well `text` can be read in the lines: 1 less the share of its letters that would have to
    be changed, added or left out; 0 where `text` has no letters."""
    wanted = squeezed(text)
    if not wanted:
        return 0.0
    # Edit distance to the best stretch of what was read: any start and any end are free.
    row = list(range(len(wanted) + 1))
    least = row[-1]
    for letter in squeezed("".join(line.text for line in lines)):
        above, row[0] = row[0], 0
        for n, other in enumerate(wanted, 1):
            above, row[n] = row[n], min(row[n] + 1, row[n - 1] + 1, above + (letter != other))
        least = min(least, row[-1])
    return 1 - least / len(wanted)


def _network_input(image: NDArray[Any]) -> NDArray[np.float32]:
    """[H, W, 3] bytes to [1, 3, H, W] in -1..1."""
    scaled = image.astype(np.float32) / 127.5 - 1
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def _in_order(corners: NDArray[Any]) -> NDArray[Any]:
    """Four corners, in any order, from the top left one clockwise."""
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    top_left, bottom_left = sorted(by_x[:2], key=lambda corner: corner[1])
    top_right, bottom_right = sorted(by_x[2:], key=lambda corner: corner[1])
    return np.array([top_left, top_right, bottom_right, bottom_left])
