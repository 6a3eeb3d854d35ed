"""The drawn pictures: one function each, `paint(pen, colour, state)`, by the picture's name."""

from data_pipeline.world.drawing import beings, things, toys, vehicles

PAINTERS = {**beings.PAINTERS, **vehicles.PAINTERS, **things.PAINTERS, **toys.PAINTERS}
