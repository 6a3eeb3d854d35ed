"""The command line, in process where composing is enough, else in a small copy of a checkout."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from joyvl_train.cli import compose, expand, main
from joyvl_train.config import UserError

ROOT = Path(__file__).resolve().parents[2]
PROBE = '''"""A recipe that only tries the command line."""

import os
import time


def main(config, run):
    run.metrics({"seed": config.seed, "size": config.data.size})
    if config.command == "bug":
        raise RuntimeError("a bug")
    if config.command == "user":
        raise ValueError("a bug too")
    if config.command == "full":
        (run.dir / ".metrics.json.tmp").symlink_to("/dev/full")
        run.metrics({"more": 1})
    if config.command == "wait":
        if os.fork() == 0:  # a worker outlives a killed run for a while
            time.sleep(30)
            os._exit(0)
        print("waiting", flush=True)
        time.sleep(30)
    if config.command == "rank" and os.environ["RANK"] == "1":
        raise SystemExit(7)
    if config.command == "rank":
        time.sleep(60)
    print("rank", os.environ.get("RANK"), os.environ.get("WORLD_SIZE"))
    # Ranks meet before the first of them ends, as those do that train together.
    if "RANK" in os.environ:
        (run.dir / f"here{os.environ['RANK']}").touch()
        while len(list(run.dir.glob("here*"))) < int(os.environ["WORLD_SIZE"]):
            time.sleep(0.01)
    run.report.write_text("<html></html>")
    run.finish(latest=True)
'''
PROBE_CONFIG = """# @package _global_
defaults:
  - /loss: weighted
  - /engine: single
  - _self_
