"""The networks of the study of time series: dropout, associations, training that can be repeated, and their table."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sparsehopfield.studies import series  # noqa: E402
from sparsehopfield.studies.series import networks, protocol  # noqa: E402
from sparsehopfield.studies.series.task import Source, task_of  # noqa: E402


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An hourly series of 500 rows in two columns."""
    path = tmp_path_factory.mktemp("series") / "made.csv"
    rng, hours = np.random.default_rng(0), np.arange(500)
    columns = np.sin(hours[:, None] * np.pi / 12 + [0, 1]) + 0.2 * rng.standard_normal((500, 2))
    dates = np.datetime64("2020-01-01T00:00") + hours.astype("timedelta64[h]")
    path.write_text("date,a,b\n" + "".join(f"{t},{a},{b}\n" for t, (a, b) in zip(dates, columns, strict=True)))
    return path


@pytest.fixture(scope="module")
def task(file):
    return task_of(Source(file=str(file)), 12)


def test_dropout_keeps_a_share_and_the_mean():
    torch.manual_seed(0)
    dropout, x = networks.Dropout(0.2), torch.full((333, 301), 2.0, requires_grad=True)
    y = dropout(x)
    p = 51 / 256
    assert sorted({round(v, 5) for v in y.unique().tolist()}) == [0.0, round(2 / (1 - p), 5)]
    share = (y == 0).double().mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / x.numel()) ** 0.5
    rows = (y == 0).double().mean(1)  # independent: the shares of rows scatter as those of single draws do
    assert rows.var().item() == pytest.approx(p * (1 - p) / 301, rel=0.5)
    y.sum().backward()
    assert torch.equal(x.grad, y / 2)
    assert dropout.eval()(x) is x


@pytest.mark.parametrize("model", ["dlinear", "nlinear"])
def test_linear_networks_are_their_formulas(task, model):
    torch.manual_seed(0)
    network, origins = networks.make(task, model, "-", "-"), task.origins("test")[:3]
    (made,) = networks.forecast(network, task, origins)[:1]
    seen = task.values[origins[0] - task.seen : origins[0]]
    linear = {name: value.detach().double().numpy() for name, value in network.state_dict().items()}
    if model == "nlinear":
        expected = linear["linear.weight"] @ (seen - seen[-1]) + linear["linear.bias"][:, None] + seen[-1]
    else:
        padded = np.pad(seen, ((12, 12), (0, 0)), mode="edge")
        trend = np.stack([padded[i : i + 25].mean(axis=0) for i in range(len(seen))])
        expected = linear["trend.weight"] @ trend + linear["trend.bias"][:, None]
        expected += linear["rest.weight"] @ (seen - trend) + linear["rest.bias"][:, None]
    assert made == pytest.approx(expected, abs=1e-4)


def test_forecasts_move_and_scale_with_the_window(task):
    torch.manual_seed(0)
    network = networks.make(task, "network", "sparsemax", "all").eval()
    windows = torch.randn(5, task.seen)
    moved = network(3 * windows + 7)
    assert moved.detach().numpy() == pytest.approx((3 * network(windows) + 7).detach().numpy(), abs=1e-3)


def test_decay_leaves_the_learned_betas_alone(task):
    for model in ("network", "dlinear"):
        network = networks.make(task, model, "sparsemax", "all")
        optimizer = torch.optim.AdamW(networks._groups(network, 0.5), 0.1)
        before = {name: value.clone() for name, value in network.named_parameters()}
        for value in network.parameters():
            value.grad = torch.zeros_like(value)
        optimizer.step()  # of decay alone
        for name, value in network.named_parameters():
            kept = 1.0 if name.endswith("log_scaling") else 0.95
            assert value.detach().numpy() == pytest.approx(kept * before[name].detach().numpy(), abs=1e-7), name


def test_weights_of_sparse_maps_are_zero_elsewhere(task):
    torch.manual_seed(0)
    network = networks.make(task, "network", "sparsemax", "all").eval()
    patches = task.seen // task.patch
    for block in network.layers:
        assert block.association.scaling == pytest.approx([8**-0.5] * 4)
        with torch.no_grad():
            block.association.log_scaling.add_(4.0)
    maps = network.maps(torch.randn(20, task.seen))
    assert [tuple(one.shape) for one in maps] == [(20, 4, patches, patches)] * 2
    for one in maps:
        assert one.sum(-1).numpy() == pytest.approx(1.0, abs=1e-5)
    count = networks.support(network, task, task.some("test"))
    assert 1 <= count < patches
    dense = networks.make(task, "network", "softmax", "all").eval()
    assert networks.support(dense, task, task.some("test")) == patches
    assert np.isnan(networks.support(networks.make(task, "network", "softmax", "window"), task, task.some("test")))


def test_an_interrupted_training_is_continued_to_the_same_table(tmp_path, file, monkeypatch):
    options = {"file": file, "horizons": 12, "epochs": 2, "runs": 2, "rows": 350, "progress": False}
    options |= {"models": ("ridge", "nlinear", "network"), "maps": ("softmax", "sparsemax")}
    options |= {"structure": ("all", "window", "features")}
    whole = series.run(tmp_path / "whole", **options)
    evaluated = []

    def stopped(*arguments):
        if len(evaluated) == 3:
            raise KeyboardInterrupt
        evaluated.append(arguments)
        return protocol.evaluate(*arguments)

    monkeypatch.setattr(series, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        series.run(tmp_path / "parts", **options)
    monkeypatch.undo()
    before = torch.random.get_rng_state()
    parts = series.run(tmp_path / "parts", **options)
    assert parts.table.read_bytes() == whole.table.read_bytes()
    assert torch.equal(torch.random.get_rng_state(), before)
    errors = {row["run"]: row["value"] for row in whole.rows if row["model"] == "network" and row["metric"] == "mse"}
    assert errors[0] != errors[1]
    assert "in pairs of 2 seeds" in whole.report


def test_the_best_epoch_by_validation_is_kept(task, monkeypatch):
    kept = []
    forecast = networks.forecast

    def recorded(network, task, origins):
        made = forecast(network, task, origins)
        kept.append((float(np.mean((made - task.truth(origins)) ** 2)), network.linear.weight.clone()))
        return made

    monkeypatch.setattr(networks, "forecast", recorded)
    network = networks.trained(task, "nlinear", "-", "-", 0, 5)
    best = min(kept, key=lambda one: one[0])
    assert len(kept) == 5
    assert torch.equal(network.linear.weight, best[1])
