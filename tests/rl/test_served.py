"""Rollouts drawn over HTTP: what is sent, what is made of the answers, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from joyvl_train.actions import Response, Silence
from joyvl_train.config import UserError
from joyvl_train.processor import ImageTensors
from joyvl_train.rendering import Renderer
from joyvl_train.stream import Stream
from rl.served import ServedSampler
from tests.rl.endpoint import Endpoint, drawn
from tests.rl.tiny_grpo import lively
from tests.tiny_training import picture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", name="renderer")
def _renderer() -> Renderer:
    return lively()[1]


def sampler(url: str, renderer: Renderer, folder: Path = Path("w"), **more: Any) -> ServedSampler:
    return ServedSampler(url, "m", renderer, lambda model: folder, tries=1, **more)


def watching(draws: ServedSampler) -> Stream:
    stream = Stream()
    stream.observe(0, [draws.prepare(picture(0))], ["what is it?"])
    return stream


def ids_of(renderer: Renderer, stream: Stream) -> list[int]:
    return list(renderer.render(stream.memory_text, stream.turns).ids)


def said(renderer: Renderer, action: Any) -> list[int]:
    ids = list(renderer.assistant(action).ids)
    return ids[: 1 + next(i for i, token in enumerate(ids) if token in renderer.stop_ids)]


def test_draws_that_are_alike_are_one_branch_and_the_others_go_on_in_copies(
    renderer: Renderer,
) -> None:
    quiet, loud = said(renderer, Silence()), said(renderer, Response("a dog"))
    cut = loud[:2]
    with Endpoint(lambda path, body: drawn(prompt, loud, quiet, quiet, cut)) as endpoint:
        draws = sampler(endpoint.url, renderer, temperature=0.7, max_new_tokens=9)
        stream = watching(draws)
        prompt = ids_of(renderer, stream)
        handle = draws.open(stream)
        randoms = [draws.random(n) for n in range(4)]
        (branches,) = draws.branch([handle], [randoms])
        again = draws.branch([handle], [randoms[:1] * 4])
        draws.end()
    most, second, third = branches
    assert (most.handle, most.members) == (handle, (1, 2))
    assert isinstance(most.reply.action, Silence) and draws.stream(handle) is stream
    assert {second.members, third.members} == {(0,), (3,)}
    assert second.reply.action == Response("a dog") and third.reply.truncated
    assert second.reply.logprobs == (-0.5,) * len(loud) and second.reply.tokens == tuple(loud)
    copy = draws.stream(second.handle)
    assert copy is not stream and copy.turns == stream.turns
    assert again[0][0].members == (1, 2)
    (_, first), _ = endpoint.seen
    assert (first["n"], first["temperature"], first["max_tokens"]) == (4, 0.7, 9)
    # All of the distribution, whatever the checkpoint's generation config says.
    assert (first["top_p"], first["top_k"], first["repetition_penalty"]) == (1, -1, 1)


def test_pictures_are_sent_once_and_again_where_they_are_lost(renderer: Renderer) -> None:
    lost: list[bool] = [False]

    def script(path: str, body: Any) -> Any:
        if lost[0] and pictures(body) == [False]:
            return 400, "no such picture"
        return drawn(prompt, said(renderer, Silence()))

    def pictures(body: Any) -> list[bool]:
        """Of each picture, whether it was sent whole."""
        parts = [
            p for m in body["messages"] if isinstance(m["content"], list) for p in m["content"]
        ]
        images = [part for part in parts if part["type"] == "image_url"]
        assert all(part["uuid"] for part in images)
        return [part["image_url"] is not None for part in images]

    with Endpoint(script) as endpoint:
        draws = sampler(endpoint.url, renderer)
        stream = watching(draws)
        prompt = ids_of(renderer, stream)
        handle = draws.open(stream)
        for lost[0] in (False, False, True):
            draws.branch([handle], [[draws.random(0)]])
        draws.end()
    assert [pictures(body) for _, body in endpoint.seen] == [[True], [False], [False], [True]]
    assert "data:image/png;base64," in str(endpoint.seen[0][1])


def test_weights_are_taken_up_by_the_one_that_leads(renderer: Renderer, tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "/collective_rpc": {"results": [None]},
        "/reset_mm_cache": (200, ""),
        "/reset_encoder_cache": (200, ""),
        "/reset_prefix_cache": {"success": True},
    }
    with Endpoint(lambda path, body: told[path]) as endpoint:
        for leads in (True, False):
            draws = sampler(endpoint.url, renderer, tmp_path, leads=leads)
            draws.take("the model")
            draws.end()
        assert [path for path, _ in endpoint.seen] == list(told)
        asked = endpoint.seen[0][1]
        assert asked == {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}
        told["/reset_prefix_cache"] = {"success": False}
        draws = sampler(endpoint.url, renderer, tmp_path)
        with pytest.raises(UserError, match="did not let go of its prefix cache"):
            draws.take("the model")
        draws.end()
    with Endpoint(lambda path, body: (404, "not found")) as endpoint:
        draws = sampler(endpoint.url, renderer, tmp_path)
        with pytest.raises(UserError, match="start vLLM with VLLM_SERVER_DEV_MODE=1"):
            draws.take("the model")
        draws.end()


def unlikely(told: dict[str, Any]) -> dict[str, Any]:
    told["choices"][0]["logprobs"]["content"][0]["logprob"] = float("nan")
    return told


WRONG = {
    "another prompt": (lambda prompt, quiet: drawn([*prompt[:-1], 0], quiet), "from token"),
    "a longer prompt": (lambda prompt, quiet: drawn([*prompt, 0], quiet), "from token"),
    "too many": (lambda prompt, quiet: drawn(prompt, quiet, quiet), "other than 1 choices"),
    "none": (lambda prompt, quiet: drawn(prompt), "other than 1 choices"),
    "an empty one": (lambda prompt, quiet: drawn(prompt, []), "other than 1 choices"),
    "no tokens": (lambda prompt, quiet: {"choices": []}, "tells no tokens"),
    "a text for a token": (lambda prompt, quiet: drawn(prompt, ["x"]), "tells no tokens"),
    "no number": (lambda prompt, quiet: unlikely(drawn(prompt, quiet)), "are no numbers"),
    "no object": (lambda prompt, quiet: [1], "no JSON object"),
    "no JSON": (lambda prompt, quiet: (200, "<html>"), "no JSON object"),
    "refused": (lambda prompt, quiet: (400, "no model of that name"), "no model of that name"),
    "broken": (lambda prompt, quiet: (500, "out of memory"), "no answer in 1 tries.*of memory"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_cant_be_trained_on_ends_the_run(what: str, renderer: Renderer) -> None:
    answer, message = WRONG[what]
    quiet = said(renderer, Silence())
    with Endpoint(lambda path, body: answer(prompt, quiet)) as endpoint:
        draws = sampler(endpoint.url, renderer)
        stream = watching(draws)
        prompt = ids_of(renderer, stream)
        handles = [draws.open(stream), draws.open(stream.fork())]
        with pytest.raises(UserError, match=message) as raised:
            draws.branch(handles, [[draws.random(0)], [draws.random(1)]])
        assert str(raised.value).startswith(f"grpo.sampler: {endpoint.url}")
        draws.end()


def test_pictures_that_are_cut_up_keep_their_tiles(renderer: Renderer) -> None:
    class CutUp:
        class processor:
            @staticmethod
            def images(pictures: Any) -> ImageTensors:
                found = ImageTensors(pixel_values=torch.zeros(1))
                found.tiles = ((2, 3),)
                return found

    draws = ServedSampler("http://127.0.0.1:9/v1", "m", CutUp(), lambda model: Path("w"))  # type: ignore[arg-type]
    assert draws.prepare(picture(0)).tiles == ((2, 3),)


def test_nobody_there(renderer: Renderer) -> None:
    draws = sampler("http://127.0.0.1:9/v1", renderer)
    with pytest.raises(UserError, match="no answer in 1 tries, the last: ConnectError"):
        draws.take("the model")
    draws.end()
