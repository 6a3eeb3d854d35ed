"""Things of house and street."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world.drawing.pen import GLASS, GREY, INK, WHITE, WOOD, Colour, Pen, shade

STEEL: Colour = (196, 204, 214)


def door(pen: Pen, colour: Colour, state: str) -> None:
    frame = (120, 78, 44)
    pen.block(18, 2, 82, 98, frame)
    if state == "open":
        pen.block(25, 9, 75, 98, (24, 22, 28))
        pen.area((25, 9), (2, 0), (2, 99), (25, 98), fill=colour)
        pen.disc(7, 54, 3, (250, 210, 60))
        return
    pen.block(25, 9, 75, 98, colour)
    for top in (16, 56):
        for left in (31, 53):
            pen.block(left, top, left + 16, top + 32, shade(colour, -0.25), 1)
    pen.disc(69, 54, 4.5, (250, 210, 60))


def lamp(pen: Pen, colour: Colour, state: str) -> None:
    on = state == "on"
    if on:
        pen.area((16, 44), (84, 44), (98, 92), (2, 92), fill=(255, 250, 190))
    pen.block(47, 40, 53, 92, INK)
    pen.block(30, 90, 70, 98, INK, 3)
    pen.area((34, 4), (66, 4), (88, 46), (12, 46), fill=(255, 214, 20) if on else (92, 96, 120))


def box(pen: Pen, colour: Colour, state: str) -> None:
    dark = shade(colour, -0.3)
    if state == "open":
        pen.area((8, 46), (22, 32), (78, 32), (92, 46), fill=(30, 26, 24))
        pen.area((8, 46), (22, 32), (10, 6), (0, 26), fill=shade(colour, 0.25))
        pen.area((92, 46), (78, 32), (90, 6), (100, 26), fill=shade(colour, 0.25))
        pen.block(8, 46, 92, 96, colour)
        pen.block(8, 46, 92, 54, dark)
        return
    pen.area((8, 40), (22, 24), (78, 24), (92, 40), fill=shade(colour, 0.25))
    pen.block(8, 40, 92, 96, colour)
    pen.block(42, 24, 58, 96, dark)
    pen.block(8, 39, 92, 42, dark)


def cup(pen: Pen, colour: Colour, state: str) -> None:
    pen.arc(72, 54, 20, 0, 360, colour, 8)
    pen.area((12, 26), (76, 26), (68, 92), (20, 92), fill=colour)
    pen.oval(12, 16, 76, 36, shade(colour, 0.35))
    pen.oval(18, 20, 70, 33, (84, 48, 26))


def bottle(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(41, 2, 59, 14, (196, 150, 90), 2)
    pen.area(
        (42, 12), (58, 12), (59, 32), (72, 44), (72, 94), (28, 94), (28, 44), (41, 32), fill=colour
    )
    pen.block(28, 84, 72, 98, colour, 6)
    pen.block(28, 56, 72, 78, WHITE)
    pen.line((35, 46), (35, 52), fill=shade(colour, 0.6), width=4)


def book(pen: Pen, colour: Colour, state: str) -> None:
    if state == "open":
        pen.area((2, 22), (50, 30), (98, 22), (98, 84), (50, 92), (2, 84), fill=colour)
        pen.area((7, 18), (49, 26), (49, 86), (7, 78), fill=WHITE)
        pen.area((93, 18), (51, 26), (51, 86), (93, 78), fill=WHITE)
        for y in (32, 44, 56, 68):
            pen.line((14, y - 3), (42, y + 2), fill=GREY, width=3)
            pen.line((86, y - 3), (58, y + 2), fill=GREY, width=3)
        return
    pen.block(18, 6, 84, 96, shade(colour, -0.25), 3)
    pen.block(22, 86, 84, 93, WHITE)
    pen.block(18, 4, 82, 86, colour, 3)
    pen.block(18, 4, 28, 86, shade(colour, -0.35), 2)
    pen.block(38, 20, 74, 40, WHITE, 2)


def phone(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(24, 2, 76, 98, (40, 42, 50), 8)
    if state == "ringing":
        pen.block(29, 12, 71, 84, (60, 220, 90))
        for radius in (5, 11, 17):
            pen.arc(50, 48, radius, 0, 360, WHITE, 3)
    else:
        pen.block(29, 12, 71, 84, (70, 110, 170))
        pen.area((29, 12), (56, 12), (29, 60), fill=(120, 160, 210))
    pen.disc(50, 91, 4, GREY)


def clock(pen: Pen, colour: Colour, state: str) -> None:
    pen.disc(50, 50, 48, (170, 60, 50))
    pen.disc(50, 50, 39, WHITE)
    for x, y in ((50, 17), (83, 50), (50, 83), (17, 50)):
        pen.disc(x, y, 4, INK)
    pen.line((50, 50), (50, 24), fill=INK, width=5)
    pen.line((50, 50), (68, 60), fill=INK, width=5)


def umbrella(pen: Pen, colour: Colour, state: str) -> None:
    pen.line((50, 6), (50, 88), fill=INK, width=4)
    pen.arc(58, 88, 9, 0, 180, INK, 5)
    if state == "closed":
        pen.area((50, 6), (64, 66), (36, 66), fill=colour)
        pen.line((50, 10), (50, 64), fill=shade(colour, -0.35), width=2)
        return
    pen.slice(50, 52, 48, 180, 360, colour)
    pen.slice(50, 52, 18, 180, 360, shade(colour, 0.35))
    for x in (10, 26, 42, 58, 74, 90):
        pen.disc(x, 52, 8, colour if x not in (42, 58) else shade(colour, 0.35))


def hat(pen: Pen, colour: Colour, state: str) -> None:
    pen.oval(2, 62, 98, 86, colour)
    pen.area((26, 72), (30, 18), (70, 18), (74, 72), fill=colour)
    pen.oval(30, 12, 70, 26, shade(colour, 0.2))
    pen.block(26, 56, 74, 68, (240, 220, 120) if sum(colour) < 420 else (90, 30, 40))


def key(pen: Pen, colour: Colour, state: str) -> None:
    gold = (236, 184, 40)
    pen.line((40, 50), (96, 50), fill=gold, width=11)
    pen.block(74, 50, 82, 74, gold)
    pen.block(88, 50, 96, 70, gold)
    pen.disc(24, 50, 23, gold)
    pen.clear_disc(20, 50, 9)


def hammer(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(43, 26, 57, 98, WOOD, 4)
    pen.block(24, 6, 82, 34, (104, 112, 126), 3)
    pen.area((24, 8), (4, 22), (24, 32), fill=(104, 112, 126))
    pen.block(76, 2, 92, 38, (80, 86, 98), 3)


def knife(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(2, 44, 40, 60, (60, 40, 34), 5)
    pen.disc(12, 52, 2.5, STEEL)
    pen.disc(28, 52, 2.5, STEEL)
    pen.area((38, 40), (84, 40), (99, 58), (96, 64), (38, 64), fill=STEEL)
    pen.area((38, 58), (98, 60), (96, 64), (38, 64), fill=WHITE)


def scissors(pen: Pen, colour: Colour, state: str) -> None:
    pen.area((46, 62), (70, 2), (80, 8), (56, 66), fill=STEEL)
    pen.area((54, 62), (30, 2), (20, 8), (44, 66), fill=shade(STEEL, -0.15))
    pen.disc(50, 56, 4, INK)
    for x in (28, 72):
        pen.line((50, 58), (x, 76), fill=colour, width=7)
        pen.arc(x, 80, 17, 0, 360, colour, 8)


def chair(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(20, 56, 30, 98, shade(colour, -0.35), 2)
    pen.block(72, 58, 82, 98, shade(colour, -0.35), 2)
    pen.block(17, 4, 36, 60, colour, 5)
    pen.block(17, 48, 86, 66, colour, 5)


def house(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(68, 10, 80, 40, (150, 70, 60))
    pen.block(14, 44, 86, 96, colour)
    pen.area((50, 4), (98, 48), (2, 48), fill=(170, 60, 44))
    pen.block(42, 62, 60, 96, (96, 60, 34))
    pen.block(20, 56, 36, 72, GLASS)
    pen.block(66, 56, 80, 72, GLASS)


def flag(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(12, 2, 19, 98, (120, 84, 50), 3)
    pen.area(
        (19, 8), (44, 4), (68, 14), (96, 8), (96, 52), (68, 58), (44, 48), (19, 52), fill=colour
    )
    pen.area(
        (19, 24), (44, 20), (68, 30), (96, 24), (96, 36), (68, 42), (44, 32), (19, 36), fill=WHITE
    )


def traffic_light(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(45, 74, 55, 99, GREY)
    pen.block(24, 1, 76, 82, (44, 46, 52), 8)
    lit = {"red": (255, 40, 30), "yellow": (255, 220, 30), "green": (40, 240, 80)}
    for i, (name, tone) in enumerate(lit.items()):
        on = name == (state or "red")
        pen.disc(50, 15.5 + 26 * i, 12.4, tone if on else shade(tone, -0.82))


PAINTERS: dict[str, Callable[[Pen, Colour, str], None]] = {
    "door": door,
    "lamp": lamp,
    "box": box,
    "cup": cup,
    "bottle": bottle,
    "book": book,
    "phone": phone,
    "clock": clock,
    "umbrella": umbrella,
    "hat": hat,
    "key": key,
    "hammer": hammer,
    "knife": knife,
    "scissors": scissors,
    "chair": chair,
    "house": house,
    "flag": flag,
    "traffic light": traffic_light,
}
