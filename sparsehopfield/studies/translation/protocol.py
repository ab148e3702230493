"""What is measured of translators: losses, BLEU of sentences whole and damaged, and how sparse the associations are."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsehopfield._engine.atomic_files import atomic_write
from sparsehopfield.data._content import first_line, reading
from sparsehopfield.errors import FileFormatError
from sparsehopfield.studies._core.tables import write_rows
from sparsehopfield.studies.translation.bleu import COLUMNS, Counts, corpus_bleu, counts_of
from sparsehopfield.studies.translation.parts import HEADS, LAYERS, MAPS, PLACES
from sparsehopfield.studies.translation.text import CONDITIONS, END, Source, damaged, task_of

#: beta of each map unless a grid chooses it, in units of 1 / sqrt(d): sparsemax with 1 begins with supports of two or
#: three of 16 pieces, and passes no gradient to the others.
BETAS = {"softmax": "1", "sparsemax": "0.25", "entmax15": "0.5", "normmax": "0.25"}
OWN = "own"  # in place of beta, where sparse maps of one model have different ones
LEARNED = "learned"  # in place of beta: one of each head, which begins with those above
LEARNING_RATE = 3e-3
#: How translations are made, and hypotheses of their beams.
DECODINGS = {"greedy": 1, "beam": 4}


@dataclass(frozen=True)
class Work:
    """What all settings of a table share.

    Attributes
    ----------
    source : Source
    checkpoints : str
        The folder of the networks, one folder in it for each.
    tokens : int
        Pieces of a batch.
    seed : int
        Of the study, by which sentences are damaged.
    shows_epochs : bool
        Whether a line on the terminal says how far training is.
    """

    source: Source
    checkpoints: str
    tokens: int
    seed: int
    shows_epochs: bool


def maps_of(name: str) -> tuple[str, str, str]:
    """Return the maps of encoder, decoder and cross-association by the name of a model.

    Examples
    --------
    >>> maps_of("sparsemax"), maps_of("softmax/softmax/entmax15")
    (('sparsemax', 'sparsemax', 'sparsemax'), ('softmax', 'softmax', 'entmax15'))
    """
    maps = name.split("/")
    maps = maps * 3 if len(maps) == 1 else maps
    if len(maps) != 3 or not {*maps} <= {*MAPS}:
        raise ValueError(
            f"maps: {name!r} must be one of {', '.join(MAPS)}, or three of them, of {'/'.join(PLACES)}, with / between"
        )
    return maps[0], maps[1], maps[2]


def name_of(maps: Sequence[str]) -> str:
    """Return the name of a model by its maps, the same for the same maps.

    Examples
    --------
    >>> name_of(("softmax",) * 3), name_of(("softmax", "softmax", "entmax15"))
    ('softmax', 'softmax/softmax/entmax15')
    """
    return maps[0] if len({*maps}) == 1 else "/".join(maps)


def model_name(name: str, structure: str) -> str:
    """Return the name of a model with its structure, where that is not "all".

    Examples
    --------
    >>> model_name("softmax", "all"), model_name("softmax", "window")
    ('softmax', 'softmax window')
    """
    return name if structure == "all" else f"{name} {structure}"


def betas_of(name: str, beta: str) -> tuple[float, float, float]:
    """Return the betas of encoder, decoder and cross-association.

    Where maps differ, `beta` is that of the others than softmax, which keeps its own; OWN and LEARNED: all do.
    """
    maps = maps_of(name)
    own = [float(BETAS[one]) for one in maps]
    if beta in (LEARNED, OWN):
        found = own
    else:
        found = [
            mine if one == "softmax" and {*maps} != {"softmax"} else float(beta)
            for one, mine in zip(maps, own, strict=True)
        ]
    return found[0], found[1], found[2]


def default_beta(name: str) -> str:
    """Return the beta of a model unless a grid chooses it: that of its sparse map, or OWN of several."""
    betas = {BETAS[one] for one in maps_of(name) if one != "softmax"} or {BETAS["softmax"]}
    return betas.pop() if len(betas) == 1 else OWN


def trial_metrics(setting: Mapping[str, Any]) -> list[str]:
    """Return the names of what `evaluate_trial` measures: losses, by epoch and the least."""
    return ["validation loss", *(f"loss {epoch}" for epoch in range(1, setting["epochs"] + 1))]


def metrics(setting: Mapping[str, Any]) -> list[str]:
    """Return the names of what `evaluate` measures."""
    return [
        *trial_metrics(setting),
        *(f"{decoding} {condition}" for decoding in DECODINGS for condition in CONDITIONS),
        *(f"{what} {place}" for what in ("zeros", "support") for place in PLACES),
        *(
            f"{what} {place} {layer} {head}"
            for what in ("zeros", "support")
            for place in PLACES
            for layer in range(1, LAYERS + 1)
            for head in range(1, HEADS + 1)
        ),
    ]


def folder_of(work: Work, setting: Mapping[str, Any]) -> Path:
    """Return the folder of the network of a setting."""
    return Path(work.checkpoints, recipe_of(work, setting).name)


def recipe_of(work: Work, setting: Mapping[str, Any]) -> Any:
    """Return the `Recipe` of a setting."""
    from sparsehopfield.studies.translation.training import Recipe

    return Recipe(
        maps_of(setting["map"]),
        betas_of(setting["map"], setting["beta"]),
        setting["beta"] == LEARNED,
        setting["learning rate"],
        setting["epochs"],
        work.tokens,
        setting["seed"],
        setting["structure"],
    )


def network_of(work: Work, setting: Mapping[str, Any]) -> tuple[Any, list[dict[str, float]]]:
    """Return the network of a setting, trained if it is not there, and the losses of its epochs."""
    from sparsehopfield.studies.translation.training import trained

    tell = None
    if work.shows_epochs and sys.stderr.isatty():

        def tell(done: int, total: int) -> None:
            name = f"{model_name(setting['map'], setting['structure'])}, beta {setting['beta']}, run {setting['run']}"
            sys.stderr.write(f"\r\033[K{name}: {done} of {total} epochs")
            sys.stderr.flush()

    return trained(task_of(work.source), recipe_of(work, setting), folder_of(work, setting), tell)


def _losses(work: Work, setting: Mapping[str, Any], losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the losses on the validation part by the names of their metrics, and how long training took."""
    from sparsehopfield.studies.translation.training import seconds_of

    by_epoch = {f"loss {epoch}": loss["validation"] for epoch, loss in enumerate(losses, start=1)}
    return {
        "validation loss": min(by_epoch.values()),
        **by_epoch,
        "seconds": sum(seconds_of(folder_of(work, setting))),
    }


