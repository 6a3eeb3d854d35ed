import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from joyvl_train.cli import compose
from joyvl_train.config import MAX_WEIGHT, Config, UserError, check, flat, keys, nearest
from joyvl_train.memory import Limits
from joyvl_train.stream_config import StreamConfig, in_force
from joyvl_train.weights import LossWeights

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_pass():
    check(Config())


def test_keys_cover_every_value():
    assert set(flat(Config())) == {key.name for key in keys()}
    assert flat(Config())["loss.silence_repeat"] == 0.4
    assert all(flat(Config())[key.name] == key.default for key in keys())


def test_defaults_are_not_shared():
    Config().model.freeze.append("vision")
    assert Config().model.freeze == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.seed", -1),
        ("seed", 2**32),
        ("train.learning_rate", float("nan")),
        ("train.max_grad_norm", float("inf")),
        ("data.frames_per_second", 0),
        ("data.frames_per_second", "fast"),
        ("data.turn_share", 1.5),
        ("data.size", 10**9),
        ("model.freeze", ["vision", "head"]),
        ("train.betas", [0.9, 1.0]),
        ("data.mix", {"qa": -1.0}),
        ("run.wandb", "maybe"),
    ],
)
def test_a_value_out_of_bounds_is_named(key, value):
    config = Config()
    part, _, name = key.rpartition(".")
    setattr(getattr(config, part) if part else config, name, value)
    with pytest.raises(UserError, match=rf"^{key}=.*: takes ") as caught:
        check(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data.kind": "path"}, "data.path is empty"),
        ({"data.path": "x"}, "add data=path"),
        ({"model.min_pixels": 9, "model.max_pixels": 4}, "is above model.max_pixels=4"),
        ({"stream.lead": 100}, "must be below stream.chunk_seconds=100"),
        ({"train.betas": [0.9]}, "takes two numbers"),
        ({"model.freeze": ["text", "vision", "projector"]}, "nothing is left to train"),
        ({"engine.processes": 2}, "engine=single is one process"),
        ({"data.families": ["qa"], "data.mix": {"chat": 1.0}}, "not among data.families"),
    ],
)
def test_values_that_do_not_fit_together(values, words):
    config = Config()
    for key, value in values.items():
        part, _, name = key.rpartition(".")
        setattr(getattr(config, part), name, value)
    with pytest.raises(UserError, match=words):
        check(config)


def test_auto_rate_is_taken():
    config = Config()
    config.data.frames_per_second = "auto"
    check(config)


def test_nearest():
    known = ["data.seed", "data.size", "train.steps"]
    assert nearest("data.sed", known) == " Did you mean data.seed or data.size?"
    assert nearest("steps", known) == " Did you mean train.steps?"
    assert nearest("qqqqqqqq", known) == ""


def test_user_error_is_one_line():
    assert str(UserError("a\n  b")) == "a b"


def test_takes():
    takes = {key.name: key.takes for key in keys()}
    assert takes["data.seed"] == "int, 0 to 4294967295"
    assert takes["data.frames_per_second"] == "auto or number, 0.1 to 30"
    assert takes["model.freeze"] == "list of vision or projector or text"
    assert takes["train.pack"] == "true or false"
    assert takes["data.families"] == "list of text"


class Broken(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise UserError("data.path=x: is broken; mend it")


def test_an_error_from_a_loaders_worker_is_still_one_line():
    with pytest.raises(UserError) as caught:
        list(DataLoader(Broken(), num_workers=1))
    assert str(caught.value) == "data.path=x: is broken; mend it"


# -- keys and code -------------------------------------------------------------------------------

CODE = ("joyvl_train", "data_pipeline", "rl", "serve", "eval", "recipes")


def last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def reads(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(group, key) of every `group.key` that is read; (group, "*") where all of a group is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            group = last_name(node.value)
            # A run or a model is an object of its own too, with attributes of the same names.
            if group not in ("run", "model") or isinstance(node.value, ast.Attribute):
                yield group, node.attr
        if isinstance(node, ast.Call) and last_name(node.func) == "vars" and node.args:
            yield last_name(node.args[0]), "*"


def test_every_key_is_read():
    found = set()
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            if path != ROOT / "joyvl_train" / "config.py":  # it checks them, and uses none
                found |= set(reads(ast.parse(path.read_text(encoding="utf-8"))))
    assert ("train", "learning_rate") in found and ("loss", "*") in found
    dead = []
    for key in keys():
        *_, group, name = ["config", *key.name.split(".")]
        if not {(group, name), (group, "*")} & found:
            dead.append(key.name)
    assert dead == []


def test_a_key_that_nothing_reads_is_found():
    tree = ast.parse("a = config.train.steps\nconfig.train.minutes = 3\nb = vars(config.loss)")
    found = set(reads(tree))
    assert {("train", "steps"), ("loss", "*")} <= found
    assert ("train", "minutes") not in found


def test_one_bound_holds_for_weights():
    for key in keys():
        if key.name.startswith("loss.") and key.high is not None:
            assert key.high == MAX_WEIGHT
            name = key.name.removeprefix("loss.")
            LossWeights(**{name: MAX_WEIGHT})
            with pytest.raises(UserError, match=rf"{key.name} is 1000.5"):
                LossWeights(**{name: MAX_WEIGHT + 0.5})


REAL = sorted(path.stem for path in (ROOT / "configs" / "model").glob("*.yaml"))
REAL.remove("tiny")


@pytest.mark.parametrize("model", REAL)
def test_a_real_model_is_trained_at_a_low_rate(model):
    def rate(*more: str) -> float:
        return compose(ROOT, ["recipe=sft", f"model={model}", *more]).train.learning_rate

    assert rate() == 1e-5
    assert rate("model.lora.rank=16") == 1e-4
    assert rate("train.learning_rate=3e-6", "model.lora.rank=16") == 3e-6
    assert rate("setting=short", "engine=zero3") == 1e-5


def test_the_small_model_is_trained_at_a_high_rate():
    assert compose(ROOT, ["recipe=sft"]).train.learning_rate == 1e-3
    assert compose(ROOT, ["recipe=sft", "model.lora.rank=4"]).train.learning_rate == 1e-3


def test_a_block_of_a_few_characters_is_refused():
    with pytest.raises(UserError, match="stream.summary_chars=63: takes 64 or more, or 0"):
        compose(ROOT, ["recipe=sft", "stream.summary_chars=63"])


def test_the_bound_of_what_a_stream_tells_is_told():
    (key,) = [key for key in keys() if key.name == "stream.summary_chars"]
    assert f"at most {Limits(summary_chars=10**6).told_chars}," in key.meaning
    found = in_force(StreamConfig())
    assert found["summary_chars"] == Limits().summary_chars
    assert found["dialogue_tokens"] == Limits().dialogue_tokens
