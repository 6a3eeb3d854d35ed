"""The loss is one number however its samples are laid out, and its gradients with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModelForImageTextToText, Idefics3Config, TrainerCallback

from joyvl_train import frozen_vision
from joyvl_train.actions import Response
from joyvl_train.collate import PackedRows, Part, Row, RowCollator, collate, model_inputs
from joyvl_train.config import EngineConfig, LoraConfig, TrainConfig, UserError
from joyvl_train.frozen_vision import FrozenVision
from joyvl_train.model_weights import load_weights, save_final, whole_weights
from joyvl_train.parts import part_of
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Turn
from joyvl_train.trainer import RankRows, RowTrainer, WeightedLoss, generating
from joyvl_train.training import arguments, freeze, with_lora
from joyvl_train.weights import LossWeights, token_weights
from tests.tiny_training import parts, tiny

SAMPLES = tuple([("streams", n) for n in range(5)] + [("questions", n) for n in range(3)])
LAYOUTS = {
    "one row of eight": ([8], 1, 1),
    "eight rows accumulated": ([1] * 8, 1, 8),
    "uneven rows accumulated": ([3, 1, 4], 1, 3),
    "two batches of rows": ([2, 2, 2, 2], 2, 2),
}


pytestmark = pytest.mark.usefixtures("one_thread")


class Fixed(IterableDataset[Row]):
    """Rows as given: `sizes` samples each, in order."""

    def __init__(self, sizes: Sequence[int]) -> None:
        samples = iter(SAMPLES)
        self._rows = [Row(tuple(islice(samples, size)), {}) for size in sizes]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)


class Losses(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.seen += [logs["loss"]] if "loss" in logs else []


def step(
    folder: Path,
    sources: list[Part],
    model: Any,
    sizes: Sequence[int] = (8,),
    batch: int = 1,
    accumulation: int = 1,
    checkpointing: bool = False,
    vision: FrozenVision | None = None,
) -> tuple[float, dict[str, torch.Tensor]]:
    """(loss, gradients by name) of one step, by way of the trainer: SGD at rate 1, no clipping."""
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train = TrainConfig(
        steps=1,
        rows_per_step=batch,
        accumulation=accumulation,
        max_grad_norm=0.0,
        precision="fp32",
        log_every=1,
        save_every=0,
    )
    seen = Losses()
    trainer = RowTrainer(
        WeightedLoss(model, vision=vision),
        arguments(train, EngineConfig(), folder, seed=0, workers=0, checkpointing=checkpointing),
        rows=Fixed(sizes),  # type: ignore[arg-type]
        collator=RowCollator(sources),
        optimizer=lambda module: torch.optim.SGD(
            [p for p in module.parameters() if p.requires_grad], lr=1.0
        ),
        schedule=lambda number: 1.0,
        callbacks=[seen],
    )
    trainer.train()
    [loss] = seen.seen
    return loss, {n: before[n] - p.detach() for n, p in model.named_parameters()}


def alone(
    sources: list[Part], model: Any, weights: LossWeights
) -> tuple[float, dict[str, torch.Tensor]]:
    """The same by the book: each sample alone, all logits, transformers' own attention."""
    total = denominator = 0.0
    for name, index in SAMPLES:
        source = next(part.source for part in sources if part.name == name)
        rendered, targets = source.render(index)
        inputs = model_inputs(collate([(rendered, targets)]))
        inputs["position_ids"] = inputs["position_ids"][1:]
        logits = model(**inputs).logits[0, targets.positions - 1]
        wanted = torch.tensor(rendered.ids)[targets.positions]
        losses = cross_entropy(logits, wanted, reduction="none")
        total = total + (losses * torch.from_numpy(targets.weights)).sum()
        tokens = weights.normalizer == "tokens" or rendered.turn_based
        denominator += len(targets.weights) if tokens else float(targets.weights.sum())
    loss = total / denominator
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients


def assert_same(ours: tuple[Any, Any], theirs: tuple[Any, Any]) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert len(theirs[1]) > 10
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-4, atol=3e-6, msg=name)


@pytest.mark.parametrize("normalizer", ["tokens", "weights"])
def test_loss_and_gradients_whatever_the_layout(tmp_path: Path, normalizer: Any) -> None:
    weights = LossWeights(normalizer=normalizer)
    model, processor = tiny()
    wanted = alone(parts(processor, weights), model, weights)
    for sizes, batch, accumulation in LAYOUTS.values():
        model, processor = tiny()
        sources = parts(processor, weights)
        found = step(tmp_path, sources, model, sizes, batch, accumulation)
        assert_same(found, wanted)


def test_normalizers_differ(tmp_path: Path) -> None:
    losses = []
    for normalizer in ("tokens", "weights"):
        model, processor = tiny()
        sources = parts(processor, LossWeights(normalizer=normalizer))
        losses.append(step(tmp_path, sources, model)[0])
    assert abs(losses[0] - losses[1]) > 0.01


@pytest.mark.parametrize("rank", [0, 4])
def test_gradient_checkpointing_changes_nothing(tmp_path: Path, rank: int) -> None:
    found = []
    for checkpointing in (False, True):
        model, processor = tiny()
        model = with_lora(model, **vars(LoraConfig(rank=rank)))
        if rank:  # B starts at zero, and with it A's gradient
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
        sources = parts(processor)
        found.append(step(tmp_path, sources, model, checkpointing=checkpointing))
    assert_same(found[0], found[1])
    moved = {n for n, g in found[0][1].items() if g.abs().max() > 0}
    assert moved
    assert all("lora_" in name for name in moved) == bool(rank)


def test_parts_are_frozen(tmp_path: Path) -> None:
    model, processor = tiny()
    freeze(model, ["vision"])
    _, gradients = step(tmp_path, parts(processor), model)
    for name, gradient in gradients.items():
        is_tower = ".visual." in name and "merger" not in name
        assert (gradient.abs().max() == 0) == is_tower, name
    with pytest.raises(UserError, match="no horn part"):
        freeze(model, ["horn"])


