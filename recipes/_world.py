"""What a config says of the world's streams and of how streams are cut; imports no torch."""

from __future__ import annotations

from data_pipeline.assets import cache_folder
from data_pipeline.world import photos
from data_pipeline.world.backgrounds import footage_clips
from data_pipeline.world.scene import SceneError
from data_pipeline.world.splits import SPLITS
from data_pipeline.world.streams import WorldFrames
from joyvl_train.codec import CodecSettings
from joyvl_train.config import Config, UserError
from joyvl_train.frames import Frames
from joyvl_train.memory import Limits
from joyvl_train.stream import StreamSettings
from joyvl_train.stream_config import in_force
from joyvl_train.timeline import Clip, Timeline
from joyvl_train.video import FrameError


def check_assets(config: Config) -> None:
    """Raises `UserError` where the world's pictures or footage are wanted, but were not fetched."""
    data = config.data
    if data.kind in ("photo", "both") and not photos.available():
        raise UserError(
            f"data={data.kind}: the photographs are not in {cache_folder() / 'photo'}; run "
            "`python -m data_pipeline.assets photo`, or take data=drawn"
        )
    lacking = [split for split in SPLITS if data.footage and not footage_clips(split)]
    if data.kind != "path" and lacking:
        raise UserError(
            f"data.footage=true: no footage for {', '.join(lacking)} is in "
            f"{cache_folder() / 'footage'}; run `python -m data_pipeline.assets footage`, or set "
            "data.footage=false"
        )


def rate(config: Config) -> float:
    """Frames a second of the world's streams, and of live ones."""
    value = config.data.frames_per_second
    if isinstance(value, str) or value < 1 or value != int(value):
        raise UserError(
            f"data.frames_per_second={value}: the world's streams and live ones take a whole "
            "number from 1"
        )
    return float(value)


def settings(config: Config) -> StreamSettings:
    """How streams are cut into chunks, in training and in evaluation alike."""
    stream = config.stream
    force = in_force(stream)
    limits = Limits(
        mid=stream.mid,
        long=stream.long,
        summary_chars=force["summary_chars"],
        pinned=stream.pinned,
        pinned_chars=stream.pinned_chars,
        dialogue_tokens=force["dialogue_tokens"],
    )
    codec = None
    if config.data.codec == "predictive":
        try:
            codec = CodecSettings(**vars(config.codec))
        except ValueError as error:
            raise UserError(f"codec: {error}") from None
    try:
        return StreamSettings(stream.chunk, stream.lead, limits, codec=codec)
    except ValueError as error:  # of a length that a checkpoint brought
        raise UserError(f"stream: {error}") from None


def cells(config: Config) -> int:
    """Of what number of pixels the sides of real pictures are multiples, where cases and live
    streams show them; in training they always are of the model's cells."""
    return 1 if config.data.codec == "off" else config.codec.block


def draw(clip: Clip, side: int) -> Frames:
    """The pictures of a clip of the world, `side` pixels wide and high; `FrameError` where its
    scene is none."""
    try:
        return WorldFrames(Timeline(clip, "", "world"), side)
    except SceneError as error:
        raise FrameError("no source", f"clip {clip.id!r}: {error}") from None
