"""A folder of videos alone: footage without events, for stages that write them.

An item is a file. One that is no video by its name, or that can't be stepped by the second, is
refused with the reason; links to folders are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources.items import Item, candidate, each_item, record_id
from data_pipeline.sources.videos import Videos, check_no_folder, is_video, video_path
from joyvl_train.frames import content_hash
from joyvl_train.timeline import Clip, Timeline, TimelineError
from joyvl_train.video import probe

SOURCE = "folder"
FAMILY = "unlabelled"


def read(
    videos: Videos, cache_dir: Path, licence: str = "", language: str = "en"
) -> Iterator[Candidate | Refused]:
    """The videos of a folder as candidates without events, by name.

    An id is the hash of a video's content, so that a file that is moved keeps its own; `cache_dir`
    remembers hashes (`joyvl_train.frames`).
    """

    def make(path: Path, where: str) -> list[Candidate]:
        seen = probe(path)
        content = content_hash(seen.path, cache_dir)
        width, height = seen.display_size
        timeline = Timeline(Clip(where, seen.duration, video=where), FAMILY, SOURCE)
        return [
            candidate(
                record_id(SOURCE, content),
                timeline,
                where,
                licence=licence,
                language=language,
                content=content,
                codec=seen.codec,
                width=width,
                height=height,
            )
        ]

    return each_item(_files(videos), make)


def _files(videos: Videos) -> Iterator[Item]:
    for path in videos.files():
        where = path.relative_to(videos.root).as_posix()
        try:
            check_no_folder(path, where)
            if not is_video(path):
                raise TimelineError("no video by its name", repr(where))
            video_path(where, "file")
        except TimelineError as error:
            yield where, error
        else:
            yield where, path
