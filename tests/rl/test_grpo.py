"""A step of GRPO on a small real model: what was sampled is what is trained, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from joyvl_train import attention
from joyvl_train.branching import BranchingEngine
from joyvl_train.rendering import Renderer
from joyvl_train.saved_steps import resumed_step
from joyvl_train.timeline import TimelineError
from joyvl_train.trainer import WeightedLoss, generating
from rl.advantages import Advantages
from rl.fit import Best, fit_policy
from rl.grpo import Grpo
from rl.policy_loss import Policy, PolicyLoss
from rl.rollout import Rollout, roll
from rl.rows import Weighed, bunch, bunched, merged, row_batch
from rl.sequences import packed, sequences
from rl.settings import Settings
from rl.supervised import Supervised
from rl.windows import Sizes, open_window, windows_of
from tests import tiny_training
from tests.rl import tiny_grpo
from tests.rl.policies import SETTINGS
from tests.rl.tiny_grpo import Clips, lively, trainer
from tests.tiny_training import ROOT, launch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", name="lively")
def _lively() -> tuple[Any, Renderer]:
    return lively()


def rollouts(model: Any, renderer: Renderer, temperature: float = 1.0) -> list[Rollout]:
    clips = Clips()
    opened = [
        open_window(
            window,
            *clips[clip],
            SETTINGS,
            prepare=lambda picture: renderer.processor.images([picture]),
        )
        for clip in range(len(clips))
        for window in windows_of(clip, clips[clip][0], Sizes(4, 3, 5, 6))[:3]
    ]
    with generating(model) as plain:
        engine = BranchingEngine(
            plain, renderer, max_new_tokens=6, temperature=temperature, details=True
        )
        return [r for group in roll(engine, opened, 3) for r in group]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_each_sampled_token_has_the_probability_that_it_was_drawn_with(
    lively, temperature: float
) -> None:
    model, renderer = lively
    found = rollouts(model, renderer, temperature)
    assert any(r.broken for r in found) or temperature < 1
    assert any(len(s.ids) > 3 for r in found for s in r.sampled)
    scored = [s for r in found for s in sequences(r, renderer)]
    assert sum(len(s.positions) for s in scored) == sum(r.tokens for r in found)
    loss = PolicyLoss(model, Policy(temperature=temperature))
    for numbers in packed([len(s) for s in scored], 2048):
        row = [Weighed(scored[i], dict.fromkeys(scored[i].seconds.tolist(), 0.0)) for i in numbers]
        batch = row_batch([bunch([each]) for each in row], "tokens")
        with torch.no_grad():
            logp, entropy = loss.logprobs(batch)
        assert torch.allclose(logp, batch["drawn"], atol=2e-4)
        assert bool((entropy >= 0).all())


def test_a_turn_with_a_placeholder_of_an_image_is_in_no_sequence(lively) -> None:
    """No picture stands behind it; the other turns are scored all the same."""
    model, renderer = lively
    (rollout,) = [r for r in rollouts(model, renderer)[:3] if len(r.sampled) > 2][:1]
    first, *others = rollout.sampled
    drawn = replace(first, ids=(renderer.processor.image_id, *first.ids[1:]))
    strange = replace(rollout, sampled=(drawn, *others))
    scored = sequences(strange, renderer)
    seconds = {int(t) for each in scored for t in each.seconds}
    assert seconds == {each.second for each in others}


def gradients(loss: PolicyLoss, batches: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    loss.zero_grad()
    whole = sum(float(b["token_weights"].sum()) for b in batches)
    for batch in batches:
        (loss(**batch)["loss"] / whole).backward()
    return {n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("aggregate", ["tokens", "sequences"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_packed_rows_have_the_gradient_of_single_ones(lively, aggregate: str, level) -> None:
    model, renderer = lively
    scored = [s for r in rollouts(model, renderer)[:6] for s in sequences(r, renderer)]
    weighed = [
        Weighed(s, {t: float(number % 3 - 1) for t in s.seconds.tolist()})
        for number, s in enumerate(scored)
    ]
    loss = PolicyLoss(model, Policy(level=level))
    singles = [bunch([one]) for one in weighed]
    alone = gradients(loss, [row_batch([one], aggregate) for one in singles])
    together = gradients(loss, [row_batch(singles, aggregate)])
    assert alone.keys() == together.keys() and any(bool(g.any()) for g in alone.values())
    for name, gradient in alone.items():
        assert torch.allclose(gradient, together[name], rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("on_cpu", [True, False], ids=["blocks", "nodes"])
@pytest.mark.parametrize("room", [10_000, 700])
def test_what_rollouts_of_a_window_share_is_computed_once_and_comes_to_the_same(
    lively, monkeypatch: pytest.MonkeyPatch, room: int, on_cpu: bool
) -> None:
    model, renderer = lively
    by_window: dict[Any, list[Weighed]] = {}
    for number, rollout in enumerate(rollouts(model, renderer)):
        for s in sequences(rollout, renderer):
            given = Weighed(s, {t: float(number % 3 - 1) for t in s.seconds.tolist()})
            by_window.setdefault(rollout.window.key, []).append(given)
    singles = [bunch([one]) for own in by_window.values() for one in own]
    bunches = [each for own in by_window.values() for each in bunched(own, room)]
    assert max(map(len, bunches)) <= room and len(bunches) >= len(by_window)
    assert any(len(each.tree.lengths) > 2 for each in bunches)
    assert sum(map(len, bunches)) < 0.8 * sum(map(len, singles))
    loss = PolicyLoss(model, Policy())
    apart, trees = (row_batch(them, "tokens") for them in (singles, bunches))
    assert trees["image_count"] < apart["image_count"]
    monkeypatch.setattr(attention, "_by_blocks", lambda query: on_cpu)
    with torch.no_grad():
        one, other = loss(**apart), loss(**trees)
    for key in ("loss", "stats", "logp"):
        assert torch.allclose(one[key], other[key], rtol=1e-4, atol=1e-4), key
    separate, together = gradients(loss, [apart]), gradients(loss, [trees])
    for name, gradient in separate.items():
        assert torch.allclose(gradient, together[name], rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("on_cpu", [True, False], ids=["blocks", "nodes"])
def test_shared_rows_under_autocast(lively, monkeypatch: pytest.MonkeyPatch, on_cpu: bool) -> None:
    """Master weights leave norms in float32, and so queries and keys, beside values in bfloat16."""
    model, renderer = lively
    own = [
        Weighed(s, {t: float(number % 3 - 1) for t in s.seconds.tolist()})
        for number, rollout in enumerate(rollouts(model, renderer)[:3])
        for s in sequences(rollout, renderer)
    ]
    loss = PolicyLoss(model, Policy())
    apart, tree = (row_batch(them, "tokens") for them in ([bunch([s]) for s in own], [bunch(own)]))
    assert "trees" in tree and "trees" not in apart
    with torch.no_grad():
        exact = loss(**apart)["logp"]
        monkeypatch.setattr(attention, "_by_blocks", lambda query: on_cpu)
        monkeypatch.setattr(attention, "_written_out", lambda query: False)
        with torch.autocast("cpu", torch.bfloat16):
            found = loss(**tree)["logp"]
    assert (found - exact).abs().mean() < 0.05


@pytest.mark.parametrize("aggregate", ["tokens", "sequences"])
def test_rollouts_that_are_alike_are_computed_once_and_weigh_as_all(lively, aggregate: str) -> None:
    model, renderer = lively
    scored = [s for r in rollouts(model, renderer)[:4] for s in sequences(r, renderer)]
    once = [
        Weighed(s, {t: float(number % 3 - 1) for t in s.seconds.tolist()})
        for number, s in enumerate(scored)
    ]
    other = replace(once[0], advantages=dict.fromkeys(scored[0].seconds.tolist(), 0.5))
    every = [*once, once[0], other, once[2], once[0]]
    few = merged(every)
    assert [each.copies for each in few] == [3, 1, 2, *[1] * (len(once) - 3), 1]
    loss = PolicyLoss(model, Policy())
    whole, merged_rows = (
        row_batch([bunch([one]) for one in them], aggregate) for them in (every, few)
    )
    assert torch.isclose(whole["token_weights"].sum(), merged_rows["token_weights"].sum())
    assert torch.allclose(
        loss(**whole)["stats"], loss(**merged_rows)["stats"], rtol=1e-4, atol=1e-4
    )
    separate, together = gradients(loss, [whole]), gradients(loss, [merged_rows])
    for name, gradient in separate.items():
        assert torch.allclose(gradient, together[name], rtol=1e-3, atol=1e-6), name


def weights(grpo: Grpo) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in grpo.model.named_parameters()}


@pytest.mark.parametrize("freezes", [(), ("vision", "projector")])
def test_a_step_moves_what_is_trained_and_tells_of_itself(tmp_path: Path, freezes) -> None:
    grpo = trainer(tmp_path, freezes=freezes)
    before = weights(grpo)
    figures = grpo.update(0)
    after = weights(grpo)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not (freezes and any("visual" in name for name in moved))
    assert figures["grpo/rollouts"] == 9 and figures["grpo/groups_teaching"] >= 1
    # One engine drew, another forward scored: they agree, and the policy is the one that drew.
    assert figures["grpo/gap"] < 1e-3 and figures["grpo/importance"] == pytest.approx(1, abs=1e-3)
    assert figures["grpo/clipped"] == 0 and figures["grpo/entropy"] > 0
    assert {"reward/timing", "reward/format"} & set(figures) and figures["train/grad_norm"] > 0


def test_several_updates_on_one_batch_are_bound_by_the_clip(tmp_path: Path) -> None:
    settings = Settings(
        windows=3,
        group=3,
        rounds=1,
        max_new_tokens=6,
        epochs=3,
        updates=2,
        policy=Policy(clip_low=0.01, clip_high=0.01, kl=0.05),
    )
    grpo = trainer(tmp_path, settings=settings, learning_rate=3e-3, row_tokens=1500)
    figures = grpo.update(0)
    assert figures["grpo/clipped"] > 0 and figures["grpo/kl"] > 0


def test_where_no_group_differs_nothing_moves(tmp_path: Path) -> None:
    settings = Settings(windows=2, group=2, rounds=2, max_new_tokens=6, weights={"timing": 0.0})
    grpo = trainer(tmp_path, settings=settings)
    before = weights(grpo)
    figures = grpo.update(0)
    assert figures["grpo/groups_teaching"] == 0 and figures["grpo/dropped"] == 1
    # Drawn anew, twice as many in all, for none taught.
    assert figures["grpo/rollouts"] == 8
    assert all(torch.equal(before[n], p) for n, p in weights(grpo).items())


def test_gold_streams_have_the_gradient_of_sft_beside_that_of_the_rollouts(tmp_path: Path) -> None:
    def gradients(grpo: Grpo, rows: list[Any], shown: list[Any]) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}

        def kept(*_: Any) -> None:
            named = grpo.model.named_parameters()
            found.update({n: p.grad.clone() for n, p in named if p.grad is not None})

        grpo._passes.optimizer.optimizer.register_step_pre_hook(kept)
        grpo._passes.loss.train()
        grpo._passes.optimized(rows, shown, 0)
        return found

    def fresh() -> Grpo:
        return trainer(tmp_path, shown=2, max_grad_norm=0.0)

    groups, _ = fresh().groups(0)
    (rows,) = fresh().batches(groups)
    own = fresh()
    shown = own._supervised.next()
    both, alone = gradients(own, rows, shown), gradients(fresh(), rows, [])
    model, _ = lively()
    loss = WeightedLoss(model)
    whole = sum(float(batch["denominator"]) for batch in shown)
    for batch in shown:
        (loss(**batch)["loss"] / whole).backward()
    sft = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert any(float(gradient.norm()) > 1e-3 for gradient in sft.values())
    assert any(float(gradient.norm()) > 1e-3 for gradient in alone.values())
    for name, gradient in both.items():
        wanted = alone[name] + sft[name]
        torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5, msg=name)


def test_where_nothing_teaches_gold_streams_still_do(tmp_path: Path) -> None:
    settings = Settings(windows=2, group=2, rounds=1, max_new_tokens=6, weights={"timing": 0.0})
    grpo = trainer(tmp_path, settings=settings, shown=1)
    before = weights(grpo)
    figures = grpo.update(0)
    assert figures["grpo/groups_teaching"] == 0 and figures["grpo/supervised_loss"] > 0.1
    assert any(not torch.equal(before[n], p) for n, p in weights(grpo).items())
    with pytest.raises(ValueError, match="3 rows of supervision on 2 ranks"):
        Supervised([], 3, ranks=2)


def test_gold_streams_that_are_broken_are_counted_over_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(clips: Any, index: int) -> Any:
        if index % 2:
            raise TimelineError("frames are gone", "cut")
        return render(clips, index)

    render = tiny_training.Clips.render
    monkeypatch.setattr(tiny_training.Clips, "length", lambda clips, i: len(render(clips, i)[0]))
    monkeypatch.setattr(tiny_training.Clips, "render", broken)
    grpo = trainer(tmp_path, shown=8)
    grpo.update(0)
    met = set(grpo._supervised.left_out)
    assert met and grpo.left_out_of_all()["gold stream: frames are gone"] == len(met)
    grpo.step = 1
    grpo.save({})
    again = trainer(tmp_path, shown=8)
    again.resume()
    assert again.left_out_of_all()["gold stream: frames are gone"] == len(met)
    for _ in range(4):  # comes by the same ones, and by others
        again._supervised.next()
    all_met = set(again._supervised.left_out)
    assert met < all_met
    assert again.left_out_of_all()["gold stream: frames are gone"] == len(all_met)


@pytest.mark.parametrize("level", ["trajectory", "turn"])
def test_a_run_that_is_broken_off_goes_on_to_the_same(tmp_path: Path, level) -> None:
    settings = Settings(
        windows=3, group=3, rounds=1, max_new_tokens=6, advantages=Advantages(level)
    )
    logs: dict[str, list[dict[str, Any]]] = {"whole": [], "torn": []}
    kept: dict[str, list[Best]] = {"whole": [], "torn": []}
    figures: dict[str, dict[str, float]] = {}

    def run(name: str, folder: Path, steps: int | None = None) -> Grpo:
        grpo = trainer(folder, settings=settings, shown=2, eval_every=1)

        class Stop(Exception):
            pass

        def log(line: Mapping[str, Any]) -> None:
            logs[name].append(dict(line))
            if steps is not None and "grpo/reward" in line and line["step"] > steps:
                raise Stop  # killed within the step that follows the last saved one

        with suppress(Stop):
            figures[name] = fit_policy(
                grpo,
                grpo.train,
                log=log,
                validate=lambda step: {"validation/onset_f1": [0.1, 0.3, 0.2, 0.1][step]},
                best=kept[name][-1] if kept[name] else None,
                keep_best=kept[name].append,
            )
        return grpo

    whole = run("whole", tmp_path / "whole")
    run("torn", tmp_path / "torn", steps=1)
    torn = run("torn", tmp_path / "torn")
    assert whole.step == torn.step == 3
    assert all(torch.equal(a, weights(torn)[n]) for n, a in weights(whole).items())
    told = [
        {
            json.dumps({k: v for k, v in line.items() if k not in TIMES}, sort_keys=True)
            for line in of
        }
        for of in logs.values()
    ]
    assert told[0] == told[1]
    # The best step by what was validated, and no other after it.
    assert kept["whole"] == kept["torn"] == [(0.1, 0), (0.3, 1)]
    for of in figures.values():
        assert (of["train/best_step"], of["train/best_score"]) == (1, 0.3)


def test_a_collapse_ends_training_for_good(tmp_path: Path, monkeypatch) -> None:
    settings = Settings(windows=2, group=2, rounds=1, max_new_tokens=6, patience=2)
    figures = {"grpo/gold_rate": 0.2, "grpo/response_rate": 0.95, "grpo/turns": 4.0}
    said: list[str] = []

    def fitted() -> dict[str, float]:
        grpo = trainer(tmp_path, settings=settings, steps=6)
        monkeypatch.setattr(grpo, "update", lambda step: figures)
        return fit_policy(grpo, grpo.train, log=lambda line: None, say=said.append)

    told = fitted()
    assert (told["train/steps"], told["train/collapsed"]) == (2, 1)
    assert "stopped at step 2: the policy speaks all the time" in said[0]
    again = fitted()  # a run that goes on stays stopped
    assert (again["train/steps"], again["train/collapsed"]) == (2, 1) and said[1] == said[0]
    assert again["train/rollout_turns"] == told["train/rollout_turns"] == 8


def test_the_policy_that_falls_silent_or_never_stops_ends_the_run(tmp_path: Path) -> None:
    settings = Settings(windows=2, group=2, rounds=1, max_new_tokens=6, patience=2)
    grpo = trainer(tmp_path, settings=settings)
    usual = {"grpo/gold_rate": 0.2, "grpo/response_rate": 0.2}
    assert grpo.collapsed(usual) == ""
    for rate, word in ((0.01, "silent"), (0.95, "all the time")):
        assert grpo.collapsed({**usual, "grpo/response_rate": rate}) == ""
        assert word in grpo.collapsed({**usual, "grpo/response_rate": rate})
        assert grpo.collapsed(usual) == ""
    assert grpo.collapsed({"grpo/gold_rate": 0.0}) == ""


# Several ranks

TIMES = {"grpo/rollout_seconds", "grpo/train_seconds"}


def outcome(folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """What was logged, without times, and the weights."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    lines = [{k: v for k, v in line.items() if k not in TIMES} for line in log]
    told = [line for line in lines if "grpo/reward" in line]
    return told, load_file(folder / "checkpoint" / "model.safetensors")


