"""One-to-one assignment at least cost: exact, on integers, in plain Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def components(links: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """The keys of `links` in groups: two that share a value, directly or by others, are together.

    Groups and their members stand in the order of `links`.
    """
    leader: dict[int, int] = {}  # key -> a key of its group, up to the group's own

    def lead(key: int) -> int:
        while leader[key] != key:
            leader[key] = key = leader[leader[key]]
        return key

    first_with: dict[int, int] = {}
    for key, values in links.items():
        leader[key] = key
        for value in values:
            leader[lead(key)] = lead(first_with.setdefault(value, key))
    groups: dict[int, list[int]] = {}
    for key in links:
        groups.setdefault(lead(key), []).append(key)
    return list(groups.values())


def assign(costs: Sequence[Sequence[int | None]]) -> list[tuple[int, int]]:
    """As many (row, column) pairs as there can be, of those sets one of least total cost.

    `costs` is a full rectangle of costs of 0 or more; None forbids a pair.
    """
    allowed = [cost for row in costs for cost in row if cost is not None]
    if not allowed:
        return []
    if len(costs) > len(costs[0]):
        flipped = [list(column) for column in zip(*costs, strict=True)]
        return [(r, c) for c, r in assign(flipped)]
    # Dearer than any set of allowed pairs, so that one more allowed pair always pays.
    never = len(costs) * max(allowed) + 1
    dense = [[never if cost is None else cost for cost in row] for row in costs]
    return [(r, c) for r, c in _hungarian(dense) if costs[r][c] is not None]


def _hungarian(costs: list[list[int]]) -> list[tuple[int, int]]:
    """The cheapest column for every row (rows <= columns), by shortest augmenting paths.

    Jonker & Volgenant 1987, with row and column prices; O(rows^2 * columns). Rows and columns
    count from 1 inside; column 0 stands for the row that is being placed.
    """
    rows, columns = len(costs), len(costs[0])
    row_price, column_price = [0] * (rows + 1), [0] * (columns + 1)
    row_of = [0] * (columns + 1)  # 0 is a free column
    for row in range(1, rows + 1):
        row_of[0], column = row, 0
        least: list[int | None] = [None] * (columns + 1)
        before, seen = [0] * (columns + 1), [False] * (columns + 1)
        while row_of[column]:
            seen[column] = True
            r = row_of[column]
            step, following = -1, 0  # a step is never negative: the prices keep reduced costs >= 0
            for c in range(1, columns + 1):
                if seen[c]:
                    continue
                cost = costs[r - 1][c - 1] - row_price[r] - column_price[c]
                known = least[c]
                if known is None or cost < known:
                    least[c], before[c], known = cost, column, cost
                if following == 0 or known < step:
                    step, following = known, c
            for c in range(columns + 1):
                reached = least[c]
                if seen[c]:
                    row_price[row_of[c]] += step
                    column_price[c] -= step
                elif reached is not None:
                    least[c] = reached - step
            column = following
        while column:
            row_of[column] = row_of[before[column]]
            column = before[column]
    return [(row_of[c] - 1, c - 1) for c in range(1, columns + 1) if row_of[c]]
