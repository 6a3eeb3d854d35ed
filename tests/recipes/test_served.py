"""What recipe=grpo refuses before it loads anything, where an endpoint is to draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from joyvl_train.cli import compose
from joyvl_train.config import UserError
from joyvl_train.run import Run
from recipes._served import check_served, folder_of, served

ROOT = Path(__file__).parents[2]
URL = "grpo.urls=[http://127.0.0.1:9/v1]"

WRONG = {
    ("grpo.sampler=url",): "grpo.urls is empty",
    (URL,): "grpo.urls: goes with grpo.sampler=url, not own",
    ("grpo.weights=w",): "grpo.weights: goes with grpo.sampler=url, not own",
    ("grpo.sampler=vllm", URL): "goes with grpo.sampler=url, not vllm",
    ("grpo.sampler=url", URL, "grpo.top_p=0.9"): "it must be 1",
    ("grpo.sampler=url", "grpo.urls=[http://a/v1,http://b/v1]"): "there are 2 for 1 ranks",
    ("grpo.sampler=url", "grpo.urls=['localhost:8000/v1']"): "is no address",
    ("grpo.sampler=url", "grpo.urls=['http://host:port/v1']"): "is no address",
    ("grpo.sampler=url", "grpo.urls=['http://[::1/v1']"): "is no address",
    ("grpo.sampler=vllm", "serve.vllm_python=nowhere/python"): "is not there; `make vllm-env`",
}


@pytest.mark.parametrize("keys", WRONG)
def test_what_is_wrong_is_told_before_anything_is_loaded(keys: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"^(grpo|serve)\.\w+") as raised:
        check_served(compose(ROOT, ["recipe=grpo", *keys]))
    assert WRONG[keys] in str(raised.value)


def test_several_machines_start_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(UserError, match="there are several; start them"):
        check_served(compose(ROOT, ["recipe=grpo", "grpo.sampler=vllm"]))
    check_served(compose(ROOT, ["recipe=grpo", "grpo.sampler=url", URL]))


def test_weights_stand_in_a_folder_of_the_run_which_goes_with_it(tmp_path: Path) -> None:
    places = []
    for name in ("a", "b"):
        keys = [f"run.dir={tmp_path / name / '0'}", f"grpo.weights={tmp_path / 'shared'}"]
        config = compose(ROOT, ["recipe=grpo", "grpo.sampler=url", URL, *keys])
        run = Run(config)
        folder = folder_of(config, run)
        places.append(folder)
        other = folder.with_name("policy-of-another")
        with served(config, run, None, "start") as draws:  # type: ignore[arg-type]
            assert draws is not None
            for left in (folder, folder.with_name(f"{folder.name}.partial"), other):
                left.mkdir(parents=True, exist_ok=True)
        assert sorted(tmp_path.joinpath("shared").iterdir()) == [other]
    assert places[0] != places[1] and places[0].parent == tmp_path / "shared"