def assert_close(found: Path, wanted: Path) -> None:
    (lines, weights), (other_lines, other_weights) = outcome(found), outcome(wanted)
    assert len(lines) == len(other_lines) > 0
    for line, other in zip(lines, other_lines, strict=True):
        # How sequences are packed into rows, and so filled up, differs with the ranks.
        apart = {"grpo/tokens"}
        assert {k: v for k, v in line.items() if k not in apart} == pytest.approx(
            {k: v for k, v in other.items() if k not in apart}, rel=2e-3, abs=1e-5
        )
    assert set(weights) == set(other_weights)
    for name, tensor in other_weights.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=5e-5, msg=name)


RANKED: dict[str, Any] = {"steps": 2, "learning_rate": 1e-4, "eval_every": 1, "kl": 0.01}
RANKED |= {"shown": 2, "settings": {"updates": 2}}  # of three windows one rank has two, in both


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one rank."""
    folder = tmp_path_factory.mktemp("alone")
    launch(folder, script=tiny_grpo.__file__, **RANKED)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "zero2", "zero3"])
def test_two_ranks_do_as_one_and_go_on(name: str, alone: Path, tmp_path: Path) -> None:
    if name != "ddp":
        pytest.importorskip("deepspeed")
    engine = yaml.safe_load((ROOT / f"configs/engine/{name}.yaml").read_text())
    options: dict[str, Any] = {"script": tiny_grpo.__file__, "engine": engine, **RANKED}
    launch(tmp_path / "whole", ranks=2, **options)
    assert_close(tmp_path / "whole", alone)
    launch(tmp_path / "resumed", ranks=2, stop=1, **options)
    assert resumed_step(tmp_path / "resumed" / "steps") == 1
    launch(tmp_path / "resumed", ranks=2, **options)
    assert_close(tmp_path / "resumed", alone)
