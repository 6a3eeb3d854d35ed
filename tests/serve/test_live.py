"""Live sessions: what comes from beside the stream, and what becomes of a model that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.background import Task
from joyvl_train.codec import CodecSettings
from joyvl_train.memory import Limits, Summary
from joyvl_train.stream import StreamSettings, Turn
from serve.bridge import Backend, BackgroundError, Bridge, Solved
from serve.feed import Feed
from serve.in_process import EngineError
from serve.live import Live
from serve.live_settings import LiveSettings
from serve.memory import Said
from serve.source import Second
from tests.serve.lived import Scripted, second, settled


def kinds(live: Live, *wanted: str) -> list[dict[str, Any]]:
    return [event for event in live.log.after(0) if event["kind"] in wanted]


def run(work: Any) -> Any:
    return asyncio.run(work)


def test_each_second_is_a_step_with_its_latency() -> None:
    async def main() -> None:
        live = Live("a", Scripted({2: Response("Fire.")}))
        live.ask("Watch for fire.")
        for number in range(4):
            await live.step(second(number))
        assert live.model.prompts[0] == ("Watch for fire.",)
        said = kinds(live, "step")
        assert [e["action"] for e in said] == ["silence", "silence", "response", "silence"]
        assert said[2]["text"] == "Fire." and all(e["latency"] >= 0 for e in said)
        assert [e["seq"] for e in live.log.after(0)] == list(range(1, 6))
        await live.close()
        assert not live.model.streams and live.log.closed

    run(main())


def test_what_a_source_says_for_its_user_is_told_apart() -> None:
    async def main() -> None:
        live = Live("a", Scripted())
        live.ask("Watch for fire.")
        await live.step(replace(second(0), queries=("Describe it.",)))
        told = [(e["text"], e.get("by")) for e in kinds(live, "query")]
        assert told == [("Watch for fire.", None), ("Describe it.", "source")]
        await live.close()

    run(main())


def test_a_model_that_is_late_leaves_silence_and_its_words_go_to_the_log() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        model = Scripted({1: Response("Too late.")}, waits={1: gate.wait})
        live = Live("a", model, LiveSettings(step_timeout=0.05))
        for number in range(3):
            await live.step(second(number))
        gate.set()
        await settled()
        assert [e["action"] for e in kinds(live, "step")] == ["silence", "silence"]
        assert [e["second"] for e in kinds(live, "engine")] == [1]
        assert [(e["second"], e["text"]) for e in kinds(live, "late")] == [(1, "Too late.")]
        turns = live.session.stream.turns
        assert [turn.second for turn in turns] == [0, 1, 2]
        await live.close()

    run(main())


def test_a_model_that_fails_is_asked_again() -> None:
    async def main() -> None:
        live = Live("a", Scripted({2: Response("Back.")}, fails={1: EngineError("gone")}))
        for number in range(3):
            await live.step(second(number))
        assert [e["error"] for e in kinds(live, "engine")] == ["gone"]
        assert kinds(live, "step")[-1]["text"] == "Back."
        await live.close()

    run(main())


def test_a_step_that_is_broken_off_leaves_no_turn_open() -> None:
    async def main() -> None:
        model = Scripted(waits={0: asyncio.Event().wait})
        live = Live("a", model)
        going = asyncio.create_task(live.step(second(0)))
        await settled()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert live.session.stream.open_turn is None
        await live.step(second(1))
        await live.close()

    run(main())


class Solves(Backend):
    def __init__(self, wait: float = 0.0, fails: str = "", digest: str = "42") -> None:
        self.wait, self.fails, self.digest = wait, fails, digest
        self.tasks: list[Task] = []
        self.ended = 0

    async def solve(self, task: Task) -> Solved:
        self.tasks.append(task)
        try:
            await asyncio.sleep(self.wait)
        finally:
            self.ended += 1
        if self.fails:
            raise BackgroundError(self.fails)
        return Solved(self.digest)


async def delegated(backend: Solves, seconds: int = 4, **settings: Any) -> Live:
    model = Scripted({1: Delegation("One moment.", "What is 6 times 7?")})
    live = Live("a", model, bridge=lambda told: Bridge(backend, told, **settings))
    for number in range(seconds):
        await live.step(second(number))
        await asyncio.sleep(0.02)
    return live


def test_a_delegated_task_comes_back_into_the_stream() -> None:
    async def main() -> None:
        backend = Solves()
        live = await delegated(backend)
        assert [e["state"] for e in kinds(live, "task")] == ["started", "ready"]
        assert live.model.prompts[2] == ("42",) and live.model.prompts[3] == ()
        (task,) = backend.tasks
        assert (task.question, task.second) == ("What is 6 times 7?", 1) and len(task.frames) == 2
        assert not [e for e in live.log.after(0) if "6 times 7" in str(e)]
        await live.close()

    run(main())


def test_a_client_may_give_the_result_itself() -> None:
    async def main() -> None:
        backend = Solves(wait=9)
        live = await delegated(backend, 3)
        assert await live.give(1, " It is\n42. ") and not await live.give(1, "43")
        assert not await live.give(2, "43")
        await live.step(second(3))
        assert live.model.prompts[3] == ("It is 42.",) and backend.ended == 1
        assert [e["state"] for e in kinds(live, "task")] == ["started", "ready"]
        await live.close()

    run(main())


@pytest.mark.parametrize(
    ("backend", "settings", "reason"),
    [
        (Solves(fails="no idea"), {}, "BackgroundError: no idea"),
        (Solves(wait=9), {"timeout": 0.01}, "no result in 0.01 s"),
        (Solves(digest="  "), {}, "an empty digest"),
        (Solves(), {"most": 0}, "0 tasks are running already"),
    ],
)
def test_a_task_that_fails_says_so_to_the_stream(backend, settings, reason: str) -> None:
    async def main() -> None:
        live = await delegated(backend, **settings)
        (failed,) = [e for e in kinds(live, "task") if e["state"] == "error"]
        assert failed["error"] == reason
        assert ("Error: no result.",) in live.model.prompts
        await live.close()

    run(main())


def test_tasks_end_with_the_session_and_what_comes_later_is_nobodys() -> None:
    async def main() -> None:
        backend = Solves(wait=9)
        live = await delegated(backend)
        assert live.state()["pending"] == [1]
        await live.reset()
        assert backend.ended == 1 and live.state()["pending"] == []
        await live.step(second(9))
        await live.close()
        assert [e["state"] for e in kinds(live, "task")] == ["started", "error"]
        assert kinds(live, "task")[-1]["error"] == "cancelled"
        assert ("Error: no result.",) not in live.model.prompts

    run(main())


def test_a_reset_shares_nothing_with_what_was_before() -> None:
    class Counts(Said):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            Counts.made += 1

    async def main() -> None:
        model = Scripted({1: Delegation("One moment.", "What is that?")})
        backends: list[Backend] = []

        def bridge(told: Any) -> Bridge:
            backends.append(Solves(wait=60))
            return Bridge(backends[-1], told)

        live = Live("a", model, bridge=bridge, keeper=Counts)
        for _ in range(2):
            for number in range(3):
                await live.step(second(number))
            await live.reset()
        started = [e["task"] for e in kinds(live, "task") if e["state"] == "started"]
        assert started == [1, 2] and Counts.made == len(backends) == 3
        for number in range(3):
            await live.step(second(number))
        # The answer to an old question is nobody's.
        assert not await live.give(1, "42") and live.state()["pending"] == [3]
        await live.close()

    run(main())


def test_users_see_the_note_of_a_task_and_never_its_question() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        asked = Delegation("One moment.", "SECRET")
        live = Live(
            "a",
            Scripted({1: asked, 9: asked}, waits={9: gate.wait}),
            LiveSettings(StreamSettings(chunk_seconds=6, lead=2), step_timeout=0.05),
            bridge=lambda told: Bridge(Solves(wait=60), told),
        )
        for number in range(11):
            await live.step(second(number))
            await settled()
        assert "SECRET" in live.session.stream.memory_text
        gate.set()
        await settled()
        assert [e["text"] for e in kinds(live, "late")] == ["One moment."]
        assert "SECRET" not in f"{live.state()}{live.log.after(0)}"
        assert "task 1: One moment." in live.state()["memory"]
        await live.close()

    run(main())


def test_what_comes_after_the_end_changes_nothing() -> None:
    async def main() -> None:
        live = Live("a", Scripted(), LiveSettings(modes={"default": 0.0, "aloof": 2.0}))
        await live.step(second(0))
        await live.close()
        last = live.log.last
        assert not live.ask("Hello?") and not live.hear("Hello?")
        live.set_mode("aloof")
        await live.reset()
        assert live.log.last == last and live.model.biases == {1: 0.0} and not live.model.streams

    run(main())


class Fails(Said):
    async def chunk(self, seconds: range, turns: Sequence[Turn]) -> str:
        raise ValueError("no words")


class Slow(Said):
    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def chunk(self, seconds: range, turns: Sequence[Turn]) -> str:
        await self.gate.wait()
        return "Slowly told."


CHUNKS = LiveSettings(StreamSettings(6, 2))


def test_chunks_are_summed_up_beside_the_stream() -> None:
    async def main() -> None:
        live = Live("a", Scripted({1: Response("A dog.")}), CHUNKS)
        for number in range(8):
            await live.step(second(number))
            await settled()
        (told,) = kinds(live, "summary")
        assert (told["start"], told["stop"]) == (0, 4) and "A dog." in told["text"]
        assert live.session.stream.memory.mid == (Summary(0, 4, told["text"]),)
        await live.close()

    run(main())


def test_memory_that_fails_or_is_late_never_holds_up_the_stream() -> None:
    async def main() -> None:
        live = Live("a", Scripted({1: Response("A dog.")}), CHUNKS, keeper=Fails)
        for number in range(8):
            await live.step(second(number))
            await settled()
        assert [e["detail"] for e in kinds(live, "memory") if e["what"] == "failed"] == ["no words"]
        assert "A dog." in live.session.stream.memory.mid[0].text
        await live.close()

        tight = replace(CHUNKS, stream=StreamSettings(6, 2, Limits(summary_chars=64)))
        said = {number: Response(f"The dog has number {number}.") for number in range(4)}
        for keeper in (Fails, None):
            live = Live("a", Scripted(said), tight, keeper=keeper)
            for number in range(8):
                await live.step(second(number))
                await settled()
            told = live.session.stream.memory.mid[0].text
            assert told == "…; 3 s assistant: The dog has number 3."
            await live.close()

        slow = Slow()
        live = Live("a", Scripted(), CHUNKS, keeper=lambda: slow)
        for number in range(20):
            await live.step(second(number))
            await settled()
            if number == 8:
                slow.gate.set()
        texts = [summary.text for summary in live.session.stream.memory.mid]
        assert len(texts) == 3 and "Slowly told." in texts[0]
        assert any(e["what"] == "summary_late" for e in kinds(live, "memory"))
        await live.close()

    run(main())


def test_modes_lean_and_unknown_ones_are_refused() -> None:
    async def main() -> None:
        live = Live("a", Scripted(), LiveSettings(modes={"default": 0.0, "aloof": 2.0}))
        live.set_mode("aloof")
        assert live.model.biases == {1: 2.0}
        with pytest.raises(ValueError, match="there are default, aloof"):
            live.set_mode("loud")
        await live.reset()
        assert live.model.biases[2] == 2.0 and live.state()["mode"] == "aloof"
        await live.close()

    run(main())


class Reads:
    name = "ocr"

    def __init__(self, *texts: str, wait: float = 0.0) -> None:
        self.left, self._wait = list(texts), wait

    async def look(self, second: int, frames: Sequence[Any]) -> str:
        await asyncio.sleep(self._wait)
        text = self.left.pop(0)
        if text == "!":
            raise ValueError("broken lens")
        return text


def test_a_module_adds_a_line_to_the_tick_and_can_do_no_harm() -> None:
    async def main() -> None:
        live = Live("a", Scripted(), modules=lambda: [Reads("EXIT", "", "!", "late")])
        for number in range(3):
            await live.step(second(number))
        assert live.model.prompts == [("ocr: EXIT",), (), ()]
        assert [e["error"] for e in kinds(live, "module")] == ["broken lens"]
        await live.close()
        settings = LiveSettings(module_timeout=0.02)
        live = Live("a", Scripted(), settings, modules=lambda: [Reads("late", wait=9)])
        await live.step(second(0))
        assert [e["error"] for e in kinds(live, "module")] == ["no answer in time"]
        await live.close()
        # One that is slow is not asked again meanwhile, and heard when it has done.
        slow = Reads("EXIT", "ENTRY", wait=0.05)
        live = Live("a", Scripted(), settings, modules=lambda: [slow])
        for number in range(2):
            await live.step(second(number))
        assert len(slow.left) == 2
        await asyncio.sleep(0.1)
        await live.step(second(2))
        assert live.model.prompts == [(), (), ("ocr: EXIT",)] and len(slow.left) == 1
        await live.close()

    run(main())


def test_unprompted_speech_can_be_filtered() -> None:
    def quiet(text: str, asked: bool) -> str:
        return text if asked else ""

    async def main() -> None:
        model = Scripted({1: Response("Yes."), 40: Response("By the way.")})
        live = Live("a", model, LiveSettings(say=quiet))
        live.ask("Is it on?")
        for number in range(41):
            await live.step(second(number))
        assert [e["text"] for e in kinds(live, "step") if e["action"] == "response"] == ["Yes."]
        assert [e["text"] for e in kinds(live, "filtered")] == ["By the way."]
        # What nobody was told is not in the stream's history as said.
        turns = live.session.stream.turns
        assert (turns[1].action, turns[-1].action) == (Response("Yes."), Silence())
        await live.close()
        model = Scripted({1: Delegation("A word first.", "What is it?")})
        live = Live("a", model, LiveSettings(say=quiet), bridge=lambda told: Bridge(Solves(), told))
        for number in range(3):
            await live.step(second(number))
        assert not kinds(live, "task") and live.state()["pending"] == []
        await live.close()

    run(main())


def test_a_source_that_is_too_fast_loses_seconds_and_one_that_begins_anew_goes_on() -> None:
    async def main() -> None:
        live, feed = Live("a", Scripted()), Feed(most=2)
        for number in range(5):
            feed.put(second(number))
        feed.end()
        await live.run(feed)
        assert [e["second"] for e in kinds(live, "step")] == [3, 4]
        assert kinds(live, "dropped")[0]["seconds"] == 3 and feed.dropped == 3
        again = Feed(most=9)
        for number in range(3):
            again.put(second(number))
        again.end()
        await live.run(again)
        assert [e["second"] for e in kinds(live, "step")] == [3, 4, 5, 6, 7]
        await live.close()

    run(main())


def test_what_follows_on_nothing_is_seen_whole() -> None:
    """Another source, and one whose clock was set."""

    async def main() -> None:
        codec = CodecSettings(block=8, search=16, side=8)
        live = Live("a", Scripted(), LiveSettings(StreamSettings(codec=codec)))
        for number, anew in ((0, False), (1, False), (2, True), (3, False), (0, False), (1, False)):
            await live.step(replace(second(number), anew=anew))
        shown = [any(turn.predicted) for turn in live.session.stream.turns]
        assert shown == [False, True, False, True, False, True]
        await live.close()

    run(main())


def test_pictures_are_made_of_whole_cells_where_these_are_coded() -> None:
    async def main() -> None:
        live = Live("a", Scripted(), LiveSettings(side=192, multiple=32))
        await live.step(Second(0, (Image.new("RGB", (640, 480)),), 0.0))
        assert live.session.stream.turns[0].frames[0].size == (192, 128)
        await live.close()

    run(main())


def test_too_many_words_at_once_are_refused() -> None:
    async def main() -> None:
        live = Live("a", Scripted(), LiveSettings(waiting=2))
        assert [live.ask(str(n)) for n in range(3)] == [True, True, False]
        assert len(kinds(live, "refused")) == 1
        await live.close()

    run(main())