def evaluate_trial(work: Work, setting: Mapping[str, Any]) -> dict[str, float]:
    """Train one network of a grid; return its losses on the validation part."""
    return _losses(work, setting, network_of(work, setting)[1])


def evaluate(work: Work, setting: Mapping[str, Any]) -> dict[str, float]:
    """Train a network, translate with it, and look at its associations.

    Parameters
    ----------
    work : Work
    setting : mapping
        `map`, `structure`, `beta`, `learning rate`, `epochs`, `run` and `seed`.

    Returns
    -------
    dict
        `validation loss`, the least of all epochs, which chose the weights, and `loss EPOCH`; BLEU by how translations
        are made and what was done to the sentences; `zeros`, the shares of weights that are exactly 0 of those that are
        not hidden (what a structure leaves out is 0, and not hidden), and `support`, the mean number of pieces with
        weight, by place, and by place, layer and head.
    """
    network, losses = network_of(work, setting)
    counts = sentences_of(work, setting, network)
    bleu = {" ".join(key): corpus_bleu(some) for key, some in counts.items()}
    return _losses(work, setting, losses) | bleu | sparsity(work, network)


def sentences_of(work: Work, setting: Mapping[str, Any], network: Any = None) -> dict[tuple[str, str], Counts]:
    """Return the counts of each sentence, by how it was translated and what was done to it.

    They are kept in the network's folder, beside the translations; made with `network` if they are not there.
    """
    task, folder = task_of(work.source), folder_of(work, setting)
    n = len(task.corpus.test)
    path = folder / f"sentences-{n}-{task.digest('test')[:8]}-{work.seed}.csv"
    if not path.exists():
        from sparsehopfield.studies.translation.decoding import translate

        network = network_of(work, setting)[0] if network is None else network
        found = {}
        for condition in CONDITIONS:
            words = damaged(task.corpus.test.sources, condition, work.seed)
            sources = [[*task.vocabulary.encode(some), END] for some in words]
            for decoding, beam in DECODINGS.items():
                made = [task.vocabulary.decode(one.pieces) for one in translate(network, sources, beam)]
                with atomic_write(folder / f"{decoding}-{condition.replace(' ', '-')}-{n}.txt") as file:
                    file.write("".join(f"{line}\n" for line in made).encode())
                found[decoding, condition] = counts_of(made, task.corpus.test.targets)
        _write_counts(path, found)
    return _read_counts(path, n)


