"""Translators: what masks hide, exact zeros, translations step by step, and training that was interrupted."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")
for module in ("sentencepiece", "sacrebleu"):
    pytest.importorskip(module, reason="needs the extra translation")

import torch.nn.functional as F  # noqa: E402

from sparsehopfield.structures import RandomFeatures  # noqa: E402
from sparsehopfield.studies import translation  # noqa: E402
from sparsehopfield.studies.translation import bleu, decoding, networks, protocol, report, training  # noqa: E402
from sparsehopfield.studies.translation.decoding import penalty, translate  # noqa: E402
from sparsehopfield.studies.translation.networks import BEST, MAPS, NEAR, Shape, Translator, smoothed_loss  # noqa: E402
from sparsehopfield.studies.translation.parts import STRUCTURES  # noqa: E402
from sparsehopfield.studies.translation.text import BEGIN, END, PAD, Source, learn_vocabulary, task_of  # noqa: E402
from sparsehopfield.studies.translation.training import Recipe, batches_of, padded, trained  # noqa: E402
from sparsehopfield.torch import entmax, normmax, softmax, sparsemax  # noqa: E402

SMALL = Shape(width=16, forward=16, heads=2, layers=2, dropout=0.0)
WORDS = {"red": "rot", "blue": "blau", "dog": "hund", "cat": "katze", "runs": "rennt", "sleeps": "ruht", "and": "und"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A language of seven words, whose translation turns each sentence round."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for part, n in (("train", 120), ("val", 20), ("test_2016_flickr", 20)):
        lines = [rng.choice([*WORDS], rng.integers(2, 7)) for _ in range(n)]
        for language, text in (
            ("en", [" ".join(line) for line in lines]),
            ("de", [" ".join(WORDS[word] for word in line[::-1]) for line in lines]),
        ):
            (folder / f"{part}.lc.norm.tok.{language}").write_text("\n".join(text) + "\n")
    return folder


@pytest.fixture(scope="module")
def task(data, tmp_path_factory):
    source = Source(str(data), None, None, str(tmp_path_factory.mktemp("pieces") / "vocabulary.model"))
    learn_vocabulary(source, 45)
    return task_of(source)


def network_of(name, **options):
    torch.manual_seed(0)
    return Translator(30, (name,) * 3, (2.0,) * 3, shape=SMALL, **options).eval()


def sentences(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [[*rng.integers(4, 30, n - 1).tolist(), END] for n in lengths]


@pytest.mark.parametrize("name", MAPS)
@torch.no_grad()
def test_masks_hide(name):
    network = network_of(name)
    sources, targets = padded(sentences(5, 9)), padded(sentences(4, 7, seed=1), BEGIN)
    features = network(sources, targets)
    # padding: the sentence alone gives the same
    alone = network(sources[:1, :5], targets[:1, :5])
    torch.testing.assert_close(features[:1, :5], alone)
    # what is behind a position: any other piece there gives the same before, to rounding
    changed = targets.clone()
    changed[:, 4:] = 7
    torch.testing.assert_close(network(sources, changed)[:, :4], features[:, :4], atol=1e-5, rtol=0)
    assert (network(sources, changed)[:, 4:] - features[:, 4:]).abs().max() > 0.1
    weights = network.weights(sources, targets)
    for place in ("encoder", "cross"):
        for layer in weights[place]:
            assert not layer[0, :, :, 5:].any()
    for layer in weights["decoder"]:
        assert not layer.triu(1).any()
    for layers in weights.values():
        for layer in layers:
            torch.testing.assert_close(layer.sum(-1), torch.ones(layer.shape[:-1]))
    zeros = sum(int((layer == 0).sum()) for layer in weights["cross"]) - 2 * 2 * 8 * 4  # layers, heads, rows, hidden
    assert (zeros > 0) == (name != "softmax")


FUNCTIONS = {"softmax": softmax, "sparsemax": sparsemax, "entmax15": entmax, "normmax": normmax}


@pytest.mark.parametrize(
    ("name", "structure"),
    [(name, "all") for name in MAPS]
    + [("softmax", name) for name in STRUCTURES[1:]]
    + [("sparsemax", name) for name in ("window", "topk")],
)
@torch.no_grad()
def test_associations_are_their_formulas(name, structure):
    """Weights are the map of the scores that are seen, and values are mixed with them."""
    association = network_of(name, is_learned=True, structure=structure).decoder[1].association
    queries, keys, values = torch.randn(3, 2, 7, 2, 8, dtype=torch.float64).unbind()
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 3:] = True
    away = torch.arange(7) - torch.arange(7)[:, None]
    beta = 2 / math.sqrt(8)
    for hidden, causal in ((padding, False), (None, True)):
        scores = beta * torch.einsum("bnhd,bmhd->bhnm", queries, keys)
        if structure == "features":  # softmax of the logarithms of the kernel is in proportion to the kernel
            rows = math.sqrt(beta) * torch.cat([queries, keys], 1)
            projection = torch.from_numpy(RandomFeatures(networks.FEATURES).projection(8))
            features = (rows @ projection.T - (rows**2).sum(-1, keepdim=True) / 2).exp()
            scores = torch.einsum("bnhf,bmhf->bhnm", *features.split(7, 1)).log()
        unseen = (away > 0 if causal else padding[:, None, None]).expand(scores.shape)
        if structure == "window":
            unseen = unseen | (away.abs() > NEAR)
        scores = scores.masked_fill(unseen, -math.inf)
        if structure == "topk":
            scores = scores.masked_fill(scores < scores.topk(BEST).values[..., -1:], -math.inf)
        wanted = FUNCTIONS[name](scores)
        weights = association.weights(queries, keys, hidden, causal)
        torch.testing.assert_close(weights, wanted)
        assert not weights[unseen.expand(weights.shape)].any()
        mixed = torch.einsum("bhnm,bmhd->bnhd", wanted, values).flatten(2)
        torch.testing.assert_close(association(queries, keys, values, hidden, causal), mixed)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_each_head_learns_its_beta(structure):
    network = network_of("sparsemax" if structure == "all" else "softmax", is_learned=True, structure=structure)
    loss = training.loss_of(network, [*zip(sentences(5, 6), sentences(4, 6, seed=1), strict=True)], 0.1)
    loss.backward()
    for part in (*network.encoder, *network.decoder, *network.cross):
        assert part.association.log_beta.grad.abs().min() > 0
        assert part.association.beta().tolist() == pytest.approx([2 / math.sqrt(8)] * 2)


def test_the_loss_is_that_of_torch():
    torch.manual_seed(0)
    features, weight = torch.randn(9, 6, requires_grad=True), torch.randn(20, 6, requires_grad=True)
    targets = torch.randint(20, (9,))
    for smoothing in (0.0, 0.1):
        ours = smoothed_loss(features, weight, targets, smoothing)
        theirs = F.cross_entropy(features @ weight.T, targets, label_smoothing=smoothing)
        torch.testing.assert_close(ours, theirs)
        found, wanted = (torch.autograd.grad(3 * loss, (features, weight)) for loss in (ours, theirs))
        torch.testing.assert_close(found, wanted)


def test_the_loss_is_finite_where_chances_vanish():
    features = torch.tensor([[300.0, 0.0]])
    weight = torch.eye(2)
    assert float(smoothed_loss(features, weight, torch.tensor([1]), 0.0)) == 300


def test_batches_hold_every_pair_once():
    rng = np.random.default_rng(0)
    lengths = [(int(a), int(b)) for a, b in rng.integers(1, 40, (500, 2))]
    one, same, other = (batches_of(lengths, 256, seed) for seed in (1, 1, 2))
    assert one == same != other
    for batches in (one, other, batches_of(lengths, 256, None)):
        assert sorted(i for batch in batches for i in batch) == [*range(500)]
        assert all(max(max(lengths[i]) for i in batch) * len(batch) <= 256 for batch in batches)
    assert batches_of([(300, 2)], 256, None) == [[0]]


@torch.no_grad()
def test_every_update_has_the_rate_of_its_own_number():
    rng = np.random.default_rng(0)
    pairs = [([4] * a, [4] * b) for a, b in rng.integers(1, 30, (700, 2))]
    recipe = Recipe(("softmax",) * 3, (1.0,) * 3, False, 3e-3, epochs=4, tokens=128, seed=0)
    rates = [rate for epoch in range(4) for rate, _ in training._scheduled(pairs, recipe, epoch, seed=epoch)]
    assert len(rates) > 300
    assert rates == [training.rate_at(update, len(rates), 3e-3) for update in range(len(rates))]


@pytest.mark.parametrize("structure", STRUCTURES)
@torch.no_grad()
def test_steps_give_what_the_whole_gives(structure):
    network = network_of("softmax" if structure == "features" else "sparsemax", structure=structure)
    sources, targets = padded(sentences(5, 9)), padded(sentences(9, 9, seed=1), BEGIN)
    whole = F.linear(network(sources, targets), network.embedding.weight).log_softmax(-1)
    memory, past = network.encode(sources), network.begin()
    for at in range(targets.shape[1]):
        scores, past = network.step(memory, past, targets[:, at])
        torch.testing.assert_close(scores, whole[:, at], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_beam_finds_what_is_likelier():
    network = network_of("entmax15")
    network.embedding.weight *= 3  # chances that differ
    sources = sentences(*range(2, 12))
    found = {beam: translate(network, sources, beam) for beam in (1, 4)}
    for made in found.values():
        for source, one in zip(sources, made, strict=True):
            assert not {PAD, BEGIN, END} & {*one.pieces}
            pieces = [*one.pieces, END]
            scores = F.linear(network(padded([source]), padded([pieces[:-1]], BEGIN)), network.embedding.weight)[0]
            scores = scores.log_softmax(-1)[torch.arange(len(pieces)), pieces].sum()
            assert one.score == pytest.approx(float(scores) / penalty(len(pieces)), rel=1e-4)
    # the greedy translation may leave the beam, but not on the whole
    assert np.mean([one.score for one in found[4]]) > np.mean([one.score for one in found[1]])


RECIPE = Recipe(("sparsemax",) * 3, (0.25,) * 3, False, 3e-3, 3, 128, 5)


def test_files_of_all_pieces_are_those_of_before_there_were_structures(task):
    name = "sparsemax_beta-0.25_rate-0.003_epochs-3_tokens-128_seed-5"
    assert RECIPE.name == name
    assert "structure" not in json.loads(training._identity(RECIPE, task))
    near = replace(RECIPE, structure="window")
    assert near.name == name.replace("_beta", "_window_beta")
    assert json.loads(training._identity(near, task))["structure"] == "window"


def test_training_that_was_killed_goes_on_to_the_same_bytes(task, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "Shape", lambda: Shape(width=64, forward=64))
    before = torch.get_rng_state()
    network, losses = trained(task, RECIPE, tmp_path / "whole")
    assert torch.equal(torch.get_rng_state(), before)
    assert losses[-1]["train"] < losses[0]["train"] - 0.5
    assert losses[-1]["validation"] < losses[0]["validation"]
    whole = (tmp_path / "whole" / training.NETWORK).read_bytes()
    loss_of, calls = training.loss_of, []

    def killed(*arguments):
        calls.append((tmp_path / "parts" / training.CHECKPOINT).exists())
        if sum(calls) == 3:  # in the second epoch
            raise KeyboardInterrupt
        return loss_of(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "loss_of", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(task, RECIPE, tmp_path / "parts")
    torch.rand(7)  # the state of torch's generator has no say
    assert (tmp_path / "parts" / training.CHECKPOINT).exists()
    assert len(training.seconds_of(tmp_path / "parts")) == 1
    _, again = trained(task, RECIPE, tmp_path / "parts")
    assert again == losses
    assert (tmp_path / "parts" / training.NETWORK).read_bytes() == whole
    assert not (tmp_path / "parts" / training.CHECKPOINT).exists()
    assert len(training.seconds_of(tmp_path / "parts")) == 3
    found, read = trained(task, RECIPE, tmp_path / "parts")  # is there: nothing is trained
    assert read == losses
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in found.state_dict().items())


def test_networks_of_something_else_are_refused(task, data, tmp_path):
    short = Recipe(RECIPE.maps, RECIPE.betas, False, 3e-3, 1, 128, 5)
    trained(task, short, tmp_path / "made")
    other = Recipe(RECIPE.maps, (0.5,) * 3, False, 3e-3, 1, 128, 5)
    with pytest.raises(ValueError, match=r"^betas: .* is of another network"):
        trained(task, other, tmp_path / "made")
    source = Source(str(data), None, None, str(tmp_path / "vocabulary.model"))
    learn_vocabulary(source, 40)
    with pytest.raises(ValueError, match=r"^vocabulary: .* is of another network"):
        trained(task_of(source), short, tmp_path / "made")
    (tmp_path / "made" / training.NETWORK).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"network.safetensors: damaged or unreadable safetensors file"):
        trained(task, short, tmp_path / "made")


@pytest.fixture
def run(data, monkeypatch):
    """The study, of smaller networks and with short translations."""
    monkeypatch.setattr(networks, "Shape", lambda: Shape(width=32, forward=32))
    monkeypatch.setattr(translation.plotting, "save", lambda _, path: [path])  # drawn, but not written
    monkeypatch.setattr(decoding, "LONGER", 2)
    monkeypatch.setattr(report, "bootstrap", lambda *counts: bleu.bootstrap(*counts, draws=50))

    def call(folder, **options):
        given = {"maps": ("softmax", "sparsemax"), "vocabulary": 45, "epochs": 1, "tokens": 256, "sentences": 4}
        return translation.run(folder, data=data, progress=False, **given | options)

    return call


def test_an_interrupted_study_is_continued_to_the_same(run, tmp_path, monkeypatch):
    grid = {"grid": True, "betas": (0.25, "learned"), "learning_rates": 3e-3, "grid_epochs": 1}
    whole = run(tmp_path / "whole", **grid)
    names = [path.name.removeprefix("translation-") for path in whole.figures]
    assert names == ["bleu", "support", "loss", "grid", "attention"]
    evaluated = []

    def stopped(*arguments):
        if evaluated:
            raise KeyboardInterrupt
        evaluated.append(arguments)
        return protocol.evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(translation, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", **grid)
    parts = run(tmp_path / "parts", **grid)
    for name in ("table.csv", "grid/table.csv", "differences.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert parts.report == whole.report
    values = {(row["map"], row["metric"]): row["value"] for row in whole.rows}
    for place in protocol.PLACES:
        assert values["softmax", f"zeros {place}"] == 0
        assert 0 < values["sparsemax", f"zeros {place}"] < 1
        assert 1 <= values["sparsemax", f"support {place}"] < values["softmax", f"support {place}"]
    trials = [line.split(",") for line in (tmp_path / "whole/grid/table.csv").read_text().splitlines()]
    losses = {(line[0], line[2]): float(line[-1]) for line in trials if line[-2] == "validation loss"}
    for row in whole.rows:
        assert losses[row["map"], row["beta"]] == min(value for key, value in losses.items() if key[0] == row["map"])
    assert "2 networks and 2 epochs for each model" in whole.report
    assert "tok:none|smooth:exp" in whole.report
    assert "sparsemax: exactly 0 are" in whole.report


def test_tables_share_networks(run, tmp_path):
    shared = tmp_path / "shared"
    first = run(tmp_path / "first", maps="softmax", checkpoints=shared)
    stamps = {path: path.stat().st_mtime_ns for path in shared.rglob("*") if path.is_file()}
    models = {"maps": ("softmax", "softmax/softmax/entmax15"), "structure": ("features", "all")}
    second = run(tmp_path / "second", **models, checkpoints=shared)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert [row for row in second.rows if (row["map"], row["structure"]) == ("softmax", "all")] == first.rows
    known = {(row["map"], row["structure"]) for row in second.rows}
    assert known == {("softmax", "features"), ("softmax", "all"), ("softmax/softmax/entmax15", "all")}
    assert "softmax/softmax/entmax15 against softmax (beam)" in second.report
    assert "softmax features against softmax (beam)" in second.report
    assert "checkpoints" not in {path.name for path in (tmp_path / "first").iterdir()}


def test_features_need_softmax():
    assert translation.Options(maps=("softmax", "sparsemax"), structure=("topk", "features")).models == [
        ("softmax", "topk"),
        ("sparsemax", "topk"),
        ("softmax", "features"),
    ]
    with pytest.raises(ValueError, match=r"^structure: features stand for softmax alone"):
        translation.Options(maps=("entmax15", "softmax/softmax/sparsemax"), structure="features")
    with pytest.raises(ValueError, match=r"^structure: .*random"):
        translation.Options(structure="random")
