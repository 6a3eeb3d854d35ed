"""Checkpoints in and out: what is written is what is read, and what is broken says so in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Qwen2VLImageProcessorPil,
)

from joyvl_train import checkpoint
from joyvl_train.actions import CONTROL_TOKENS, RESPONSE, Response, Silence
from joyvl_train.attention import use_packed
from joyvl_train.checkpoint import (
    CheckpointError,
    TinyShape,
    build_tiny,
    load,
    load_for_inference,
    load_processor,
    save,
    train_tokenizer,
)
from joyvl_train.collate import collate, model_inputs
from joyvl_train.config import UserError
from joyvl_train.processor import _patches
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Turn
from joyvl_train.weights import LossWeights, token_weights

from .conftest import ARCHITECTURES, Speaker, build, picture

TURNS = [
    Turn(0, (picture(1),), ("look",), action=Silence()),
    Turn(1, (picture(2, (64, 64)), picture(3)), action=Response("fire")),
]


def logits(model: Any, renderer: Renderer) -> tuple[list[int], torch.Tensor]:
    sample = renderer.render("memory", TURNS)
    batch = collate([(sample, token_weights(sample, LossWeights()))])
    with torch.no_grad():
        return sample.ids, model(**model_inputs(batch), use_cache=False).logits


@pytest.fixture(scope="module")
def folders(speakers: Any, tmp_path_factory: Any) -> dict[str, Path]:
    """A saved checkpoint of each architecture; not to be changed."""
    place = tmp_path_factory.mktemp("checkpoints")
    for name in ARCHITECTURES:
        save(speakers[name].model, speakers[name].processor, place / name)
    return {name: place / name for name in ARCHITECTURES}


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint that may be broken."""
    return Path(shutil.copytree(folders["qwen3_vl"], tmp_path / "broken"))


def test_what_is_saved_is_what_is_loaded(speaker: Speaker, folders: dict[str, Path]) -> None:
    model, processor = load(folders[speaker.name])
    ids, found = logits(model.eval(), Renderer(processor))
    wanted_ids, wanted = logits(speaker.model, speaker.renderer)
    assert ids == wanted_ids and torch.equal(found, wanted)
    assert processor.model_type == speaker.name
    assert processor.specials == speaker.processor.specials


def test_transformers_loads_the_folder_as_it_is(speaker: Speaker, folders: dict[str, Path]) -> None:
    folder = folders[speaker.name]
    model = AutoModelForImageTextToText.from_pretrained(folder)
    wanted = speaker.model.state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == speaker.processor.tokenizer.chat_template
    text = f"{RESPONSE} a fire"
    assert tokenizer.encode(text) == speaker.processor.tokenizer.encode(text)
    config = json.loads((folder / "config.json").read_text())
    assert "joyvl" not in json.dumps(config)
    if speaker.name == "idefics3":
        whole = AutoProcessor.from_pretrained(folder, backend="pil")
        assert type(whole).__name__ == "Idefics3Processor"
        return
    images = AutoImageProcessor.from_pretrained(folder, backend="pil")
    made = images(images=[picture(1)], return_tensors="pt")
    mine = speaker.processor.images([picture(1)])
    assert torch.allclose(made["pixel_values"], mine["pixel_values"], atol=1e-6)
    kind = {"qwen3_vl": "Qwen3VL", "qwen2_5_vl": "Qwen2_5_VL"}[speaker.name]
    side = json.loads((folder / "preprocessor_config.json").read_text())
    assert side["processor_class"] == f"{kind}Processor"
    video = json.loads((folder / "video_preprocessor_config.json").read_text())
    assert video["patch_size"] == side["patch_size"]