def _write_counts(path: Path, found: Mapping[tuple[str, str], Counts]) -> None:
    """Write the counts of sentences as a table."""
    write_rows(
        path,
        [
            {"decoding": decoding, "condition": condition, "sentence": number, **dict(zip(COLUMNS, row, strict=True))}
            for (decoding, condition), counts in found.items()
            for number, row in enumerate(counts.tolist())
        ],
    )


def _read_counts(path: Path, n: int) -> dict[tuple[str, str], Counts]:
    """Read what `_write_counts` wrote of n sentences."""
    with reading(path, "table of sentences"):
        header, *lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if header[3:] != list(COLUMNS):
            raise FileFormatError(f"{path}: its columns are {first_line(header)}; remove it: it is made again")
        found: dict[tuple[str, str], list[list[int]]] = {}
        for decoding, condition, _, *counts in lines:
            found.setdefault((decoding, condition), []).append([int(count) for count in counts])
    if {len(rows) for rows in found.values()} != {n}:
        raise FileFormatError(f"{path}: has not {n} sentences of each kind; remove it: it is made again")
    return {key: np.array(rows, np.int64) for key, rows in found.items()}


def sparsity(work: Work, network: Any) -> dict[str, float]:
    """Return zeros and supports of the associations, for the pieces of the test part and its references."""
    import torch

    from sparsehopfield.studies.translation.text import BEGIN, PAD
    from sparsehopfield.studies.translation.training import batches_of, lengths_of, padded

    pairs = task_of(work.source).numbers("test")
    kept = {place: torch.zeros(LAYERS, HEADS, dtype=torch.float64) for place in PLACES}
    rows, seen = dict.fromkeys(PLACES, 0), dict.fromkeys(PLACES, 0)
    for batch in batches_of(lengths_of(pairs), 4 * work.tokens, None):
        sources = padded([pairs[i][0] for i in batch])
        targets = padded([pairs[i][1][:-1] for i in batch], BEGIN)
        is_source, is_target = sources != PAD, targets != PAD
        visible = {  # of each query, how many keys it sees
            "encoder": is_source * is_source.sum(1, keepdim=True),
            "decoder": is_target * torch.arange(1, targets.shape[1] + 1),
            "cross": is_target * is_source.sum(1, keepdim=True),
        }
        for place, layers in network.weights(sources, targets).items():
            real = (is_source if place == "encoder" else is_target)[:, None]
            counts = torch.stack([((weights != 0).sum(-1) * real).sum((0, 2)) for weights in layers])
            kept[place] += counts
            rows[place] += int(real.sum())
            seen[place] += int(visible[place].sum())
    found: dict[str, float] = {}
    for place in PLACES:
        for what, values in (("zeros", 1 - kept[place] / seen[place]), ("support", kept[place] / rows[place])):
            found[f"{what} {place}"] = float(values.mean())
            for layer in range(LAYERS):
                for head in range(HEADS):
                    found[f"{what} {place} {layer + 1} {head + 1}"] = float(values[layer, head])
    return found
