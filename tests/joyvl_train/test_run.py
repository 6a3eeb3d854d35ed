import contextlib
import errno
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from joyvl_train.config import Config, UserError
from joyvl_train.run import Run, disk_full, fresh_dir, to_yaml, write_text


def config_for(tmp_path: Path, **values) -> Config:
    config = Config(recipe="sft")
    config.run.root = str(tmp_path / "outputs")
    config.run.dir = str(tmp_path / "run")
    for key, value in values.items():
        part, _, name = key.rpartition("__")
        setattr(getattr(config, part) if part else config, name, value)
    return config


@pytest.fixture
def run(tmp_path):
    with Run(config_for(tmp_path)) as run:
        yield run


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_default_folder(tmp_path):
    config = config_for(tmp_path, run__dir="")
    with Run(config) as first, Run(config) as second:
        assert first.dir.parent == tmp_path / "outputs" / "sft"
        assert first.dir != second.dir
    assert fresh_dir(tmp_path) == fresh_dir(tmp_path)


def test_a_finished_run_keeps_its_checkpoint_and_no_steps(run):
    for name in ("steps/checkpoint-2", "tower", "checkpoint"):
        (run.dir / name).mkdir(parents=True)
        (run.dir / name / "weights").write_text("x")
    run.finish(latest=False)
    assert run.finished and (run.dir / "checkpoint" / "weights").exists()
    assert not (run.dir / "steps").exists() and not (run.dir / "tower").exists()


def test_config_is_written_whole(run):
    tree = yaml.safe_load((run.dir / "config.yaml").read_text())
    assert tree["train"]["learning_rate"] == 1e-3
    assert tree["loss"]["silence_repeat"] == 0.4
    assert to_yaml(run.config) == (run.dir / "config.yaml").read_text()


def test_metrics_add_up_and_are_numbers(run):
    run.metrics({"train/steps": 3, "eval/onset_f1": 0.5, "eval/recall": None})
    run.metrics({"train/steps": 4})
    assert run.read_metrics() == {"train/steps": 4, "eval/onset_f1": 0.5}
    assert json.loads((run.dir / "metrics.json").read_text()) == run.read_metrics()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_metrics_refuse_what_is_not_finite(run, value):
    run.metrics({"a": 1})
    with pytest.raises(ValueError, match="metric b is"):
        run.metrics({"b": value})
    assert run.read_metrics() == {"a": 1}


@given(steps=st.lists(st.integers(1, 50), unique=True).map(sorted), keep=st.integers(0, 60))
def test_log_goes_back_to_a_step(tmp_path_factory, steps, keep):
    config = config_for(tmp_path_factory.mktemp("log"))
    with Run(config) as run:
        for step in steps:
            run.log(step, {"loss": 1.0 / step})
        with (run.dir / "log.jsonl").open("a") as file:
            file.write('{"step": 1, "lo')  # torn by a kill
        run.keep_log(keep)
        assert [row["step"] for row in run.read_log()] == [s for s in steps if s <= keep]
        run.log(99, {"loss": float("nan")})
        assert run.read_log()[-1] == {"step": 99, "loss": None}


