"""recipe=eval through the command line: played, judged, reported, rated, ranked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from joyvl_train.cli import main
from tests.data_pipeline.agents.endpoint import Endpoint
from tests.eval.made_cases import FIRE
from tests.eval.test_judge import reads

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")

GOOD = '{"case": "fire", "time": 24.2, "text": "A fire appeared."}\n{"case": "wave"}\n'
STILL = '{"case": "fire"}\n{"case": "wave"}\n'


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "fire.yaml").write_text(FIRE)
    wave = FIRE.replace("scenario: monitoring", "scenario: counting")
    (folder / "wave.yaml").write_text(wave.replace("fire came}", "fire came}"))
    (tmp_path / "app.jsonl").write_text(GOOD)
    return folder


def run(folder: Path, name: str, *overrides: str) -> int:
    places = [f"run.root={folder / 'outputs'}", f"run.dir={folder / name}"]
    return main(["recipe=eval", "run.threads=1", *places, *overrides], ROOT)


def own(cases: Path) -> list[str]:
    given = ["cases=own", f"cases.paths=[{cases}]", "cases.systems=[trivial]", "cases.workers=1"]
    return [*given, f"cases.recorded=[{cases.parent / 'app.jsonl'}]", "cases.samples=50"]


def found(folder: Path, name: str) -> dict[str, float]:
    data: dict[str, float] = json.loads((folder / name / "metrics.json").read_text())
    return data


def test_own_cases_and_a_transcript(cases: Path, tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "one", *own(cases)) == 0
    told = found(tmp_path, "one")
    # Without the model the first system is compared with the others.
    assert told["score/app/monitoring"] == 2.0 and told["score/app/counting"] == 0.0
    assert told["cases/played"] == 2 and told["cases/changed"] == 0
    assert told["loss_rate/app"] == 0.5 and told["tie_rate/app"] == 0.5
    assert told["cases/not_played"] == 0
    report = (tmp_path / "one" / "report.html").read_text()
    assert 'href="cases/fire.html"' in report and "Against app" in report
    page = (tmp_path / "one" / "cases" / "fire.html").read_text()
    assert "quality good, timing good" in page and "A fire appeared." in page
    before = {p: p.read_bytes() for p in (tmp_path / "one" / "transcripts").rglob("*.json")}
    # A second run of the same takes all from the first, and says the same.
    assert run(tmp_path, "two", *own(cases)) == 0
    for path, data in before.items():
        assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == data
    assert found(tmp_path, "two") == told


def test_bad_cases_are_listed_and_good_ones_counted(cases: Path, tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "good", "command=validate", *own(cases)) == 0
    assert "2 cases are good" in capsys.readouterr().out
    (cases / "wave.yaml").write_text(FIRE.replace("at: 24", "at: 99"))
    (cases / "late.yaml").write_text(FIRE.replace("seconds: 40", "seconds: 0"))
    assert run(tmp_path, "bad", "command=validate", *own(cases)) == 2
    told = capsys.readouterr()
    assert "wave.yaml, due[0]: at is 99" in told.out and "late.yaml, stream: seconds" in told.out
    assert "2 of the cases can't be played" in told.err
    assert run(tmp_path, "run", *own(cases)) == 2
    assert "late.yaml, stream: seconds is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["command=play"], "recipe=eval has run, validate"),
        (["cases.only=[fier]"], "Did you mean fire"),
        (["cases.paths=[/nowhere]"], "no such file or folder of cases"),
        (["cases.systems=[]", "cases.recorded=[]"], "name who is played"),
        (["cases.recorded=[/nowhere.jsonl]"], "give a file of JSON lines"),
        (["cases.url=http://127.0.0.1:9/v1"], "cases.model is empty"),
        (["command=compare"], "takes finished runs"),
        (["command=compare", "cases.runs=[/nowhere]"], "there is no such run"),
        (["command=rate", "cases.runs=[a,b]"], "takes one finished run"),
        (["command=aggregate", "cases.runs=[.]"], "name the exported ratings"),
    ],
)
def test_what_a_user_gets_wrong(cases: Path, tmp_path: Path, capsys, overrides, message) -> None:
    assert run(tmp_path, "wrong", *own(cases), *overrides) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("error: ")


def test_a_judge_over_http(cases: Path, tmp_path: Path, capsys) -> None:
    with Endpoint(reads) as endpoint:
        judge = [f"agents.url={endpoint.url}", "agents.model=m"]
        judge += [f"agents.cache={tmp_path / 'answers'}", "cases.recorded=[]"]
        app = tmp_path / "model.jsonl"
        app.write_text(GOOD)
        two = f"cases.recorded=[{app},{tmp_path / 'still.jsonl'}]"
        (tmp_path / "still.jsonl").write_text(STILL)
        assert run(tmp_path, "one", *own(cases), *judge, "cases.systems=[]", two) == 0
        assert len(endpoint.seen) == 3  # where both are silent the orders are one question
    told = found(tmp_path, "one")
    assert told["judge/win_rate/still"] == 0.5 and told["judge/unscored/still"] == 0
    assert "Model judge" in (tmp_path / "one" / "report.html").read_text()
    with Endpoint((500, {})) as endpoint:
        judge = [f"agents.url={endpoint.url}", "agents.model=m", "agents.retries=0"]
        judge += [f"agents.cache={tmp_path / 'others'}"]
        assert run(tmp_path, "down", *own(cases), *judge, "cases.systems=[]", two) == 0
    told = found(tmp_path, "down")
    assert told["judge/unscored/still"] == 2 and "judge/win_rate/still" not in told
    assert "left 2 pairs unscored: 2 no answer" in capsys.readouterr().out


def test_one_bad_video_leaves_the_others_their_report(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cases / "broken.mp4").write_bytes(b"no video")
    text = FIRE[: FIRE.index("stream:")] + "stream: {video: broken.mp4}\n"
    text += FIRE[FIRE.index("user:") :].replace(", seen: fire came", "")
    (cases / "broken.yaml").write_text(text)
    assert run(tmp_path, "one", *own(cases)) == 0
    told = found(tmp_path, "one")
    assert (told["cases/played"], told["cases/not_played"]) == (2, 1)
    assert told["unscored/app"] == 1
    assert (tmp_path / "one" / "cases" / "broken.html").exists()
    out = capsys.readouterr().out
    assert "app.jsonl" not in out and "are played when this run is started again" in out
    # Mended, it is played by starting the same run again.
    (cases / "broken.yaml").unlink()
    assert run(tmp_path, "one", *own(cases)) == 0
    assert found(tmp_path, "one")["cases/not_played"] == 0
    assert (tmp_path / "one" / "finished").exists()


@pytest.mark.slow
def test_the_kept_base_is_played_judged_and_cut_off(cases: Path, tmp_path: Path) -> None:
    given = ["cases=own", f"cases.paths=[{cases}]", "cases.workers=1", "cases.samples=20"]
    given += [f"checkpoint={ROOT / 'models' / 'tiny'}", "cases.only=[fire]"]
    given += ["cases.systems=[model,poller,ask_only,poller_same,ask_only_same,trivial]"]
    given += ["cases.poll_cut=20", "cases.ask_cut=1"]
    assert run(tmp_path, "one", *given) == 0
    told = found(tmp_path, "one")
    rivals = {key.split("/")[1] for key in told if key.startswith("win_rate/")}
    assert {"poller", "poller_cut_at_20_s", "ask_only_cut_at_1_s", "poller_same_weights"} <= rivals
    cut = told["baseline/poller_cut_at_20_s/silence_accuracy"]
    assert cut > told["baseline/poller/silence_accuracy"]


def test_rated_and_ranked(cases: Path, tmp_path: Path, capsys) -> None:
    model = tmp_path / "model.jsonl"
    model.write_text(GOOD)
    two = f"cases.recorded=[{model},{tmp_path / 'app.jsonl'}]"
    assert run(tmp_path, "one", *own(cases), two, "cases.name=ours") == 0
    over = [*own(cases), f"cases.runs=[{tmp_path / 'one'}]"]
    assert run(tmp_path, "rate", *over, "command=rate") == 0
    key = json.loads((tmp_path / "rate" / "rating_key.json").read_text())
    assert len(key["pairs"]) == 2
    for name, grade in (("ann", "good"), ("bob", "fair")):
        ratings = {
            pair: {
                f"{side}_{axis}": grade if at[side] == "model" else "poor"
                for side in ("left", "right")
                for axis in ("quality", "timing")
            }
            for pair, at in key["pairs"].items()
        }
        exported = {"page": key["page"], "rater": name, "ratings": ratings}
        (tmp_path / f"{name}.json").write_text(json.dumps(exported))
    both = f"cases.ratings=[{tmp_path / 'ann.json'},{tmp_path / 'bob.json'}]"
    rated = [*own(cases), f"cases.runs=[{tmp_path / 'rate'}]", both]
    assert run(tmp_path, "people", *rated, "command=aggregate") == 0
    told = found(tmp_path, "people")
    assert told["human/win_rate/app"] == 1.0 and told["human/raters"] == 2
    assert told["human/alpha/quality"] < 1 and "human_rule/alpha/timing" in told
    twice = f"cases.ratings=[{tmp_path / 'ann.json'},{tmp_path / 'ann.json'}]"
    assert run(tmp_path, "twice", *rated, twice, "command=aggregate") == 2
    assert "'ann' rated twice" in capsys.readouterr().err
    board = tmp_path / "board.html"
    assert run(tmp_path, "rank", *over, "command=compare", f"cases.board={board}") == 0
    assert run(tmp_path, "again", *over, "command=compare", f"cases.board={board}") == 0
    assert found(tmp_path, "again")["board/systems"] == found(tmp_path, "rank")["board/systems"]
    assert ">ours<" in board.read_text()


def test_a_finished_run_plays_what_changed_since(cases: Path, tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "one", *own(cases)) == 0
    before = found(tmp_path, "one")
    assert run(tmp_path, "one", *own(cases)) == 0 and found(tmp_path, "one") == before
    later = FIRE.replace("at: 24,", "at: 25,").replace(", seen: fire came", "")
    (cases / "fire.yaml").write_text(later)
    (cases / "wave.yaml").unlink()
    assert run(tmp_path, "one", *own(cases)) == 0
    told = found(tmp_path, "one")
    assert told["cases/played"] == 1 and not any("counting" in key for key in told)
    assert told != before


def test_whole_seconds_of_latency(cases: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "late", *own(cases), "cases.latency=2") == 0
    assert found(tmp_path, "late")["score/app/monitoring"] < 2


def test_validate_opens_videos(cases: Path, tmp_path: Path, capsys) -> None:
    (cases / "empty.mp4").write_bytes(b"")
    text = FIRE[: FIRE.index("stream:")] + "stream: {video: empty.mp4}\n"
    (cases / "film.yaml").write_text(
        text + FIRE[FIRE.index("user:") :].replace(", seen: fire came", "")
    )
    assert run(tmp_path, "checked", *own(cases), "command=validate") == 2
    assert "film.yaml: " in capsys.readouterr().out


def test_a_board_that_can_not_be_written(cases: Path, tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "one", *own(cases)) == 0
    given = ["command=compare", f"cases.runs=[{tmp_path / 'one'}]", "cases.board=/proc/x/b.html"]
    assert run(tmp_path, "rank", *own(cases), *given) == 2
    assert "cases.board=/proc/x/b.html: can't be written" in capsys.readouterr().err
