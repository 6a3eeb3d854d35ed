"""Pictures as an agent sees them: bounded in number and size, each under its second."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.agents.shown import parts, thinned
from joyvl_train.timeline import TimelineError


def jpeg(width: int, height: int, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def data(part: Any) -> bytes:
    return base64.b64decode(part["image_url"]["url"].partition(",")[2])


@given(st.lists(st.integers(0, 300)).map(sorted), st.integers(2, 40), st.sets(st.integers(0, 300)))
def test_thinned_keeps_the_ends_and_the_marked(
    seconds: list[int], most: int, marked: set[int]
) -> None:
    must = {i for i, second in enumerate(seconds) if second in marked}
    must |= {0, len(seconds) - 1} if seconds else set()
    if len(seconds) > most < len(must):
        with pytest.raises(TimelineError, match="too many pictures"):
            thinned(seconds, most, marked)
        return
    kept = thinned(seconds, most, marked)
    assert len(kept) == min(most, len(seconds)) and kept == sorted(set(kept))
    assert must <= set(kept) <= set(range(len(seconds)))


@given(st.integers(3, 400), st.integers(2, 50))
def test_thinned_is_even(count: int, most: int) -> None:
    assume(most < count)
    kept = thinned(list(range(count)), most)
    gaps = [b - a for a, b in zip(kept, kept[1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_pictures_stand_under_their_second() -> None:
    small = jpeg(8, 6)
    shown = parts([(3, small), (3, Image.new("L", (4, 4))), (5, small)], 10, 64)
    assert [part.get("text") for part in shown] == [
        "<3.0 seconds>", None, None, "<5.0 seconds>", None
    ]  # fmt: skip
    assert data(shown[1]) == data(shown[4]) == small
    assert Image.open(io.BytesIO(data(shown[2]))).mode == "RGB"


@pytest.mark.parametrize("picture", [jpeg(640, 480), Image.new("RGBA", (640, 480))])
def test_a_large_picture_is_made_smaller(picture: Any) -> None:
    (_, shown) = parts([(0, picture)], 1, 100)
    assert Image.open(io.BytesIO(data(shown))).size == (100, 75)
    (_, shown) = parts([(0, Image.new("RGB", (9000, 2)))], 1, 100)
    assert Image.open(io.BytesIO(data(shown))).size == (100, 1)


@pytest.mark.parametrize("broken", [b"", b"GIF89a", jpeg(640, 480)[:700], jpeg(640, 480)[:20]])
def test_what_is_no_jpeg_is_refused(broken: bytes) -> None:
    with pytest.raises(TimelineError, match="unreadable picture"):
        parts([(0, broken)], 1, 100)