def test_a_model_in_training_saves_like_any(tmp_path: Path) -> None:
    speaker = build("qwen3_vl")
    _, wanted = logits(speaker.model, speaker.renderer)
    assert use_packed(speaker.model)
    save(speaker.model, speaker.processor, tmp_path / "c")
    assert "joyvl" not in (tmp_path / "c" / "config.json").read_text()
    model, processor = load(tmp_path / "c", dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    model, processor = load(tmp_path / "c")
    _, found = logits(model.eval(), Renderer(processor))
    assert torch.equal(found, wanted)


def test_side_files_travel_along(folders: dict[str, Path], tmp_path: Path) -> None:
    speaker = build("qwen3_vl")
    source = Path(shutil.copytree(folders["qwen3_vl"], tmp_path / "source"))
    (source / "LICENSE").write_text("theirs")
    (source / "video_preprocessor_config.json").write_text('{"theirs": 1}')
    save(speaker.model, speaker.processor, tmp_path / "new", source=source)
    assert (tmp_path / "new" / "LICENSE").read_text() == "theirs"
    assert "theirs" in (tmp_path / "new" / "video_preprocessor_config.json").read_text()


# -- control tokens


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_added_tokens_start_at_the_mean_of_their_pieces(
    in_pieces: Any, name: str, tmp_path: Path
) -> None:
    speaker = in_pieces[name]
    save(speaker.model, speaker.processor, tmp_path / "c")
    before = speaker.model.get_input_embeddings().weight
    model, processor = load(tmp_path / "c", control_tokens="add")
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    tied = speaker.model.get_output_embeddings().weight is before
    assert (head is table) is tied
    old_head = speaker.model.get_output_embeddings().weight
    for token in CONTROL_TOKENS:
        pieces = speaker.processor.tokenizer.encode(token, add_special_tokens=False)
        (row,) = processor.tokenizer.encode(token, add_special_tokens=False)
        assert len(pieces) > 1 and row not in pieces
        assert torch.allclose(table[row], before[pieces].mean(0))
        assert torch.allclose(head[row], old_head[pieces].mean(0))
    assert torch.equal(table[: len(before)][: min(pieces)], before[: min(pieces)])
    assert model.config.get_text_config().vocab_size == len(table) > len(before)
    # And once more through the disk: added tokens and tied heads stay.
    save(model, processor, tmp_path / "added")
    again, processor = load(tmp_path / "added")
    assert torch.equal(again.get_input_embeddings().weight, table)
    same = again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert same is tied
    segment = Renderer(processor).assistant(Silence())
    assert sum(s.stop - s.start for s in segment.spans) == (3 if name == "idefics3" else 2)


def test_keep_takes_the_tokenizer_as_it_is(in_pieces: Any, tmp_path: Path) -> None:
    speaker = in_pieces["qwen3_vl"]
    save(speaker.model, speaker.processor, tmp_path / "c")
    model, processor = load(tmp_path / "c")
    assert len(processor.tokenizer) == len(speaker.processor.tokenizer)
    assert len(model.get_input_embeddings().weight) == len(processor.tokenizer)
    added = load_processor(tmp_path / "c", control_tokens="add")
    assert len(added.tokenizer) == len(processor.tokenizer) + len(CONTROL_TOKENS)
    assert set(CONTROL_TOKENS) <= set(added.specials)


# -- what is broken


def drop(*names: str) -> Any:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def write(name: str, text: str) -> Any:
    return lambda folder: (folder / name).write_text(text)


def edit(name: str, **values: Any) -> Any:
    def change(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**data, **values}))

    return change


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def lose_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    state.pop("model.language_model.layers.1.mlp.up_proj.weight")
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra", "gnu"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "no model config"),
        (drop("config.json"), "no model config"),
        (write("config.json", "{"), "no model config"),
        (write("config.json", '{"model_type": "qwen2"}'), "holds a qwen2 model"),
        (write("config.json", '{"model_type": "unheard_of"}'), "no model config"),
        (drop("model.safetensors"), "no model weights"),
        (write("model.safetensors", "not weights"), "no model weights"),
        (cut_weights, "no model weights"),
        (lose_a_tensor, "lack 1 tensors"),
        (drop("tokenizer.json"), "no tokenizer"),
        (drop("tokenizer.json", "tokenizer_config.json"), "no tokenizer"),
        (edit("config.json", image_token_id=99999), "different checkpoints"),
        (write("tokenizer.json", "{}"), "no tokenizer"),
        (drop("chat_template.jinja"), "no chat template"),
        (write("chat_template.json", "["), "chat_template.json can't be read"),
        (drop("preprocessor_config.json"), "no image processor"),
        (write("preprocessor_config.json", "["), "no image processor"),
        (more_tokens, "different checkpoints"),
    ],
)
def test_a_broken_folder_is_one_clear_line(copied: Path, change: Any, message: str) -> None:
    change(copied)
    with pytest.raises(CheckpointError, match=message) as error:
        load(copied)
    assert "\n" not in str(error.value) and str(copied) in str(error.value)
    assert isinstance(error.value, UserError)


