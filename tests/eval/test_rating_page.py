"""The rating page in a real browser: rated by clicks, reloaded, exported, read back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from data_pipeline.world.streams import WorldFrames
from eval.grades import Grade
from eval.play import play
from eval.rating import draw_items, rating_page, read_ratings
from eval.systems import TRIVIAL, Fixed, Recorded
from joyvl_train.actions import Response
from tests.chromium import BINARY, opened
from tests.eval.made_cases import made

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine"),
]


def test_pairs_are_rated_by_clicks_and_exported(tmp_path: Path) -> None:
    cases = {name: made(tmp_path, name=name) for name in ("a", "b")}
    frames = {name: WorldFrames(case.timeline, 48) for name, case in cases.items()}
    good = {name: {24: Response("A fire appeared.")} for name in cases}
    traces = {
        "ours": {n: play(c, frames[n], Recorded("ours", good)).trace for n, c in cases.items()},
        "rival": {
            n: play(c, frames[n], Fixed("x", "Yes.", TRIVIAL["always silent"])).trace
            for n, c in cases.items()
        },
    }
    items = draw_items([(name, "ours", "rival") for name in cases], traces, 3)
    pictures = {name: frames[name].frames for name in cases}
    page_path = rating_page(tmp_path, items, cases, traces, pictures)

    async def rate() -> Path:
        async with opened(page_path, tmp_path) as page:
            assert await page.run("document.querySelectorAll('.item.shown').length") == 1
            assert await page.run("document.querySelector('#where').textContent") == (
                "pair 1 of 2, 0 rated"
            )
            for item in items:
                best = "left" if item.left == "ours" else "right"
                for side in ("left", "right"):
                    for axis, grade in (("quality", "good"), ("timing", "fair")):
                        value = grade if side == best else "poor"
                        choice = f'#{item.id} input[data-axis="{side}_{axis}"][value="{value}"]'
                        await page.run(f"document.querySelector({choice!r}).click()")
                await page.run("document.querySelector('#next').click()")
            assert "2 rated" in await page.run("document.querySelector('#where').textContent")
            # Nothing is lost where the page is closed and opened again.
            await page.reload()
            assert "2 rated" in await page.run("document.querySelector('#where').textContent")
            await page.run("document.querySelector('#export').click()")
            told = await page.run("document.querySelector('#note').textContent")
            assert told == "Give a name or number first."
            await page.run("document.querySelector('#rater').value = 'rater 1'")
            await page.run("document.querySelector('#export').click()")
            for _ in range(100):
                if found := list(tmp_path.glob("ratings-*-rater_1.json")):
                    return found[0]
                await asyncio.sleep(0.1)
        raise AssertionError("nothing was exported")

    rated = read_ratings(asyncio.run(rate()), tmp_path / "rating_key.json")
    assert rated.rater == "rater 1" and len(rated.grades) == 4
    for name in cases:
        assert rated.grades[name, "ours", "rival"] == Grade(2, 1)
        assert rated.grades[name, "rival", "ours"] == Grade(0, 0)
