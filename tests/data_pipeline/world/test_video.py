from pathlib import Path

import av
import numpy as np
import pytest

from data_pipeline.world.backgrounds import Background
from data_pipeline.world.scene import Cut, Key, Scene, SceneError, Track, draw
from data_pipeline.world.video import write_video

SCENE = Scene(
    96,
    64,
    2.0,
    3,
    (Cut(0, Background("texture", "grass", 4, (0.1, 0))),),
    (Track("car", 0.5, 1.5, (Key(0, 0.1, 0.5, 0.5), Key(2, 0.9, 0.5, 0.5)), "red"),),
)


def decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [
            (float(frame.time or 0), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


def test_the_file_holds_the_frames_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "scene.mp4"
    assert write_video(SCENE, path, 10) == 20
    found = decoded(path)
    assert [time for time, _ in found] == pytest.approx([i / 10 for i in range(20)], abs=1e-3)
    for time, frame in found:
        wanted = np.asarray(draw(SCENE, time + 1e-6), dtype=float)
        assert np.abs(frame - wanted).mean() < 10, time
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(2.0, abs=0.05)
    assert list(tmp_path.iterdir()) == [path]


def test_times_of_its_own_and_another_size(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.7, 0.75, 1.9]
    write_video(SCENE, tmp_path / "scene.mp4", times=times, width=48, height=32)
    found = decoded(tmp_path / "scene.mp4")
    assert [time for time, _ in found] == pytest.approx(times, abs=1e-3)
    assert found[0][1].shape == (32, 48, 3)


def test_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(SCENE, tmp_path / name, 5)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(
    "wrong", [{"width": 33}, {"rate": 0}, {"times": []}, {"times": [1.0, 0.5]}, {"times": [0, 7.0]}]
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(SceneError):
        write_video(SCENE, tmp_path / "scene.mp4", **wrong)
    assert list(tmp_path.iterdir()) == []
