"""Dense supervision of what a question asks for: which image tokens show it.

Questions and answers alone teach a small model to name what it sees long before it finds what is
named: for "is there a dog?" a yes or a no tells nothing of where to look. A mark at every image
token, whether it shows what the text before it asks for, teaches that within a thousand; so do
marks and labels of words that memory text explains. The head that reads them is thrown away after
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from joyvl_train.model_weights import plain_model

UNKNOWN = -1
"""The mark of a token of which nothing is told; 1: it shows what is asked for, 0: it does not."""


class Marks(nn.Module):
    """Reads marks off the hidden states of a middle layer of a transformers model's text part.

    share: of the marks' mean loss, beside the mean of the tokens' loss. fields: beside the mark
    itself a token may have labels, of so many classes each.
    """

    def __init__(self, model: Any, share: float, fields: Sequence[int] = ()) -> None:
        super().__init__()
        plain = plain_model(model)
        layers = plain.model.language_model.layers
        self.share = share
        self.fields = tuple(fields)
        self.head = nn.Linear(plain.config.get_text_config().hidden_size, 1 + sum(fields))
        # No draw of chance: a resumed run and a new one begin alike.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._states: Tensor | None = None
        self._counts = torch.zeros(5, dtype=torch.long)
        layers[len(layers) // 2].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if module.training:  # what is generated in between is nobody's to mark
            self._states = output[0] if isinstance(output, tuple) else output

    def forward(self, marks: Tensor) -> Tensor:
        """The mean over the mark and the fields of their mean loss over the known `marks`
        [1, T, 1 + fields] of the batch that the model has just seen."""
        assert self._states is not None
        some = (marks != UNKNOWN).any(-1)
        logits = self.head(self._states[some]).float()
        self._states = None
        first, *others = marks[some].unbind(-1)
        losses = [self._marked(logits[:, 0], first)]
        for each, label in zip(logits[:, 1:].split(self.fields, -1), others, strict=False):
            losses.append(self._labelled(each, label))
        told = [loss for loss in losses if loss is not None]
        nothing: Tensor = logits.sum() * 0
        return torch.stack(told).mean() if told else nothing

    def _marked(self, logits: Tensor, wanted: Tensor) -> Tensor | None:
        known = wanted != UNKNOWN
        logits, wanted = logits[known], wanted[known]
        found = logits.detach() > 0
        hits = [(found & (wanted > 0)).sum(), found.sum(), (wanted > 0).sum()]
        self._counts[:3] += torch.stack(hits).cpu()
        return binary_cross_entropy_with_logits(logits, wanted.float()) if len(wanted) else None

    def _labelled(self, logits: Tensor, wanted: Tensor) -> Tensor | None:
        known = wanted != UNKNOWN
        logits, wanted = logits[known], wanted[known]
        self._counts[3] += (logits.detach().argmax(-1) == wanted).sum().cpu()
        self._counts[4] += len(wanted)
        return cross_entropy(logits, wanted) if len(wanted) else None

    @property
    def counts(self) -> list[int]:
        """What `figures` will tell, for a saved step."""
        found: list[int] = self._counts.tolist()
        return found

    @counts.setter
    def counts(self, told: Sequence[int]) -> None:
        self._counts = torch.tensor(told, dtype=torch.long)

    def figures(self, counts: Sequence[Sequence[int]] | None = None) -> dict[str, float]:
        """marks/precision and marks/recall since the last call, as far as there was any, and
        marks/labels, the share of labels that were told right. `counts`: those of each rank, where
        there are several."""
        told_by = [self.counts] if counts is None else counts
        self._counts.zero_()
        hits, found, wanted, right, labels = (sum(column) for column in zip(*told_by, strict=True))
        told = {"marks/precision": (hits, found), "marks/recall": (hits, wanted)}
        told["marks/labels"] = (right, labels)
        return {name: part / whole for name, (part, whole) in told.items() if whole}
