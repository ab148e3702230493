"""Translations by a trained network: the likeliest next piece each time, or the best of a beam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsehopfield.studies.translation.networks import Memory, Translator
from sparsehopfield.studies.translation.text import BEGIN, END, PAD, UNKNOWN
from sparsehopfield.studies.translation.training import padded

#: Hypotheses of a beam, sentences that are translated together, and by how many pieces a translation may be longer.
BEAM, TOGETHER, LONGER = 4, 100, 30
NEVER = [PAD, BEGIN, UNKNOWN]  # pieces that have no text


class Translation(NamedTuple):
    """The pieces of a translation, without its end, and its score: log-probability over `penalty`."""

    pieces: list[int]
    score: float


def penalty(length: int) -> float:
    """Return what the log-probability of a hypothesis with so many pieces, its end among them, is divided by.

    References
    ----------
    Wu et al. 2016, "Google's neural machine translation system", equation 14 with alpha = 1.
    """
    return (5 + length) / 6


@torch.no_grad()
def translate(network: Translator, sources: Sequence[Sequence[int]], beam: int = BEAM) -> list[Translation]:
    """Translate sentences.

    Parameters
    ----------
    network : Translator
        In evaluation mode.
    sources : sequence of sequence of int
        Pieces of each sentence, with its end.
    beam : int
        Hypotheses that are kept of each; 1: the likeliest next piece each time.

    Returns
    -------
    list of Translation
    """
    order = np.argsort([len(source) for source in sources], kind="stable").tolist()
    found: dict[int, Translation] = {}
    for first in range(0, len(order), TOGETHER):
        chosen = order[first : first + TOGETHER]
        limits = [len(sources[i]) + LONGER for i in chosen]
        memory = network.encode(padded([sources[i] for i in chosen]))
        made = _greedy(network, memory, limits) if beam == 1 else _beam(network, memory, limits, beam)
        found |= dict(zip(chosen, made, strict=True))
    return [found[i] for i in range(len(sources))]


def _chances(scores: Tensor, is_last: Tensor) -> Tensor:
    """Return log-probabilities (B, V) without what has no text; rows of the longest length (B,) can only end."""
    scores[:, NEVER] = -torch.inf
    if is_last.any():
        end = scores[is_last, END]
        scores[is_last] = -torch.inf
        scores[is_last, END] = end
    return scores


def _greedy(network: Translator, memory: Memory, limits: Sequence[int]) -> list[Translation]:
    """Translate by the likeliest next piece; sentences that are finished are left out of what follows."""
    alive, longest = torch.arange(len(memory.keys[0])), torch.tensor(limits)
    pieces: list[list[int]] = [[] for _ in alive]
    total = torch.zeros(len(alive))
    made: dict[int, Translation] = {}
    last, past = torch.full((len(alive),), BEGIN), network.begin()
    for length in range(1, max(limits) + 1):
        scores, past = network.step(memory, past, last)
        best, last = _chances(scores, longest[alive] == length).max(-1)
        total = total + best
        for i, piece, score in zip(alive.tolist(), last.tolist(), total.tolist(), strict=True):
            if piece == END:
                made[i] = Translation(pieces[i], score / penalty(length))
            else:
                pieces[i].append(piece)
        stay = (last != END).nonzero()[:, 0]
        if len(stay) < len(alive):
            alive, total, last = alive[stay], total[stay], last[stay]
            memory, past = memory.rows(stay), past.rows(stay)
        if not len(alive):
            break
    return [made[i] for i in range(len(pieces))]


def _beam(network: Translator, memory: Memory, limits: Sequence[int], beam: int) -> list[Translation]:
    """Translate by beams: a sentence is finished when no hypothesis can become better than its best finished one, or
    when as many are finished as the beam has.
    """
    count = len(memory.keys[0])
    alive, longest = list(range(count)), torch.tensor(limits)
    pieces: list[list[list[int]]] = [[[] for _ in range(beam)] for _ in alive]
    finished: list[list[Translation]] = [[] for _ in alive]
    total = torch.full((count, beam), -torch.inf)
    total[:, 0] = 0  # hypotheses begin alike: all but one are left out
    memory = memory.rows(torch.arange(count).repeat_interleave(beam))
    last, past = torch.full((count * beam,), BEGIN), network.begin()
    for length in range(1, max(limits) + 1):
        scores, past = network.step(memory, past, last)
        scores = _chances(scores, longest[alive].repeat_interleave(beam) == length)
        pieces_in_all = scores.shape[-1]
        joined = (total[:, :, None] + scores.view(len(alive), beam, -1)).flatten(1)
        best, at = joined.topk(2 * beam)
        kept_scores, kept_rows, kept_pieces, stay = [], [], [], []
        for row, (i, values, places) in enumerate(zip(alive, best.tolist(), at.tolist(), strict=True)):
            going: list[tuple[float, int, int]] = []
            for rank, (value, place) in enumerate(zip(values, places, strict=True)):
                if value == -np.inf:
                    break
                before, piece = divmod(place, pieces_in_all)
                if piece != END:
                    going.append((value, before, piece))
                elif rank < beam:
                    finished[i].append(Translation(pieces[i][before], value / penalty(length)))
            going = going[:beam]
            top = max((one.score for one in finished[i]), default=-np.inf)
            if not going or len(finished[i]) >= beam or top >= going[0][0] / penalty(limits[i]):
                continue
            going += [(-np.inf, going[0][1], PAD)] * (beam - len(going))
            pieces[i] = [[*pieces[i][before], piece] for _, before, piece in going]
            kept_scores.append([value for value, _, _ in going])
            kept_rows += [row * beam + before for _, before, _ in going]
            kept_pieces += [piece for _, _, piece in going]
            stay.append(i)
        if not stay:
            break
        chosen = torch.tensor(kept_rows)
        alive, total, last = stay, torch.tensor(kept_scores), torch.tensor(kept_pieces)
        memory, past = memory.rows(chosen), past.rows(chosen)
    return [max(some, key=lambda one: one.score) for some in finished]
