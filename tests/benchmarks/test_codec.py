"""The code of frames by itself: what its table tells."""

from __future__ import annotations

import pytest

from benchmarks import codec
from joyvl_train.codec import CodecSettings


def test_references_are_counted_with_their_reasons_beside_a_fixed_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert codec.main(["--frames", "21", "--seconds", "10"]) == 0
    text = capsys.readouterr().out
    assert "| still, with noise | 21 | 1 | first 1 | 5.5 | every 31. | 5.5 |" in text
    assert "| a cut every ten frames | 21 | 3 | cut 2, first 1 | 8.6 | every 10. | 8.6 |" in text
    assert "| the rendered world | 21 | " in text
    still = next(line for line in text.splitlines() if line.startswith("| never | 10 | "))
    whole, coded, fourth = (int(cell) for cell in still.split("|")[3:6])
    # Nine frames of ten have 4 tokens of 36, and a mark of two; every fourth whole, seven have.
    assert whole - coded == 9 * (36 - 4 - 2) and whole - fourth == 7 * (36 - 4 - 2)


def test_where_every_frame_is_another_only_all_will_do() -> None:
    frames = [codec.plain(number, (320, 240)) for number in range(6)]
    assert codec.fixed([frames], CodecSettings()) == 1
    assert codec.coded([frames], CodecSettings()) == (6, 6, {"first": 1, "cut": 5})
