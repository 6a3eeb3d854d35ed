"""Parts under Slurm, whose commands are stood in for by ones that run the array's jobs here."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from data_pipeline import clusters
from data_pipeline.clusters import Ray, Slurm
from data_pipeline.parts import Local, PartsError, run_parts
from joyvl_train.config import UserError
from tests.data_pipeline.test_parts import SIZES, Dies, Raises, Stops, Writes

SBATCH = f"""#!{sys.executable}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "submitted"), "a") as log:
    log.write(script + "---")
first, last = re.search(r"--array=(\\d+)-(\\d+)%", script).groups()
for task in range(int(first), int(last) + 1):
    slurms = {{"SLURM_ARRAY_TASK_ID": str(task), "SLURM_NODELIST": "here", "RUN_OFFSET": "0"}}
    job = ["bash", sys.argv[-1]]
    subprocess.run(job, env={{**os.environ, **slurms}}, stderr=subprocess.DEVNULL)
print("Submitted batch job 4711 on cluster west")
"""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done
exec "$@"
"""
SCONTROL = "#!/bin/bash\necho here\n"
SQUEUE = f"""#!{sys.executable}
import os, sys
here = os.path.dirname(os.path.abspath(__file__))
turns = os.path.join(here, "turns")
left = int(open(turns).read()) if os.path.exists(turns) else 0
if sys.argv[-2] == "--name":
    with open(os.path.join(here, "names"), "a") as log:
        log.write(sys.argv[-1] + "\\n")
    (form,) = [word[9:] for word in sys.argv if word.startswith("--format=")]
    for array, own in [("99", "99"), ("99", "100"), ("98", "98")] if left else []:
        print(form.replace("%F", array).replace("%A", own))
    sys.exit(0)
open(turns, "w").write(str(max(0, left - 1)))
if left:
    print(sys.argv[-1])
else:
    print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the commands."""
    pytest.importorskip("datatrove")
    commands = tmp_path / "commands"
    commands.mkdir()
    texts = {"sbatch": SBATCH, "squeue": SQUEUE, "srun": SRUN, "scontrol": SCONTROL}
    for name, text in texts.items():
        (commands / name).write_text(text)
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return commands


def submitted(commands: Path) -> list[str]:
    return (commands / "submitted").read_text().split("---")[:-1]


def test_an_array_does_the_missing_parts(tmp_path, slurm):
    work = Writes(tmp_path)
    work.path(2).write_text("part 2")
    executor = Slurm("gpu", "01:00:00", 3, jobs=2, options={"account": "vision"}, poll=0)
    run_parts(SIZES, work, executor, tmp_path, progress=False)
    assert work.finished() == [0, 1, 2, 3, 4, 5]
    assert work.begun(2) == 0
    (script,) = submitted(slurm)
    for setting in ("--array=0-1%3", "--partition=gpu", "--time=01:00:00", "--account=vision"):
        assert f"#SBATCH {setting}\n" in script
    pids = [(tmp_path / f"{part}.begun").read_text() for part in (0, 1, 3, 4, 5)]
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]


def test_parts_that_fail_and_jobs_that_die_are_told_of(tmp_path, slurm):
    with pytest.raises(PartsError, match="2 of 6 parts failed.*part 1: KeyError: 'no 1'"):
        run_parts(SIZES, Raises(tmp_path), Slurm("gpu", poll=0), tmp_path, progress=False)
    with pytest.raises(PartsError, match="1 of 6 parts failed.*part 1: job 4711 ended without it"):
        run_parts(SIZES, Dies(tmp_path), Slurm("gpu", poll=0), tmp_path, progress=False)
    assert Writes(tmp_path).finished() == [0, 2, 3, 4, 5]


def test_a_wrong_setting_is_told_of(tmp_path, slurm):
    with pytest.raises(PartsError, match="part 2: data.cache_dir=x: can't be written"):
        run_parts(SIZES, Stops(tmp_path), Slurm("gpu", poll=0), tmp_path, progress=False)


def test_the_jobs_of_an_interrupted_run_are_waited_for(tmp_path, slurm, capsys):
    (slurm / "turns").write_text("2")
    work = Writes(tmp_path)
    run_parts(SIZES, work, Slurm("gpu", poll=0), tmp_path, progress=False)
    assert "waits for the Slurm job 98,99 of" in capsys.readouterr().out
    assert work.finished() == [0, 1, 2, 3, 4, 5]
    # They were asked for by the name that those of this run are submitted under.
    (script,) = submitted(slurm)
    name = (slurm / "names").read_text().strip()
    assert f"#SBATCH --job-name={name}\n" in script and name != clusters.name_of(slurm)


def test_a_run_keeps_its_name_by_whatever_path_it_is_reached(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    assert clusters.name_of(tmp_path / "link") == clusters.name_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("squeue", "message"),
    [("exec sleep 60", "gave no answer in 0.2 s"), ("echo down >&2; exit 1", r"failed \(down\)")],
)
def test_nothing_is_submitted_beside_what_cant_be_asked_about(
    tmp_path, slurm, monkeypatch, squeue, message
):
    (slurm / "squeue").write_text(f"#!/bin/bash\n{squeue}\n")
    monkeypatch.setattr(clusters, "ANSWERS_IN", 0.2)
    with pytest.raises(UserError, match=f"squeue {message}"):
        run_parts(SIZES, Writes(tmp_path), Slurm("gpu", poll=0), tmp_path, progress=False)
    assert not (slurm / "submitted").exists()


def test_a_question_without_an_answer_leaves_the_job_queued(slurm, monkeypatch):
    """As when the controller hangs: the job's parts aren't given up, nor given to another one."""
    (slurm / "squeue").write_text("#!/bin/bash\nexec sleep 60\n")
    monkeypatch.setattr(clusters, "ANSWERS_IN", 0.2)
    assert clusters._queued("4711")


def test_without_slurm_a_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="sbatch isn't here"):
        run_parts(SIZES, Writes(tmp_path), Slurm("gpu", poll=0), tmp_path, progress=False)


def test_without_ray_a_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="pip install 'joyvl"):
        run_parts(SIZES, Writes(tmp_path), Ray(), tmp_path, progress=False)


@pytest.mark.slow
def test_ray_does_the_parts_and_loses_none_to_a_death(tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(PartsError, match="1 of 6 parts failed.*part 1: WorkerCrashedError"):
            run_parts(SIZES, Dies(tmp_path), Ray(workers=2), tmp_path, progress=False)
        assert Writes(tmp_path).finished() == [0, 2, 3, 4, 5]
        for part in range(6):
            (tmp_path / f"{part}.out").unlink(missing_ok=True)
        with pytest.raises(PartsError, match="2 of 6 parts failed.*KeyError: 'no 1'"):
            run_parts(SIZES, Raises(tmp_path), Ray(workers=2), tmp_path, progress=False)
        run_parts(SIZES, Writes(tmp_path), Local(1), tmp_path, progress=False)
    finally:
        ray.shutdown()
    assert Writes(tmp_path).finished() == [0, 1, 2, 3, 4, 5]
