"""recipe=corpus command=codec: what the code of frames makes of a video, second by second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from joyvl_train.codec import CodecSettings, Coded, compensated
from joyvl_train.coded_frames import FrameCoder
from joyvl_train.config import Config, UserError
from joyvl_train.frames import open_video
from joyvl_train.markup import Html, grid, headline, number, plot, section, table, text
from joyvl_train.report import page
from joyvl_train.run import Run
from joyvl_train.stream import Predicted
from joyvl_train.strips import thumbnail
from joyvl_train.video import FrameError
from recipes._world import rate, settings

_SHOWN = 60
"""Frames whose pictures the report holds, spread over the video; the curve holds all."""

_WHY = {
    "first": "first of a chunk, or after seconds without frames",
    "size": "of another size",
    "cut": "too unlike what the one before predicts",
    "drift": "little by little too far from the last whole one",
    "length": "long after the last whole one",
}


@dataclass(frozen=True, slots=True)
class _Look:
    """A frame with its code. before: the frame before it; shown: what stands for it. Of frames that
    the report does not show, the figures alone are kept: a video may have hours."""

    second: int
    code: Coded
    size: tuple[int, int]
    frame: Image.Image | None = None
    before: Image.Image | None = None
    shown: Image.Image | None = None


def look(config: Config, run: Run) -> None:
    """Codes the video at `video` as a stream of this run would, and tells what came of it."""
    if not config.video:
        raise UserError("video is empty: name the file, as in command=codec video=clip.mp4")
    run_settings = settings(replace(config, data=replace(config.data, codec="predictive")))
    codec = run_settings.codec
    assert codec is not None
    try:
        frames = open_video(
            Path(config.video),
            int(rate(config)),
            cache_dir=Path(config.data.cache_dir),
            size=config.data.size,
            multiple=codec.block,
        )
    except FrameError as error:
        raise UserError(f"video={config.video}: {error}") from None
    coder = FrameCoder(run_settings)
    looks: list[_Look] = []
    before = None
    step = max(1, -(-frames.seconds * int(rate(config)) // _SHOWN))
    for second in range(frames.seconds):
        pictures = frames.frames(second)
        shown = coder.push(second, pictures)
        for picture, code, seen in zip(pictures, coder.codes, shown, strict=True):
            small = seen.frame if isinstance(seen, Predicted) else None
            if len(looks) % step:
                bare = replace(code, motion=None, residual=None, costs=None)
                looks.append(_Look(second, bare, picture.size))
            else:
                looks.append(_Look(second, code, picture.size, picture, before, small))
            before = picture
    if not looks:
        raise UserError(f"video={config.video}: holds no frame")
    figures = _figures(looks, codec)
    run.metrics(figures)
    parts = _parts(looks, codec, figures, step)
    page(run.report, "The code of frames", parts, Path(config.video).name)
    run.say(
        f"{figures['codec/references']:.0f} of {len(looks)} frames whole, "
        f"{figures['codec/tokens_per_frame']:.1f} tokens a frame of "
        f"{figures['codec/whole_tokens']:.0f}: {figures['codec/saved']:.0%} saved"
    )
    run.finish(latest=False)


def _figures(looks: Sequence[_Look], codec: CodecSettings) -> dict[str, float]:
    width, height = looks[0].size
    whole = (width // codec.block) * (height // codec.block)
    small = (codec.side // codec.block) ** 2
    references = sum(each.code.reference for each in looks)
    mean = (whole * references + small * (len(looks) - references)) / len(looks)
    why = Counter(each.code.why for each in looks if each.code.reference)
    return {
        "codec/frames": len(looks),
        "codec/references": references,
        **{f"codec/references/{reason}": count for reason, count in sorted(why.items())},
        "codec/whole_tokens": whole,
        "codec/change_tokens": small,
        "codec/tokens_per_frame": mean,
        "codec/saved": 1 - mean / whole,
    }


def _parts(
    looks: Sequence[_Look], codec: CodecSettings, figures: dict[str, float], step: int
) -> list[Html]:
    told = [
        ("Frames", f"{len(looks):,}", ""),
        ("Whole", f"{figures['codec/references']:,.0f}", "references"),
        ("Tokens a frame", f"{figures['codec/tokens_per_frame']:.1f}",
         f"of {figures['codec/whole_tokens']:.0f}"),
        ("Saved", f"{figures['codec/saved']:.0%}", "of the vision tokens"),
    ]  # fmt: skip
    at = [float(i) for i in range(len(looks))]
    costs = list(zip(at, [each.code.cost for each in looks], strict=True))
    gathered = list(zip(at, [each.code.gathered for each in looks], strict=True))
    bound = [(at[0], codec.cut), (at[-1], codec.cut)]
    drift = [(at[0], codec.drift), (at[-1], codec.drift)]
    why = Counter(each.code.why for each in looks if each.code.reference)
    rows = [_row(each, each.frame, codec) for each in looks if each.frame is not None]
    heads = ["second", "frame", "predicted from the one before", "what the model sees", "cost", ""]
    return [
        section("In short", headline(told)),
        section(
            "Decisions",
            grid(
                plot({"cost": costs, "cut": bound}, "Cost of each frame", "frame"),
                plot({"gathered": gathered, "drift": drift}, "Since the last whole frame", "frame"),
            ),
            table(["Whole because it is", "frames"], [[_WHY[w], n] for w, n in why.most_common()]),
            intro="In grey levels. A frame is whole where its cost is above cut, or where the "
            "costs since the last whole one have gathered above drift.",
        ),
        section(
            "Frames",
            table(heads, rows),
            intro="All frames." if step == 1 else f"Every {step}th frame.",
        ),
    ]


def _row(each: _Look, shown: Image.Image, codec: CodecSettings) -> list[str | float | Html]:
    predicted = Html("")
    if each.code.motion is not None and each.before is not None:
        predicted = _image(_prediction(each, codec.block), "prediction")
    seen = Html("the whole frame") if each.shown is None else _image(each.shown, "change")
    note = _WHY[each.code.why] if each.code.reference else ""
    frame = _image(shown, f"second {each.second}")
    return [f"{each.second} s", frame, predicted, seen, Html(number(each.code.cost)), note]


def _prediction(each: _Look, block: int) -> Image.Image:
    """The grey picture that the motion predicts; frames here are of whole blocks."""
    assert each.before is not None and each.code.motion is not None
    grey = np.asarray(each.before.convert("L"), np.int16)
    return Image.fromarray(compensated(grey, each.code.motion, block).astype(np.uint8))


def _image(picture: Image.Image, said: str) -> Html:
    return Html(f'<img src="{thumbnail(picture)}" alt="{text(said)}" loading="lazy">')
