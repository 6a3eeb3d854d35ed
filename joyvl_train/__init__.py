"""JoyVL: training and evaluation of models that watch a stream and choose when to speak."""

__version__ = "0.1.0"