recipe: probe
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one recipe that takes no time."""
    root = tmp_path / "checkout"
    package = root / "joyvl_train"
    package.mkdir(parents=True)
    for name in ("__init__", "__main__", "actions", "cli", "config", "run", "timeline"):
        shutil.copy(ROOT / "joyvl_train" / f"{name}.py", package)
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "recipes").mkdir()
    (root / "recipes" / "probe.py").write_text(PROBE)
    (root / "configs" / "recipe" / "probe.yaml").write_text(PROBE_CONFIG)
    return root


def run(root, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "joyvl_train", *arguments],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def one_line(stderr: str) -> str:
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1, stderr
    return stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.sed=3"], "data.sed=3: there is no key data.sed. Did you mean data.seed"),
        (["steps=3"], "or train.steps?"),
        (["+data.new=3"], "there is no key data.new"),
        (["trian.steps=3"], "Did you mean train.steps"),
        (["lss=plain"], "there is no key lss. Did you mean loss"),
        (["train=3"], "train holds keys; set one of them"),
        (["hydra.run.dir=x"], "there is no key hydra.run.dir. Did you mean run.dir?"),
        (["loss=wieghted"], "there is no such loss; it is one of plain, weighted. Did you mean"),
        (["model=qwen"], "there is no such model; it is one of joyai_8b, qwen3_vl_2b"),
        (["data.seed=abc"], "data.seed=abc: takes int, 0 to 4294967295"),
        (["data.seed=1.5"], "data.seed=1.5: takes int"),
        (["data.seed=null"], "data.seed=null: takes int"),
        (["data.seed=-1"], "data.seed=-1: takes int, 0 to"),
        (["seed=99999999999999"], "seed=99999999999999: takes int, 0 to"),
        (["train.pack=maybe"], "train.pack=maybe: takes true or false"),
        (["train.learning_rate=nan"], "train.learning_rate=nan: takes number, 0 to 1"),
        (["train.betas=0.9"], "train.betas=0.9: takes list of number"),
        (["data.mix.qa=much"], "data.mix.qa=much: takes dict of number"),
        (["data.size=100000000"], "data.size=100000000: takes int, 28 to 2048"),
        (["model.freeze=[head]"], "takes list of vision or projector or text"),
        (["data=path"], "data.path is empty"),
        (["engine.processes=2"], "use engine=ddp, zero2 or zero3"),
        (["run.dir=${nope}"], "run.dir: Interpolation key 'nope' not found"),
        (["data.path=a=b"], "can't be read as key=value"),
        (["sft"], "can't be read as key=value"),
        (["=3"], "can't be read as key=value"),
        (["seed=0,1"], "several values make a sweep; add -m"),
        (["-m", "seed=0,x"], "seed=x: takes int"),
        (["--cgf"], "unrecognized arguments: --cgf"),
    ],
)
def test_what_a_user_gets_wrong(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["recipe=sft", *arguments], ROOT) == 2
    assert words in one_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("key", "silence_frist: 2", "configs/loss/key.yaml: Key 'silence_frist' not in"),
        ("type", "silence_first: much", "configs/loss/type.yaml: Value 'much' of type 'str'"),
        ("torn", "silence_first: [1\n", "torn.yaml"),
        ("link", "silence_first: ${nope}", "loss.silence_first: Interpolation key 'nope'"),
        ("range", "silence_first: -3", "loss.silence_first=-3.0: takes number, 0 to 1000"),
    ],
)
def test_a_wrong_config_file(checkout, capsys, name, text, words):
    (checkout / "configs" / "loss" / f"{name}.yaml").write_text(text)
    assert main(["recipe=sft", f"loss={name}"], checkout) == 2
    assert words in one_line(capsys.readouterr().err)


def test_a_group_that_the_recipe_does_not_read(checkout, capsys):
    assert main(["recipe=probe", "setting=short"], checkout) == 2
    assert "recipe=probe does not read the group setting" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "words"), [([], "no recipe is named"), (["recipe=prob"], "Did you mean probe?")]
)
def test_without_a_recipe_they_are_listed(checkout, capsys, arguments, words):
    assert main(arguments, checkout) == 2
    shown = capsys.readouterr()
    assert "  probe  A recipe that only tries the command line.\n" in shown.out
    assert words in one_line(shown.err)


def test_help_lists_groups_and_keys(capsys):
    assert main(["--help"], ROOT) == 0
    text = capsys.readouterr().out
    assert "  loss=plain|weighted\n" in text
    assert "  data.seed=0  seed of the held-out streams alone [int, 0 to 4294967295]\n" in text


def test_cfg_prints_what_would_run(capsys):
    assert main(["recipe=sft", "--cfg", "data.mix.qa=2", "seed=5"], ROOT) == 0
    text = capsys.readouterr().out
    assert "recipe: sft\n" in text
    assert "seed: 5\n" in text
    assert "    qa: 2.0\n" in text


def test_a_free_mapping_is_set_key_by_key_or_whole():
    for given in (["data.mix.qa=0", "data.mix.chat=2"], ["data.mix={qa:0,chat:2}"]):
        assert compose(ROOT, ["recipe=sft", *given]).data.mix == {"qa": 0.0, "chat": 2.0}
    jobs = expand(["recipe=sft", "data.mix={},{qa:0},{chat:0}"])
    mixes = [compose(ROOT, job.overrides).data.mix for job in jobs]
    assert mixes == [{}, {"qa": 0.0}, {"chat": 0.0}]
    assert len({job.name for job in jobs}) == 3


def test_values():
    config = compose(
        ROOT,
        [
            "recipe=sft",
            "data.frames_per_second=auto",
            "data.families=[alerting,qa]",
            "engine=zero3",
            "engine.deepspeed.zero_optimization.stage=1",
            "engine.deepspeed.offload.device=cpu",
        ],
    )
    assert config.data.frames_per_second == "auto"
    assert config.data.families == ["alerting", "qa"]
    assert config.engine.deepspeed["zero_optimization"]["stage"] == 1
    assert config.engine.deepspeed["offload"] == {"device": "cpu"}


def test_a_path_alone_means_data_path():
    config = compose(ROOT, ["recipe=sft", "data.path=my/shards"])
    assert (config.data.kind, config.data.path) == ("path", "my/shards")
    with pytest.raises(UserError, match="add data=path"):
        compose(ROOT, ["recipe=sft", "data=drawn", "data.path=my/shards"])


def test_expand():
    jobs = expand(["recipe=sft", "loss=weighted,plain", "train.learning_rate=1e-3,3e-4"])
    assert [job.name for job in jobs] == [
        "0_loss-weighted_train.learning_rate-0.001",
        "1_loss-weighted_train.learning_rate-0.0003",
        "2_loss-plain_train.learning_rate-0.001",
        "3_loss-plain_train.learning_rate-0.0003",
    ]
    assert jobs[3].overrides == ["recipe=sft", "loss=plain", "train.learning_rate=0.0003"]
    assert [job.name for job in expand(["recipe=sft"])] == ["0"]


def test_a_run_from_end_to_end(checkout):
    done = run(checkout, "recipe=probe", "seed=4", "run.dir=out/a b'c,d")
    assert done.returncode == 2
    done = run(checkout, "recipe=probe", "seed=4", "run.dir='out/a b,d'")
    assert done.returncode == 0, done.stderr
    assert "report: out/a b,d/report.html" in done.stdout
    folder = checkout / "out" / "a b,d"
    assert json.loads((folder / "metrics.json").read_text())["seed"] == 4
    assert (checkout / "outputs" / "latest" / "probe").resolve() == folder
    # Nothing but the run's own folders, and nothing of Hydra's.
    assert {path.name for path in checkout.iterdir()} == {
        "configs", "joyvl_train", "out", "outputs", "recipes",
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "config.yaml", "finished", "metrics.json", "report.html",
    }  # fmt: skip
    again = run(checkout, "recipe=probe", "seed=4", "run.dir='out/a b,d'")
    assert again.returncode == 0
    assert "is finished already" in again.stdout
    other = run(checkout, "recipe=probe", "seed=5", "run.dir='out/a b,d'")
    assert other.returncode == 2
    assert "seed=5 (was 4)" in one_line(other.stderr)


def test_bugs_keep_their_traceback(checkout):
    for command in ("bug", "user"):
        done = run(checkout, "recipe=probe", f"command={command}")
        assert done.returncode == 1
        assert "Traceback" in done.stderr


def test_a_full_disk_is_one_line(checkout):
    done = run(checkout, "recipe=probe", "command=full", "run.dir=out")
    assert done.returncode == 2
    assert "run.dir=out: the disk is full" in one_line(done.stderr)


def test_a_folder_that_is_in_use_and_then_killed(checkout):
    command = [sys.executable, "-m", "joyvl_train", "recipe=probe", "command=wait", "run.dir=out"]
    with subprocess.Popen(
        command, cwd=checkout, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as first:
        assert first.stdout is not None
        try:
            while "waiting" not in first.stdout.readline():
                assert first.poll() is None
            second = run(checkout, "recipe=probe", "command=wait", "run.dir=out")
            assert second.returncode == 2
            assert f"another process is at work there (pid {first.pid})" in one_line(second.stderr)
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
            # The worker still lives, and holds nothing.
            third = run(checkout, "recipe=probe", "command=bug", "run.dir=out")
            assert "command=bug (was wait)" in one_line(third.stderr)
        finally:
            os.killpg(first.pid, signal.SIGKILL)


def test_an_interrupted_run_says_how_to_go_on(checkout):
    command = [sys.executable, "-m", "joyvl_train", "recipe=probe", "command=wait", "seed=3"]
    with subprocess.Popen(
        command,
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background of a shell ignores interrupts, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "waiting" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
        lines = [line for line in process.stderr.read().splitlines() if "to go on" in line]
    assert lines[-1].startswith(
        "stopped; to go on: python -m joyvl_train recipe=probe command=wait seed=3 run.dir=outputs/"
    )


def test_a_sweep_gives_each_job_its_folder(checkout):
    done = run(checkout, "-m", "recipe=probe", "loss=weighted,plain", "seed=0,1", "run.dir=sweep")
    assert done.returncode == 0, done.stderr
    folders = sorted((checkout / "sweep").iterdir())
    assert [folder.name for folder in folders] == [
        "0_loss-weighted_seed-0",
        "1_loss-weighted_seed-1",
        "2_loss-plain_seed-0",
        "3_loss-plain_seed-1",
    ]
    seeds = [json.loads((folder / "metrics.json").read_text())["seed"] for folder in folders]
    assert seeds == [0, 1, 0, 1]


def test_a_sweep_goes_on_past_a_failure(checkout):
    done = run(checkout, "-m", "recipe=probe", "command=full,run", "run.dir=sweep")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: 1 of 2 jobs failed: sweep/0_command-full"
    assert (checkout / "sweep" / "1_command-run" / "finished").exists()


def test_processes_share_a_folder_and_end_together(checkout):
    both = ("recipe=probe", "engine=ddp", "engine.processes=2")
    done = run(checkout, *both, "run.dir=out")
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("rank")) == [
        "rank 0 2",
        "rank 1 2",
    ]
    failed = run(checkout, *both, "command=rank", "run.dir=failed")
    assert failed.returncode == 7


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("words", ["engine=ddp engine.processes=2", "-m seed=0"])
def test_what_a_command_started_ends_with_it(checkout, ending, words):
    command = ["recipe=probe", *words.split(), "command=wait", "run.dir=out"]
    with subprocess.Popen(
        [sys.executable, "-m", "joyvl_train", *command],
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            for _ in range(1 if "-m" in words else 2):
                while "waiting" not in process.stdout.readline():
                    assert process.poll() is None
            process.send_signal(ending)
            process.wait(30)
            assert process.returncode == (-9 if ending == signal.SIGKILL else 128 + ending)
            # Nobody holds the folder any more, or not for long.
            for _ in range(40):
                again = run(checkout, "recipe=probe", "command=bug", "run.dir=out")
                if "another process" not in again.stderr:
                    break
            assert "another process" not in again.stderr
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_without_configs_a_clear_line(checkout):
    shutil.rmtree(checkout / "configs")
    done = run(checkout, "recipe=probe")
    assert done.returncode == 2
    assert "recipes run from a checkout" in one_line(done.stderr)


def test_the_checkout_comes_first_from_anywhere(checkout, tmp_path):
    (checkout / "recipes" / "probe.py").write_text(
        '"""Probe."""\nimport os\nimport sys\n\n\ndef main(config, run):\n'
        '    print(sys.path[0])\n    print(os.environ["PYTHONPATH"])\n'
    )
    done = run(tmp_path, "recipe=probe", PYTHONPATH=os.pathsep.join(["other", str(checkout)]))
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()[-2:]
    assert shown == [str(checkout), os.pathsep.join([str(checkout), "other"])]