def test_write_text_leaves_the_old_content_when_it_fails(tmp_path):
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    (tmp_path / ".metrics.json.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:
        write_text(path, "new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"


def test_latest_points_at_the_newest_that_trained(tmp_path):
    link = tmp_path / "outputs" / "latest" / "sft"
    for name, latest in (("a", True), ("b", False), ("c", True), ("d", False)):
        with Run(config_for(tmp_path, run__dir=str(tmp_path / name))) as run:
            assert not run.finished
            run.finish(latest=latest)
            assert run.finished
        newest = "c" if name in "cd" else "a"
        assert link.resolve() == tmp_path / newest
    assert not os.path.isabs(os.readlink(link))


def test_a_run_that_is_refused_at_once_leaves_no_folder(tmp_path):
    def refused(config: Config, *names: str) -> Path:
        run = Run(config)
        with contextlib.suppress(UserError), run:
            for name in names:
                (run.dir / name).write_text("{}")
            raise UserError("refused")
        return run.dir

    assert not refused(config_for(tmp_path)).exists()
    there = tmp_path / "there"
    there.mkdir()  # whose folder it was keeps it
    assert refused(config_for(tmp_path, run__dir=str(there))).exists()
    assert (refused(config_for(tmp_path), "log.jsonl") / "config.yaml").exists()
    with pytest.raises(ZeroDivisionError), Run(config_for(tmp_path, run__dir="")) as run:
        raise ZeroDivisionError
    assert (run.dir / "config.yaml").exists()  # of a bug everything stays


def test_the_same_config_goes_on_and_another_is_refused(tmp_path):
    with Run(config_for(tmp_path)):
        pass
    with Run(config_for(tmp_path, seed=7)):  # nothing was done yet
        pass
    with Run(config_for(tmp_path)) as run:
        run.log(1, {"loss": 1.0})
    with Run(config_for(tmp_path, run__threads=2, eval__batch=1, run__wandb="offline")):
        pass
    with (
        pytest.raises(UserError, match=r"data.seed=3 \(was 0\), train.steps=5 \(was 3000\)"),
        Run(config_for(tmp_path, data__seed=3, train__steps=5)),
    ):
        pass


def test_a_key_younger_than_the_run_had_its_default(tmp_path):
    with Run(config_for(tmp_path)) as run:
        run.log(1, {"loss": 1.0})
    path = run.dir / "config.yaml"
    path.write_text(path.read_text().replace("  log_every: 10\n", ""))
    with Run(config_for(tmp_path)):
        pass
    path.write_text(path.read_text().replace("  log_every: 10\n", ""))
    with pytest.raises(UserError, match=r"log_every=2 \(was 10\)"):
        Run(config_for(tmp_path, train__log_every=2)).__enter__()


def folder_under_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "run"


def file_in_place(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def no_rights(tmp_path):
    return Path("/proc/run")  # nobody may make a folder there, not even root


def long_name(tmp_path):
    return tmp_path / ("x" * 300)


def full_disk(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.tmp").symlink_to("/dev/full")
    return tmp_path / "run"


def no_config(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("just words")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    return tmp_path / "run"


def torn_config(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes(b"a: [\xff")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (folder_under_a_file, "a file stands in its way"),
        (file_in_place, "a file stands in its way"),
        (no_rights, "can't be written"),
        (long_name, "can't be written"),
        (full_disk, "the disk is full"),
        (no_config, "is not the config of a run"),
        (torn_config, "is not the config of a run"),
    ],
)
def test_a_folder_that_can_not_be_used(tmp_path, place, words):
    folder = place(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        Run(config_for(tmp_path, run__dir=str(folder))).__enter__()
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_disk_that_fills_up_during_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".metrics.json.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match="the disk is full"), Run(config_for(tmp_path)) as run:
        run.metrics({"a": 1})


def test_disk_full_is_told_from_other_errors():
    assert disk_full(OSError(errno.EDQUOT, "quota"))
    assert disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    outer = RuntimeError("saving failed")
    outer.__cause__ = OSError(errno.ENOSPC, "full")
    assert disk_full(outer)
    assert not disk_full(OSError(errno.EACCES, "denied"))
    outer.__cause__ = outer
    assert not disk_full(outer)


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with Run(config_for(tmp_path)) as run:
        run.metrics({"a": 1})
        run.log(1, {"loss": 1.0})
        run.finish(latest=True)
    assert list(run.dir.iterdir()) == []
    assert not run.root.exists()


def test_several_ranks_need_a_folder_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="run.dir is empty"):
        Run(config_for(tmp_path, run__dir=""))


def found(tmp_path, order, **values):
    config = config_for(tmp_path, run__dir=str(tmp_path / "now"), **values)
    with Run(config, home=tmp_path / "home") as run:
        (run.dir / "start.json").unlink(missing_ok=True)
        return run.find_checkpoint(order)


def trained(tmp_path, recipe):
    config = config_for(tmp_path, run__dir=str(tmp_path / f"of_{recipe}"), recipe=recipe)
    with Run(config) as run:
        checkpoint(run.checkpoint)
        run.finish(latest=True)
    return str(run.checkpoint)


def test_a_run_is_finished_once_all_else_is_done(tmp_path):
    config = config_for(tmp_path)
    with Run(config) as run:
        (run.root / "latest" / "sft").mkdir(parents=True)
        (run.dir / "steps" / "checkpoint-2").mkdir(parents=True)
        with pytest.raises(UserError, match="move away what stands there.* start again with"):
            run.finish(latest=True)
        assert not run.finished and (run.dir / "steps").exists()
    (run.root / "latest" / "sft").rmdir()
    with Run(config) as run:
        run.finish(latest=True)
        assert run.finished and not (run.dir / "steps").exists()
        assert (run.root / "latest" / "sft").resolve() == run.dir.resolve()


def test_where_a_run_starts(tmp_path, capsys):
    kept = checkpoint(tmp_path / "home" / "models" / "tiny")
    order = ("grpo", "sft", "kept")
    tiny = {"model__kept": "models/tiny"}
    assert found(tmp_path, order, **tiny).path == str(kept)
    assert f"starts from {kept} (the kept base of model=tiny)" in capsys.readouterr().out
    sft = trained(tmp_path, "sft")
    assert found(tmp_path, order, **tiny).path == sft
    grpo = trained(tmp_path, "grpo")
    assert found(tmp_path, order, **tiny).path == grpo
    assert found(tmp_path, ("kept",), **tiny).path == str(kept)


def test_a_start_that_is_named(tmp_path):
    folder = checkpoint(tmp_path / "mine" / "checkpoint")
    for name in (folder, folder.parent):
        config = config_for(tmp_path, run__dir=str(tmp_path / name.name), checkpoint=str(name))
        with Run(config) as run:
            assert run.find_checkpoint(("sft",)).path == str(folder)
    with Run(config_for(tmp_path, model__path="some/model")) as run:
        assert run.find_checkpoint(("sft",)).path == "some/model"


def test_no_start(tmp_path):
    with pytest.raises(UserError, match="the latest run of recipe=sft, nor the kept base"):
        found(tmp_path, ("sft", "kept"))
    with pytest.raises(UserError, match="holds no config.json"):
        found(tmp_path, ("sft",), checkpoint=str(tmp_path / "nowhere"))


def test_a_run_that_goes_on_keeps_its_start(tmp_path):
    first = trained(tmp_path, "sft")
    config = config_for(tmp_path, recipe="grpo")
    with Run(config) as run:
        assert run.find_checkpoint(("sft",)).path == first
    newer = config_for(tmp_path, run__dir=str(tmp_path / "newer"))
    with Run(newer) as run:
        checkpoint(run.checkpoint)
        run.finish(latest=True)
    with Run(config) as run:
        assert run.find_checkpoint(("sft",)).path == first


def test_threads(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with Run(config_for(tmp_path, run__threads=1)) as run:
            assert run.use_threads() == torch.get_num_threads() == 1
        with Run(config_for(tmp_path)) as run:
            assert run.use_threads() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
