"""OCR on what the rendered world writes into its pictures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.agents.ocr import Line, Ocr, shows, squeezed
from data_pipeline.world.backgrounds import Background
from data_pipeline.world.captions import Caption, languages
from data_pipeline.world.scene import Cut, Scene, draw
from tests.data_pipeline.agents.tools import needs


def written(text: str, **more: object) -> Image.Image:
    caption = Caption(text, **{"language": "en", "start": 0, "stop": 4, **more})  # type: ignore[arg-type]
    cut = Cut(0, Background("texture", "waves", 1))
    return draw(Scene(320, 240, 4.0, 1, (cut,), (), (caption,)), 1.0)


@pytest.fixture(scope="module")
def ocr() -> Ocr:
    return Ocr()


@pytest.mark.slow
@needs("ocr")
@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("Exit on the left", {"size": 0.12}),
        ("Sale: 50% off today", {"style": "box", "place": "top", "size": 0.1}),
        ("Tickets 12.50", {"size": 0.08}),
        ("Fire alarm", {"place": "center", "size": 0.2}),
        ("Menu\nHome\nSearch\nSettings", {"place": "full", "style": "screen", "size": 0.12}),
        ("Ein Haus bei Köln", {"language": "de"}),
        ("出口在左边", {"language": "zh", "style": "box"}),
    ],
)
def test_captions_are_read(ocr: Ocr, text: str, more: dict[str, object]) -> None:
    if more.get("language") not in (None, *languages()):
        pytest.skip("the font is not fetched")
    lines = ocr(written(text, **more))
    assert shows(lines, text) >= 0.9
    assert shows(lines, "Stairs to platform nine") < 0.5
    if more.get("place") == "top":
        assert all(line.box[3] < 0.5 for line in lines)
    elif "place" not in more:
        assert all(line.box[1] > 0.5 for line in lines)
    assert all(0.6 <= line.score <= 1 for line in lines)


@pytest.mark.slow
@needs("ocr")
def test_what_it_cannot_read_it_can_tell(ocr: Ocr) -> None:
    texts = ["Exit 12", "Voilà l'été", "Straße", "出口在左边", "выход", "έξοδος", "출구", "…", ""]
    assert [ocr.can_read(text) for text in texts] == [True] * 4 + [False] * 5


@pytest.mark.slow
@needs("ocr")
def test_lines_come_from_top_to_bottom(ocr: Ocr) -> None:
    text = "Menu\nHome\nSearch\nSettings"
    lines = ocr(written(text, place="full", style="screen", size=0.12))
    assert [line.text for line in lines] == text.split("\n")


@pytest.mark.slow
@needs("ocr")
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (40, 40)])
def test_where_nothing_is_written(ocr: Ocr, size: tuple[int, int]) -> None:
    assert ocr(Image.new("L", size, 100)) == []
    assert ocr(Image.new("P", size)) == []


def read(*texts: str) -> list[Line]:
    return [Line(text, 1.0, (0, 0, 1, 1)) for text in texts]


def test_shows_forgives_what_ocr_gets_wrong() -> None:
    assert shows(read("TraintoRome", "leaves at 9.15"), "Train to Rome leaves at 9:15") == 1
    assert shows(read("Ein Flus bei Koln"), "Ein Fluss bei Köln") == pytest.approx(1 - 1 / 15)
    assert shows(read("News at ten", "EXlT"), "Exit") == 0.75
    assert shows(read("Exit"), "Way out") < 0.5
    assert shows([], "Exit") == shows(read("Exit"), "…") == 0


@given(st.text(), st.text(), st.text())
def test_what_stands_anywhere_is_shown(before: str, text: str, after: str) -> None:
    whole = shows(read(before, text, after), text)
    assert whole == (1 if squeezed(text) else 0)
    assert 0 <= shows(read(before), text) <= 1