def test_a_slow_tokenizer_is_refused(copied: Path, monkeypatch: Any) -> None:
    class Slow:
        is_fast = False

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: Slow())
    with pytest.raises(CheckpointError, match="no fast one"):
        load_processor(copied)


def test_weights_of_another_shape_are_refused(copied: Path) -> None:
    data = json.loads((copied / "config.json").read_text())
    data["text_config"]["intermediate_size"] = 65
    (copied / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="no model weights") as error:
        load(copied)
    assert "\n" not in str(error.value)


def test_the_processors_own_template_comes_first(copied: Path) -> None:
    """Older checkpoints keep it in chat_template.json; servers take that one."""
    template = json.dumps({"chat_template": "{{ 'theirs' }}"})
    (copied / "chat_template.json").write_text(template)
    assert load_processor(copied).tokenizer.chat_template == "{{ 'theirs' }}"


# -- saving in one piece


class _KilledError(Exception):
    """Stands for the end of the process: nothing after it runs."""


@pytest.mark.parametrize("place", ["model", "processor", "first rename", "second rename"])
def test_killed_while_saving_leaves_the_old_or_the_new(
    place: str, tmp_path: Path, monkeypatch: Any
) -> None:
    first, second = build("qwen3_vl", seed=1), build("qwen3_vl", seed=2)
    folder = tmp_path / "checkpoint"
    save(first.model, first.processor, folder)
    renames = 0

    def rename(self: Path, target: Path, real: Any = Path.rename) -> Path:
        nonlocal renames
        renames += 1
        if renames == {"first rename": 1, "second rename": 2}.get(place):
            raise _KilledError
        result: Path = real(self, target)
        return result

    def save_pretrained(staged: Path, real: Any = second.model.save_pretrained) -> None:
        real(staged)
        if place == "model":
            (staged / "model.safetensors").write_bytes(b"half")
            raise _KilledError

    def save_processor(_: Path) -> None:
        raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(second.model, "save_pretrained", save_pretrained)
        if place == "processor":
            patch.setattr(second.processor, "save", save_processor)
        with pytest.raises(_KilledError):
            save(second.model, second.processor, folder)
    model, _ = load(folder)
    wanted = first.model.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, wanted)
    save(second.model, second.processor, folder)
    model, _ = load(folder)
    wanted = second.model.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, wanted)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_killed_after_the_new_one_stands_keeps_it(tmp_path: Path, monkeypatch: Any) -> None:
    speaker = build("qwen3_vl")
    save(speaker.model, speaker.processor, tmp_path / "c")
    shutil.copytree(tmp_path / "c", tmp_path / "c.replaced")
    (tmp_path / "c.replaced" / "config.json").unlink()
    load(tmp_path / "c")
    monkeypatch.chdir(tmp_path / "c")
    load(".")
    # Whoever loads deletes nothing; whoever saves does.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.replaced"]
    save(speaker.model, speaker.processor, tmp_path / "c")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    speaker = build("qwen3_vl")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="can't be written") as error:
        save(speaker.model, speaker.processor, tmp_path / "file" / "checkpoint")
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line_and_leaves_the_old(tmp_path: Path, monkeypatch: Any) -> None:
    speaker = build("qwen3_vl")
    save(speaker.model, speaker.processor, tmp_path / "c")

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(speaker.model, "save_pretrained", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(speaker.model, speaker.processor, tmp_path / "c")
    assert load(tmp_path / "c")


# -- patches


@pytest.mark.parametrize("mean", [0.5, None], ids=["plain", "clip"])
def test_patches_are_the_image_processors(mean: float | None) -> None:
    values = {"image_mean": [mean] * 3, "image_std": [mean] * 3} if mean else {}
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 1024, "longest_edge": 96 * 96}, patch_size=16, **values
    )
    for size in ((32, 32), (64, 32), (96, 96), (32, 96)):
        frames = [picture(seed, size) for seed in range(3)]
        fast = _patches(processor, frames)
        slow = processor(images=frames, return_tensors="pt")
        assert fast is not None
        assert torch.equal(fast["image_grid_thw"], slow["image_grid_thw"])
        assert fast["pixel_values"].dtype == torch.float32
        assert (fast["pixel_values"] - slow["pixel_values"]).abs().max() <= 1e-6


