"""The table of a sweep: arms, best rates, paired differences, and what can't be compared."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.compare_runs import CompareError, compare, find, main
from joyvl_train.actions import Response, Silence
from joyvl_train.heldout import Step, Trace, metrics, write_traces
from joyvl_train.timeline import Rule
from joyvl_train.timing import Onset

ONSET = Onset(5, "A car.", rule=Rule("exact"))


def run(
    folder: Path,
    loss: float,
    rate: float,
    seed: int,
    hits: int,
    clips: int = 20,
    steps: int = 100,
    validation: float | None = None,
) -> None:
    """A finished run that met `hits` of its clips' onsets; `validation`: its F1 while it trained,
    as good as in the end where None."""
    folder.mkdir(parents=True)
    traces = [
        Trace(
            f"clip{i}",
            "alerting",
            "test",
            "model",
            tuple(
                Step(t, Response("A car.") if t == 5 and i < hits else Silence()) for t in range(10)
            ),
            (ONSET,),
        )
        for i in range(clips)
    ]
    write_traces(folder / "traces.jsonl", traces)
    config = {
        "seed": seed,
        "loss": {"silence_repeat": loss, "response": 1.5},
        "train": {"learning_rate": rate},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    found = metrics(traces, samples=5) | {"train/steps": steps}
    (folder / "metrics.json").write_text(json.dumps(found))
    last = found["eval/onset_f1"] if validation is None else validation
    log = [{"step": 50, "validation/onset_f1": 0.99}, {"step": 100, "validation/onset_f1": last}]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed in (0, 1):
        run(tmp_path / f"w-low-{seed}", 0.4, 1e-4, seed, 8)
        run(tmp_path / f"w-high-{seed}", 0.4, 1e-3, seed, 16 + seed)
        run(tmp_path / f"p-low-{seed}", 1.0, 1e-4, seed, 10)
        run(tmp_path / f"p-high-{seed}", 1.0, 1e-3, seed, 6)
    return tmp_path


def test_each_arm_takes_its_best_rate(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(sweep), "--arm", "loss", "--base", "silence_repeat=1.0"]
    assert main([*arguments, "--measures", "recall", "--samples", "300"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert "best of the learning rates 0.0001, 0.001" in table[0]
    assert "seeds 0, 1; 100 steps; 20 clips" in table[0]
    assert "| silence_repeat=1.0 | 0.0001 | 0.50 |" in table
    assert "| silence_repeat=0.4 | 0.001 | 0.82 |" in table  # 33 of 40
    (difference,) = (line for line in table if "−" in line and line.startswith("| silence"))
    assert "silence_repeat=0.4 − silence_repeat=1.0 | +0.32 [0." in difference


def test_the_tables_are_kept_in_a_page(sweep: Path, tmp_path: Path) -> None:
    page = tmp_path / "results" / "page.md"
    arguments = [str(sweep), "--arm", "loss.silence_repeat", "--samples", "20"]
    assert main([*arguments, "--out", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Arms by `loss.silence_repeat`\n") and "| 0.4 | 0.001 |" in text


def test_other_rates_can_do_with_fewer_seeds(sweep: Path) -> None:
    """The rates are chosen by seed 0; what is compared has both seeds."""
    left_out = ("w-low-1", "p-high-1")
    runs = [each for each in find([sweep]) if each.folder.name not in left_out]
    table = compare(runs, "loss.silence_repeat", "1.0", measures=["recall"], samples=50)
    assert "(by validation/onset_f1 of seed 0); seeds 0, 1; 100 steps" in table
    assert "| 0.4 | 0.001 | 0.82 |" in table and "| 1.0 | 0.0001 | 0.50 |" in table


def test_the_rate_is_chosen_on_validation_clips_alone(tmp_path: Path) -> None:
    run(tmp_path / "a-low", 0.4, 1e-4, 0, 4, validation=0.9)
    run(tmp_path / "a-high", 0.4, 1e-3, 0, 16, validation=0.3)
    run(tmp_path / "b-low", 1.0, 1e-4, 0, 8)
    run(tmp_path / "b-high", 1.0, 1e-3, 0, 2)
    table = compare(find([tmp_path]), "loss.silence_repeat", measures=["recall"], samples=50)
    assert "| 0.4 | 0.0001 | 0.20 |" in table and "| 1.0 | 0.0001 | 0.40 |" in table
    assert "(by validation/onset_f1 of seed 0)" in table


def test_a_single_key_names_its_arms(sweep: Path) -> None:
    table = compare(find([sweep]), "loss.silence_repeat", measures=["onset_f1"], samples=50)
    assert "| 0.4 − 1.0 |" in table or "| 1.0 − 0.4 |" in table


def test_families_left_out_name_their_arms(tmp_path: Path) -> None:
    for number, mix in enumerate(({}, {"qa": 0.0}, {"chat": 0.0})):
        run(tmp_path / str(number), 0.4, 1e-3, 0, 16 - 4 * number)
        config = yaml.safe_load((tmp_path / str(number) / "config.yaml").read_text())
        text = yaml.safe_dump(config | {"data": {"mix": mix}})
        (tmp_path / str(number) / "config.yaml").write_text(text)
    runs = find([tmp_path])
    base = "data.mix as it comes"
    table = compare(runs, "data.mix", base, measures=["recall"], samples=50, choose="no figure")
    assert f"| {base} | 0.001 | 0.80 |" in table and "Arms by `data.mix`, learning rate" in table
    assert f"| qa=0.0 − {base} | −0.20" in table and f"| chat=0.0 − {base} | −0.40" in table


def test_what_can_not_be_compared(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = find([sweep])
    with pytest.raises(CompareError, match="the same loss.response: 1.5"):
        compare(runs, "loss.response")
    with pytest.raises(CompareError, match="has no key 'loss.colour'"):
        compare(runs, "loss.colour")
    with pytest.raises(CompareError, match="no arm 'x'; there are"):
        compare(runs, "loss", base="x")
    with pytest.raises(CompareError, match="differ in seeds"):
        compare([r for r in runs if r.folder.name not in ("w-low-1", "w-high-1")], "loss")
    with pytest.raises(CompareError, match="differ in seeds that the rate is chosen by"):
        compare([r for r in runs if r.folder.name != "w-low-1"], "loss")
    with pytest.raises(CompareError, match="no seed in common"):
        compare([r for r in runs if r.folder.name not in ("w-low-1", "w-high-0")], "loss")
    with pytest.raises(CompareError, match="are the same arm, rate and seed"):
        compare([*runs, runs[0]], "loss")
    with pytest.raises(CompareError, match="has no 'eval/x'.*train.eval_every above 0"):
        compare(runs, "loss", choose="eval/x")
    run(sweep / "longer", 0.4, 1e-3, 7, 3, steps=200)
    run(sweep / "longer-plain", 1.0, 1e-3, 7, 3, steps=100)
    with pytest.raises(CompareError, match="differ in steps"):
        compare(find([sweep / "longer", sweep / "longer-plain"]), "loss")
    assert main([str(sweep / "nowhere"), "--arm", "loss"]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_clips_must_be_the_same(tmp_path: Path) -> None:
    run(tmp_path / "a", 0.4, 1e-3, 0, 3)
    run(tmp_path / "b", 1.0, 1e-3, 0, 3, clips=21)
    with pytest.raises(ValueError, match="clip 'clip20'"):
        compare(find([tmp_path]), "loss")
