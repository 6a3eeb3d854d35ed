"""Several draws of one stream's second at once, each distinct outcome a branch of its own.

Rollouts of a window see the same frames, and most of them say the same for many seconds: nothing.
As long as they do, their history is one, and one row of the cache holds it; a second is read once
for all of them. Those that say something else go on in other rows, one for each text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from joyvl_train.engine import Engine
from joyvl_train.engine_state import Row, batches, shared
from joyvl_train.reply import Reply, read_reply
from joyvl_train.sampling import Draw


@dataclass(frozen=True, slots=True)
class Branch:
    """What some of the draws of a stream came to. handle: it goes on there. members: their places
    among the random numbers that were given."""

    handle: int
    reply: Reply
    members: tuple[int, ...]


class BranchingEngine(Engine):
    """An engine whose streams can be drawn from several times in one second."""

    def random(self, seed: int) -> torch.Generator:
        """The random numbers that a stream opened with `seed` would draw by."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + seed) % 2**63)

    def branch(
        self, handles: Sequence[int], randoms: Sequence[Sequence[torch.Generator]]
    ) -> list[list[Branch]]:
        """The branches of each stream whose last turn is open, a draw for each of its random
        numbers; every one of them says what `step` would say by these numbers.

        One branch goes on under the stream's own handle, others under new ones, whose streams are
        copies. Raises `ValueError` as `step` does, and where a stream gets no random numbers.
        """
        rows = self._waiting(handles)
        if len(randoms) != len(rows) or not all(randoms):
            raise ValueError(f"random numbers for {len(randoms)} of {len(rows)} streams")
        draws = [
            [Draw(self.sampling, each, self._first_of(row)) for each in of_row]
            for row, of_row in zip(rows, randoms, strict=True)
        ]
        found: list[list[Branch]] = [[] for _ in rows]
        with self._inference(rows):
            if self.incremental:
                places = self._drawn(rows, draws)
            else:
                places = [
                    {n: handle if n == 0 else self.fork(handle, seed=0) for n in range(len(of_row))}
                    for handle, of_row in zip(handles, draws, strict=True)
                ]
                for of_row, own in zip(draws, places, strict=True):
                    for n, draw in enumerate(of_row):
                        self._generate_whole(self._rows[own[n]], draw)
        for number, (of_row, place) in enumerate(zip(draws, places, strict=True)):
            for handle, members in self._together(handles[number], of_row, place).items():
                row = self._rows[handle]
                reply = read_reply(self.renderer, of_row[members[0]], row.prompt_length)
                found[number].append(Branch(handle, reply, members))
        return found

    def _together(
        self, own: int, draws: Sequence[Draw], place: Mapping[int, int]
    ) -> dict[int, tuple[int, ...]]:
        """Handle -> the draws that go on there: those that said the same go on in one row, the
        stream's own where one of them has it, and their other rows are closed."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for n in sorted(place, key=lambda n: (place[n] != own, n)):
            alike.setdefault(tuple(draws[n].tokens), []).append(n)
        kept = {place[members[0]]: tuple(sorted(members)) for members in alike.values()}
        for handle in set(place.values()) - set(kept):
            self.close(handle)
        return kept

    def _drawn(self, rows: Sequence[Row], draws: Sequence[Sequence[Draw]]) -> list[dict[int, int]]:
        """Reads the open turns and draws; of each row the handle of every draw."""
        guess = self._silence
        prompts = [self._new_prompt(row).plus(guess) for row in rows]
        places: list[dict[int, int]] = [{} for _ in rows]
        going: list[tuple[Row, Draw]] = []
        for batch in batches(rows, prompts, self.batch_tokens):
            logits = self._read(
                [rows[i] for i in batch], [prompts[i] for i in batch], len(guess) + 1
            )
            every = [(at, i, n) for at, i in enumerate(batch) for n in range(len(draws[i]))]
            open_ = every
            for place in range(len(guess) + 1):
                chosen = [draws[i][n] for _, i, n in open_]
                tokens = self._choose(logits[[at for at, _, _ in open_], place], chosen)
                open_ = [
                    one
                    for one, token, draw in zip(open_, tokens, chosen, strict=True)
                    if guess[place : place + 1] == (token,) and not draw.done
                ]
                if not open_:
                    break
            for i in batch:
                going += self._placed(rows[i], draws[i], places[i], guess)
        self._decode([(row, draw) for row, draw in going if not draw.done])
        return places

    def _placed(
        self, row: Row, draws: Sequence[Draw], place: dict[int, int], guess: tuple[int, ...]
    ) -> list[tuple[Row, Draw]]:
        """Gives the draws of a row their rows: one for all that are what was guessed."""
        row.prompt_length, row.prompt_place = row.length - len(guess), row.place - len(guess)
        row.generated = guess
        own = self._by_slot[row.slot]
        same = [n for n, draw in enumerate(draws) if tuple(draw.tokens) == guess and draw.done]
        others = [n for n in range(len(draws)) if n not in same]
        taken: list[tuple[Row, int]] = []
        for n in others if same else others[1:]:
            place[n] = self.fork(own, seed=0)
            taken.append((self._rows[place[n]], n))
        if same:
            place |= dict.fromkeys(same, own)
        else:
            place[others[0]] = own
            taken.append((row, others[0]))
        for each, n in taken:
            each.crop(shared(guess, draws[n].tokens))
        return [(each, draws[n]) for each, n in taken]