def test_a_row_without_pictures_reaches_the_tower() -> None:
    """With gradients of 0: ranks whose rows have pictures wait for them."""
    model, processor = tiny()
    renderer = Renderer(processor)
    sample = renderer.render("", [Turn(0, (), ("hello",), action=Response("hi"))])
    batch = collate([(sample, token_weights(sample, LossWeights()))])
    freeze(model, ["projector"])
    WeightedLoss(model)(**batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (part_of(name) == "projector"), name
        if part_of(name) == "vision":
            assert parameter.grad.abs().max() == 0


# -- rows of ranks and of loader processes -------------------------------------------------------


def planned(sources: list[Part], state: Any = None) -> PackedRows:
    return PackedRows(sources, row_tokens=320, seed=1, state=state)


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_one_plan(workers: int) -> None:
    sources = parts(tiny()[1])
    wanted = list(islice(planned(sources), 24))
    got: list[list[Row]] = []
    for rank in range(3):
        rows = RankRows(planned(sources), 2, rank, 3)
        loader = DataLoader(rows, batch_size=2, collate_fn=list, num_workers=workers)
        got.append([row for batch in islice(loader, 4) for row in batch])
    merged = [row for n in range(4) for own in got for row in own[2 * n : 2 * n + 2]]
    assert [row.samples for row in merged] == [row.samples for row in wanted]
    # Any rank's state goes on where all of them stopped.
    for own in got:
        after = next(iter(planned(sources, own[3].state)))
        assert after.samples == wanted[12].samples


# -- frozen vision -------------------------------------------------------------------------------


def frozen() -> tuple[Any, Any]:
    model, processor = tiny()
    freeze(model, ["vision", "projector"])
    return model, processor


def test_reused_features_change_nothing(tmp_path: Path) -> None:
    model, processor = frozen()
    wanted = step(tmp_path, parts(processor), model)
    model, processor = frozen()
    vision = FrozenVision(model, 1 << 20)
    assert_same(step(tmp_path, parts(processor), model, vision=vision), wanted)
    different = vision.encoded
    assert 10 < different <= 20  # the pictures there are
    tower = model.model.visual.forward

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the tower was called again")

    model.model.visual.forward = refuse
    step(tmp_path, parts(processor), model, vision=vision)
    assert vision.encoded == different
    model.model.visual.forward = tower


def test_features_do_not_depend_on_their_neighbours() -> None:
    model, processor = frozen()
    rendered = [parts(processor)[0].source.render(n)[0].images for n in range(4)]
    apart, together = FrozenVision(model, 1 << 20), FrozenVision(model, 1 << 20)
    joined = {k: torch.cat([images[k] for images in rendered]) for k in rendered[0]}
    wanted = together(model, joined, together.keys(joined))
    pooled, deep = [], []
    for images in rendered:
        found = apart(model, images, apart.keys(images))
        pooled += found.pooler_output
        deep += found.deepstack_features[0]
    assert all(map(torch.equal, pooled, wanted.pooler_output))
    assert all(map(torch.equal, deep, wanted.deepstack_features[0]))


def test_kept_features_are_bounded() -> None:
    model, processor = frozen()
    images = parts(processor)[0].source.render(0)[0].images
    vision = FrozenVision(model, 0)
    keys = vision.keys(images)
    for _ in range(2):
        assert len(vision(model, images, keys).pooler_output) == len(keys)
    assert vision.encoded == 2 * len(set(keys))


def test_features_of_a_trained_tower_are_not_reused() -> None:
    model, _ = tiny()
    freeze(model, ["vision"])
    with pytest.raises(UserError, match=r"model.freeze=\[vision,projector\]"):
        FrozenVision(model, 1 << 20)


def test_architectures_without_a_place_for_features() -> None:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 20, "intermediate_size": 16}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Idefics3Config(
        text_config={"model_type": "llama", **text},
        vision_config={**small, "intermediate_size": 16, "image_size": 32, "patch_size": 16},
        image_token_id=3,
        pad_token_id=0,
    )
    model = AutoModelForImageTextToText.from_config(config)
    assert not frozen_vision.can_reuse(model)
    with pytest.raises(UserError, match="idefics3"):
        FrozenVision(model, 1 << 20)


# -- weights in and out --------------------------------------------------------------------------


def test_merged_weights_speak_as_the_adapter_does(tmp_path: Path) -> None:
    base, processor = tiny()
    model = with_lora(base, **vars(LoraConfig(rank=4, alpha=8.0)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1), std=0.3)
    rendered = parts(processor)[0].source.render(0)
    inputs = model_inputs(collate([rendered]))
    model.eval()
    wanted = model(**inputs).logits
    with model.disable_adapter():
        assert (model(**inputs).logits - wanted).abs().max() > 0.1
    save_final(model, processor, tmp_path / "checkpoint", None)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint")
    merged.eval()
    torch.testing.assert_close(merged(**inputs).logits, wanted, rtol=1e-4, atol=1e-5)
    assert set(merged.state_dict()) == set(tiny()[0].state_dict())


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    model, _ = tiny()
    state = whole_weights(model)
    state.pop("model.language_model.norm.weight")
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"does not fit.*norm\.weight"):
        load_weights(model, tmp_path)


def test_generating_is_for_a_while() -> None:
    model, _ = tiny()
    loss = WeightedLoss(model)
    loss.train()
    packed = model.config.text_config._attn_implementation
    with generating(model) as plain:
        assert not plain.training
        assert plain.config.text_config._attn_implementation == "sdpa"
    assert model.training
    assert model.config.text_config._attn_implementation == packed != "sdpa"
