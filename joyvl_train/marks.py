"""Dense supervision of what a question asks for: which image tokens show it.

Questions and answers alone teach a small model to name what it sees long before it finds what is
named: for "is there a dog?" a yes or a no tells nothing of where to look. A mark at every image
token, whether it shows what the text before it asks for, teaches that within a thousand. The head
that reads the marks is thrown away after training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

UNKNOWN = -1
"""The mark of a token of which nothing is told; 1: it shows what is asked for, 0: it does not."""


class Marks(nn.Module):
    """Reads marks off the hidden states of a middle layer of a transformers model's text part.

    share: of the marks' mean loss, beside the mean of the tokens' loss.
    """

    def __init__(self, model: Any, share: float) -> None:
        super().__init__()
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        layers = plain.model.language_model.layers
        self.share = share
        self.head = nn.Linear(plain.config.get_text_config().hidden_size, 1)
        # No draw of chance: a resumed run and a new one begin alike.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._states: Tensor | None = None
        self._counts = torch.zeros(3, dtype=torch.long)
        layers[len(layers) // 2].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if module.training:  # what is generated in between is nobody's to mark
            self._states = output[0] if isinstance(output, tuple) else output

    def forward(self, marks: Tensor) -> Tensor:
        """The mean loss over the known `marks` [1, T] of the batch that the model has just seen."""
        assert self._states is not None
        known = marks != UNKNOWN
        logits = self.head(self._states[known]).float()[:, 0]
        self._states = None
        wanted = marks[known].float()
        if not len(wanted):
            nothing: Tensor = logits.sum()
            return nothing
        found = logits.detach() > 0
        self._counts += torch.stack(
            [(found & (wanted > 0)).sum(), found.sum(), (wanted > 0).sum()]
        ).cpu()
        return binary_cross_entropy_with_logits(logits, wanted)

    def figures(self) -> dict[str, float]:
        """marks/precision and marks/recall since the last call, as far as there was any."""
        hits, found, wanted = self._counts.tolist()
        self._counts.zero_()
        told = {"marks/precision": (hits, found), "marks/recall": (hits, wanted)}
        return {name: part / whole for name, (part, whole) in told.items() if whole}