@pytest.mark.parametrize(
    "frames",
    [
        [picture(1), picture(2, (32, 32))],  # two sizes
        [picture(1, (50, 40))],  # to be resized: no multiple
        [picture(1, (16, 32))],  # below the least
        [picture(1, (320, 320))],  # above the most
        [picture(1).convert("L")],
        [picture(1), picture(2).convert("RGBA")],
    ],
)
def test_other_frames_go_the_long_way(speakers: Any, frames: list[Any]) -> None:
    processor = speakers["qwen2_5_vl"].processor
    assert _patches(processor.image_processor, frames) is None
    made = processor.images(frames)
    wanted = processor.image_processor(images=frames, return_tensors="pt")
    assert torch.equal(made["pixel_values"], wanted["pixel_values"])
    shapes = processor.image_shapes(made, len(frames))
    assert sum(h * w for _, (h, w) in shapes) * 4 == len(made["pixel_values"])


def test_pixels_of_a_frame_are_bounded_and_the_bound_is_saved(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a b c"] * 5, 300)
    shape = TinyShape(vocabulary=len(tokenizer), layers=1, vision_layers=1, deepstack=())
    model, processor = build_tiny(tokenizer, shape, 0)
    frame = [Image.new("RGB", (128, 128))]
    assert processor.images(frame)["image_grid_thw"].tolist() == [[1, 8, 8]]
    processor.limit_pixels(most=64 * 64)
    assert processor.images(frame)["image_grid_thw"].tolist() == [[1, 4, 4]]
    save(model, processor, tmp_path / "bounded")
    loaded = load_processor(tmp_path / "bounded")
    assert loaded.images(frame)["image_grid_thw"].tolist() == [[1, 4, 4]]


def test_inference_is_in_the_runs_type_on_its_device(
    folders: dict[str, Path], monkeypatch: Any
) -> None:
    folder = folders["qwen3_vl"]
    model, processor = load_for_inference(folder, "bfloat16", max_pixels=2048)
    assert (model.dtype, model.device.type, model.training) == (torch.float32, "cpu", False)
    assert processor.image_processor.size["longest_edge"] == 2048
    # A device that computes nothing stands for a GPU.
    monkeypatch.setattr(checkpoint, "run_device", lambda: torch.device("meta"))
    for name, kind in (("auto", torch.bfloat16), ("float16", torch.float16)):
        model, _ = load_for_inference(folder, name)
        assert (model.dtype, model.device.type) == (kind, "meta")
