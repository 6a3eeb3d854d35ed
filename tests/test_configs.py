"""Every committed config composes, and says what it claims."""

import itertools
from pathlib import Path

import pytest

from joyvl_train.cli import compose, recipes
from joyvl_train.config import Config, keys

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
RECIPES = sorted(path.stem for path in (CONFIGS / "recipe").glob("*.yaml"))
GROUPS = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name != "recipe")
NEEDS = {"data=path": ["data.path=somewhere"]}


def reads(recipe: str, group: str) -> bool:
    return f"- /{group}:" in (CONFIGS / "recipe" / f"{recipe}.yaml").read_text(encoding="utf-8")


CASES = [
    (recipe, f"{group}={path.stem}")
    for recipe, group in itertools.product(RECIPES, GROUPS)
    if reads(recipe, group)
    for path in sorted((CONFIGS / group).glob("*.yaml"))
]


@pytest.mark.parametrize(("recipe", "option"), CASES)
def test_every_option_composes(recipe, option):
    config = compose(ROOT, [f"recipe={recipe}", option, *NEEDS.get(option, [])])
    assert isinstance(config, Config)
    assert config.recipe == recipe


def test_every_file_is_among_the_cases():
    found = {path.relative_to(CONFIGS).with_suffix("") for path in CONFIGS.rglob("*.yaml")}
    cased = {Path(*option.split("=")) for _, option in CASES}
    assert found - cased == {Path("run"), *(Path("recipe", name) for name in RECIPES)}


def test_every_recipe_has_a_config_and_a_line():
    lines = recipes(ROOT)
    assert set(lines) <= set(RECIPES)
    assert all(lines.values())


def test_losses():
    weighted = compose(ROOT, ["recipe=sft"]).loss
    plain = compose(ROOT, ["recipe=sft", "loss=plain"]).loss
    table = (weighted.silence_first, weighted.silence_repeat, weighted.response, weighted.other)
    assert table == (1.0, 0.4, 1.5, 1.0)
    assert weighted.normalizer == "tokens"
    assert {plain.silence_first, plain.silence_repeat, plain.response, plain.other} == {1.0}


def test_zero_stages():
    for stage in (2, 3):
        engine = compose(ROOT, ["recipe=sft", f"engine=zero{stage}"]).engine
        assert engine.kind == "deepspeed"
        assert engine.deepspeed["zero_optimization"]["stage"] == stage


def test_a_setting_gives_way_to_the_command_line():
    short = compose(ROOT, ["recipe=sft", "setting=short"])
    assert short.train.steps < compose(ROOT, ["recipe=sft"]).train.steps
    assert compose(ROOT, ["recipe=sft", "setting=short", "train.steps=7"]).train.steps == 7


def test_default_values_keep_their_bounds_and_have_a_meaning():
    for key in keys():
        assert key.meaning, key.name
        assert (key.low is None) == (key.high is None), key.name
