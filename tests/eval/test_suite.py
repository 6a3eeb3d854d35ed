"""Playing many cases: kept transcripts, several processes, faults of cases."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eval.case import Case, CaseError, read_case
from eval.fetched import fetch
from eval.grades import Unscored
from eval.opening import Cutting, Spec, content_key
from eval.play import Played
from eval.suite import View, frames_of, key_of, lacking, play_all, video_path
from joyvl_train.codec import CodecSettings
from joyvl_train.heldout import Trace
from tests.eval.made_cases import FIRE, made
from tests.joyvl_train.videos import make_video

TALK = Spec("always speaking", "trivial", text="Yes.")
STILL = Spec("always silent", "trivial", text="-")


@pytest.fixture
def view(tmp_path: Path) -> View:
    return View(32, str(tmp_path / "cache"))


def files(folder: Path) -> dict[str, bytes]:
    found = folder.rglob("*.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def played(cases: list[Case], specs: list[Spec], folder: Path, view: View, **more):
    lines: list[str] = []
    found = play_all(cases, specs, folder, view, say=lines.append, progress=False, **more)
    return found, lines


def test_what_is_played_is_not_played_again_unless_its_inputs_changed(
    tmp_path: Path, view: View
) -> None:
    cases = [made(tmp_path, name=name) for name in ("a", "b")]
    out = tmp_path / "out"
    first, _ = played(cases, [TALK, STILL], out, view)
    assert {name: list(of) for name, of in first.items()} == {
        "always speaking": ["a", "b"],
        "always silent": ["a", "b"],
    }
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    again, _ = played(cases, [TALK, STILL], out, view)
    assert again == first
    assert stamps == {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    changed = made(tmp_path, FIRE + "memory: 3\n", name="a")
    played([changed, cases[1]], [TALK, STILL], out, view)
    moved = {p.name for p, at in stamps.items() if p.stat().st_mtime_ns != at}
    assert moved == {"a.json"}
    # A transcript that was torn is made again.
    torn = out / "always_silent" / "b.json"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:40])
    played(cases[1:], [STILL], out, view)
    assert torn.read_bytes() == whole


def test_the_same_bytes_whatever_the_number_of_processes(tmp_path: Path, view: View) -> None:
    cases = [made(tmp_path, name=name) for name in "abc"]
    one, two = tmp_path / "one", tmp_path / "two"
    played(cases, [TALK, STILL], one, view)
    played(cases, [TALK, STILL], two, view, workers=2)
    assert files(one) == files(two) and len(files(one)) == 6


def test_a_case_that_cant_be_played_is_unscored_for_all_and_said_once(
    tmp_path: Path, view: View
) -> None:
    start, end = FIRE.index("stream:"), FIRE.index("user:")
    rest = FIRE[end:].replace(", seen: fire came", "")
    gone = made(tmp_path, FIRE[:start] + "stream: {video: none.mp4}\n" + rest, "gone")
    make_video(tmp_path / "short.mp4", [k / 5 for k in range(20)])
    short = made(tmp_path, FIRE[:start] + "stream: {video: short.mp4}\n" + rest, "short")
    wrong = f"stream: {{video: short.mp4, sha256: {'a' * 64}}}\n"
    other = made(tmp_path, FIRE[:start] + wrong + rest, "other")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = made(tmp_path, FIRE[:start] + "stream: {video: broken.mp4}\n" + rest, "broken")
    fine = made(tmp_path)
    long = made(tmp_path, FIRE[:start] + "stream: {video: short.mp4, seconds: 40}\n" + rest, "long")
    cases = [gone, short, other, broken, fine]
    with pytest.raises(CaseError, match="seconds is 40, but .* lasts"):
        frames_of(long, view)
    found, lines = played(cases, [TALK, STILL], tmp_path / "out", view)
    for of in found.values():
        assert [type(of[case.id]) for case in cases] == [Unscored] * 4 + [Played]
        assert {of[c.id].reason for c in cases[:4]} == {"case can't be played"}
    told = " ".join(lines)
    assert sum("there is no video" in line for line in lines) == 1
    assert "but its stream lasts" in told and "is another file" in told and len(lines) == 1 + 2 * 3


def test_a_case_on_ones_own_video(tmp_path: Path, view: View) -> None:
    start, end = FIRE.index("stream:"), FIRE.index("user:")
    make_video(tmp_path / "yard.mp4", [k / 2 for k in range(90)])
    text = FIRE[:start] + "stream: {video: yard.mp4}\n" + FIRE[end:]
    case = made(tmp_path, text.replace(", seen: fire came", ""))
    found, lines = played([case], [TALK], tmp_path / "out", view)
    trace = found["always speaking"]["fire"].trace
    assert isinstance(trace, Trace) and not lines
    assert len(trace.steps) == frames_of(case, view).seconds == 45
    for seconds in (38, 44):
        part = FIRE[:start] + f"stream: {{video: yard.mp4, seconds: {seconds}}}\n" + FIRE[end:]
        case = made(tmp_path, part.replace(", seen: fire came", ""))
        assert frames_of(case, view).seconds == seconds


def test_a_transcript_is_not_scored_on_cases_that_it_does_not_name(
    tmp_path: Path, view: View
) -> None:
    (tmp_path / "app.jsonl").write_text('{"case": "a", "time": 24, "text": "A fire appeared."}\n')
    cases = [made(tmp_path, name=name) for name in ("a", "b")]
    spec = Spec("app", "recorded", path=str(tmp_path / "app.jsonl"))
    found, lines = played(cases, [spec], tmp_path / "out", view)
    assert isinstance(found["app"]["a"], Played)
    assert found["app"]["b"] == Unscored("not recorded", "the transcript has no line of it")
    assert lines == ["not scored: app, b: the transcript has no line of it"]


@pytest.mark.slow
def test_a_model_says_the_same_whatever_the_number_of_processes(tmp_path: Path, view: View) -> None:
    """The kept base, which is small and real; on the stream it says something, if not well."""
    kept = str(Path(__file__).parents[2] / "models" / "tiny")
    specs = [Spec("model", "stream", kept), Spec("ask only", "ask_only", kept)]
    cases = [made(tmp_path, name=name) for name in ("a", "b")]
    shown = View(96, view.cache_dir)
    one, two = tmp_path / "one", tmp_path / "two"
    first, _ = played(cases, specs, one, shown)
    played(cases, specs, two, shown, workers=2)
    assert files(one) == files(two) and len(files(one)) == 4
    said = [len(of["a"].trace.emissions) for of in first.values()]
    assert sum(said) > 0


class Serves(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/a.mp4" else 404)
        self.end_headers()
        self.wfile.write(b"a video")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_video_by_url_is_fetched_once_and_checked(
    tmp_path: Path, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path / "cached"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Serves)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    start, end = FIRE.index("stream:"), FIRE.index("user:")
    rest = FIRE[end:].replace(", seen: fire came", "")
    lines: list[str] = []

    def case(path: str, digest: str) -> Case:
        stream = f"stream: {{video: '{address}{path}', sha256: {digest}}}\n"
        return made(tmp_path, FIRE[:start] + stream + rest)

    right = hashlib.sha256(b"a video").hexdigest()
    fine = case("/a.mp4", right)
    assert "command=fetch" in lacking(fine)
    assert fetch([fine], lines.append) == 1 and not lacking(fine)
    assert video_path(fine).read_bytes() == b"a video"
    assert fetch([fine], lines.append) == 0 and len(lines) == 1
    for path, digest, message in (
        ("/a.mp4", "b" * 64, "is another file than its sha256 says"),
        ("/none", "b" * 64, "can't be fetched"),
        ("/away", "b" * 64, "can't be fetched"),
    ):
        with pytest.raises(CaseError, match=message):
            fetch([case(path, digest)], lines.append)
    with pytest.raises(CaseError, match="larger than 3 bytes"):
        fetch([case("/a.mp4", "c" * 64)], lines.append, most=3)
    assert len(list((tmp_path / "cached" / "cases").iterdir())) == 1
    server.shutdown()
    server.server_close()


def test_a_key_tells_systems_and_their_files_apart(tmp_path: Path, view: View) -> None:
    case = made(tmp_path)
    (tmp_path / "said.jsonl").write_text('{"case": "fire", "time": 3, "text": "Hi."}\n')
    spec = Spec("app", "recorded", path=str(tmp_path / "said.jsonl"))
    keys = {
        key_of(case, spec.key, view, 0),
        key_of(case, spec.key, view, 1),
        key_of(case, TALK.key, view, 0),
    }
    keys.add(key_of(case, spec.key, View(64, view.cache_dir), 0))
    coded = replace(spec, cutting=Cutting(codec=CodecSettings()))
    keys.add(key_of(case, coded.key, view, 0))
    (tmp_path / "said.jsonl").write_text('{"case": "fire", "time": 4, "text": "Hi."}\n')
    keys.add(key_of(case, Spec("app", "recorded", path=str(tmp_path / "said.jsonl")).key, view, 0))
    assert len(keys) == 6
    # A name is no part of it: the same weights under another one are the same system.
    named = Spec("other", "recorded", path=str(tmp_path / "said.jsonl"))
    assert key_of(case, named.key, view, 0) in keys
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"x" * (3 << 20))
    before = content_key(folder)
    for at in (0, 1 << 20, 3 << 19, (3 << 20) - 1):
        weights = bytearray(b"x" * (3 << 20))
        weights[at] = 0
        (folder / "model.safetensors").write_bytes(weights)
        assert content_key(folder) != before
    assert content_key("hub/name") == "hub/name"


def test_footage_that_was_not_fetched_is_told_with_the_command(
    tmp_path: Path, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path / "nothing"))
    path = tmp_path / "wave.yaml"
    path.write_text(FIRE.replace("{texture: bricks}", "{footage: ocean}"))
    case = read_case(path)
    assert "assets footage" in lacking(case) and case.footage == ("ocean",)
    with pytest.raises(CaseError, match="assets footage"):
        frames_of(case, view)
    start, end = FIRE.index("stream:"), FIRE.index("user:")
    for sample, message in (("coin", "assets samples"), ("yard", "no sample 'yard'")):
        text = FIRE[:start] + f"stream: {{sample: {sample}}}\n" + FIRE[end:]
        path.write_text(text.replace(", seen: fire came", ""))
        assert message in lacking(read_case(path))
