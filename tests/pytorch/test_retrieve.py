"""Retrieval of tensors, and the gradient at the fixed point: against differences, and through all updates."""

import gc
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

import sparsehopfield as sh  # noqa: E402
from sparsehopfield.errors import RetrievalWarning  # noqa: E402
from sparsehopfield.structures import LinearFeatures, RandomMask, TopK, Window  # noqa: E402
from sparsehopfield.torch import _fixed_point, retrieve  # noqa: E402

MAPS = ("sparsemax", "softmax", "entmax15", sh.Entmax(1.0), sh.Entmax(1.2), sh.Entmax(2.5), "normmax2", sh.Normmax(1.3))


def drawn(*shape, seed=0, dtype=torch.float64, grad=True):
    """Return a tensor of normal numbers."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=dtype).requires_grad_(grad)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Leave torch one thread: tensors here are small, and others run tests at the same time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("separation", MAPS, ids=str)
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
def test_gradients_against_differences(similarity, separation):
    """Of patterns, beta and values, for supports narrower and wider than the features."""
    sizes = set()
    for m, d, v in ((6, 4, None), (12, 3, None), (6, 4, 2), (12, 3, 2)):
        queries, patterns = drawn(5, d), drawn(m, d, seed=m)
        beta = torch.tensor([[0.03], [0.4], [1.5]], dtype=torch.float64, requires_grad=True)
        values = None if v is None else drawn(m, v, seed=2)

        def states(queries, patterns, beta, values):
            options = {"similarity": similarity, "separation": separation, "return_info": True, "max_steps": 10_000}
            found, info = retrieve(queries.expand(3, -1, -1), patterns, beta, values=values, **options)
            sizes.update((k > queries.shape[1], k > 1) for k in info.support_size.reshape(-1).tolist())
            return found

        assert torch.autograd.gradcheck(
            states, (queries, patterns, beta, values), atol=1e-6, rtol=1e-5, fast_mode=True
        ), (m, d, v)
    assert (True, True) in sizes
    assert (False, True) in sizes or separation in ("softmax", sh.Entmax(1.0), sh.Entmax(1.2))


def sparsemax(z):
    """Compute sparsemax by a sort."""
    top = z.sort(dim=-1, descending=True).values
    count = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)
    mean = (top.cumsum(-1) - 1) / count
    size = (top > mean).sum(-1, keepdim=True)
    return (z - mean.gather(-1, size - 1)).clamp(min=0)


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_gradients_against_those_through_all_updates(separation, similarity):
    queries, patterns, weights = drawn(7, 5), drawn(9, 5, seed=1), drawn(7, 5, seed=2, grad=False)
    beta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    mixed = torch.nn.functional.normalize(patterns) if similarity == "cosine" else patterns
    shift = 0.5 * patterns.square().sum(1) if similarity == "euclidean" else 0
    states = queries
    for _ in range(200):
        scores = beta * (states @ mixed.T - shift)
        states = (sparsemax(scores) if separation == "sparsemax" else scores.softmax(-1)) @ mixed
    found = retrieve(queries, patterns, beta, similarity=similarity, separation=separation)
    torch.testing.assert_close(found, states, rtol=0, atol=1e-10)
    inputs = queries, patterns, beta
    expected = torch.autograd.grad((states * weights).sum(), inputs)
    for a, b in zip(torch.autograd.grad((found * weights).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


@pytest.mark.parametrize("structure", [TopK(2), Window(1, positions=np.arange(5)), RandomMask(3)], ids=str)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_gradients_under_structures(separation, structure):
    def states(patterns, beta):
        options = {"separation": separation, "structure": structure, "similarity": "euclidean"}
        return retrieve(drawn(5, 3, grad=False), patterns, beta, **options)

    beta = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(states, (drawn(6, 3, seed=1), beta), atol=1e-6, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15"])
def test_blocks_make_no_difference(separation, monkeypatch):
    """Gradients are the same however many queries are taken at a time; supports have all sizes."""

    def gradient():
        patterns = drawn(60, 4)
        beta = torch.logspace(-2, 1, 50, dtype=torch.float64, requires_grad=True)
        states = retrieve(patterns.detach()[:50], patterns, beta, similarity="euclidean", separation=separation)
        return torch.autograd.grad(states.square().sum(), (patterns, beta))

    expected = gradient()
    monkeypatch.setattr(_fixed_point, "NUMBERS", 100)
    for a, b in zip(gradient(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_sparse_gradients():
    """They are coalesced, equal the dense ones, hold the rows with weight alone, and train."""
    queries, patterns, values = drawn(5, 3, grad=False), drawn(100, 3), drawn(100, 2, seed=1)
    grads = []
    for sparse in (False, True):
        states, info = retrieve(queries, patterns, 4.0, values=values, return_info=True, sparse_grad=sparse)
        grads.append(torch.autograd.grad(states.square().sum(), (patterns, values)))
    for dense, sparse in zip(*grads, strict=True):
        assert sparse.is_sparse
        assert sparse.is_coalesced()
        assert 0 < sparse._nnz() <= info.support_size.sum()
        torch.testing.assert_close(sparse.to_dense(), dense, rtol=0, atol=0)
    for kind in (torch.optim.SparseAdam, torch.optim.SGD):
        before, trained = patterns.detach(), torch.nn.Parameter(patterns.detach().clone())
        retrieve(queries, trained, 4.0, sparse_grad=True).square().sum().backward()
        rows = trained.grad.coalesce().indices()[0]
        kind([trained], lr=0.1).step()
        assert (trained != before).any(1).nonzero()[:, 0].tolist() == rows.tolist()
    with pytest.raises(ValueError, match=r"^sparse_grad: this separation gives weight to all"):
        retrieve(queries, patterns, separation="softmax", sparse_grad=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_results_and_gradients_are_of_the_tensors_dtype(dtype):
    patterns = drawn(9, 4).detach().to(dtype).requires_grad_()
    queries = (patterns.detach()[:3] + 0.1).to(dtype).requires_grad_()
    states = retrieve(queries, patterns, 30.0, similarity="euclidean")
    assert states.dtype == dtype
    assert torch.equal(states, patterns[:3])
    states.sum().backward()
    assert torch.equal(patterns.grad, torch.tensor([1.0] * 3 + [0.0] * 6, dtype=dtype)[:, None].expand(9, 4))
    assert patterns.grad.dtype == dtype
    assert torch.equal(queries.grad, torch.zeros_like(queries))


def test_float32_gradients_are_near_those_of_float64():
    found = []
    for dtype in (torch.float32, torch.float64):
        patterns = drawn(30, 8).detach().to(dtype).requires_grad_()
        retrieve(patterns.detach()[:9] * 0.9, patterns, 0.3, similarity="euclidean").square().sum().backward()
        found.append(patterns.grad)
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-4, atol=1e-4)


def test_shapes():
    patterns = drawn(4, 3)
    for shape in ((3,), (0, 3), (2, 1, 3), (2, 0, 3)):
        states, info = retrieve(drawn(*shape, grad=False), patterns, 9.0, return_info={"weights", "energy"})
        assert states.shape == shape
        assert info.steps.shape == info.energy.shape == shape[:-1]
        assert info.weights.layout is torch.sparse_csr
        assert info.weights.shape == (int(np.prod(shape[:-1])), 4)
        (grad,) = torch.autograd.grad(states.sum(), patterns)
        assert grad.shape == (4, 3)
    strided = drawn(6, 8)
    states = retrieve(strided[:2, ::2].T, strided[::2, :4].mT[:, :2], 9.0)  # neither queries nor patterns contiguous
    assert torch.autograd.grad(states.sum(), strided)[0].shape == (6, 8)
    expanded = drawn(1, 3).expand(5, 3)
    retrieve(torch.eye(3, dtype=torch.float64), expanded, 9.0).sum().backward()


def test_without_gradients_nothing_is_kept():
    patterns = drawn(4, 3)
    with torch.no_grad():
        assert not retrieve(torch.eye(3), patterns).requires_grad
    with torch.inference_mode():
        assert retrieve(torch.eye(3), patterns).is_inference()
    made = retrieve(torch.eye(3), patterns.detach(), separation=sh.Polynomial(4))  # which has none
    assert not made.requires_grad
    expected = sh.retrieve(np.eye(3, dtype=np.float32), patterns.detach().numpy())
    np.testing.assert_array_equal(retrieve(torch.eye(3), patterns).detach(), expected.astype(np.float32))


def test_nothing_is_left_behind():
    patterns = drawn(50, 3)
    states = retrieve(drawn(5, 3), patterns)
    node = weakref.ref(states.grad_fn)
    states.sum().backward()
    del states
    gc.collect()
    assert node() is None


def test_queries_that_move():
    """They have no gradient, and need none where they are left out of the loss."""
    queries, patterns = drawn(30, 4), drawn(9, 4, seed=1)
    with pytest.warns(RetrievalWarning, match=r"of 30 queries still moved") as warned:
        states, info = retrieve(queries, patterns, 1.0, max_steps=2, return_info=True)
    assert warned[0].filename == __file__  # the line that asked, whatever lies between
    assert info.converged.any()
    assert not info.converged.all()
    states[info.converged].sum().backward(retain_graph=True)
    with pytest.raises(ArithmeticError, match=r"^max_steps: query \d+ is not at rest"):
        states.sum().backward()


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15"])
def test_unstable_fixed_points(separation):
    """Half way between two patterns a query rests on a ridge, whose place moves without bound as beta does."""
    patterns = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    middle = torch.zeros(2, dtype=torch.float64)
    states = retrieve(middle, patterns, 0.25, separation=separation)
    assert torch.equal(states, middle)
    states.sum().backward()  # stable at a small beta
    states = retrieve(middle, patterns, 3.0, separation=separation)
    assert torch.equal(states, middle)
    with pytest.raises(ArithmeticError, match=r"^queries: query 0 rests at a fixed point that is not stable"):
        states.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"separation": sh.Polynomial(3)}, ValueError, "separation: Polynomial has no energy"),
        (
            {"separation": "softmax", "structure": LinearFeatures()},
            ValueError,
            "structure: LinearFeatures has",
        ),
        ({"queries": np.eye(3)}, TypeError, "queries: must be a tensor, got ndarray"),
        ({"patterns": [[1.0]]}, TypeError, "patterns: must be a tensor, got list"),
        ({"values": np.eye(3)}, TypeError, "values: must be a tensor, got ndarray"),
        ({"values": torch.eye(2)}, ValueError, "values: needs one row per pattern"),
        ({"queries": torch.eye(2)}, ValueError, "queries: the last axis must have"),
        ({"queries": torch.eye(3, dtype=torch.complex64)}, TypeError, "queries: must be real"),
        ({"queries": torch.eye(3, device="meta")}, TypeError, "queries: cannot be brought to the CPU"),
        ({"queries": torch.full((3,), torch.nan)}, ValueError, "queries: "),
        ({"patterns": torch.zeros(0, 3)}, ValueError, "patterns: needs at least one row"),
        ({"patterns": torch.full((3, 3), torch.inf)}, ValueError, "patterns: "),
        ({"beta": 0}, ValueError, "beta: must be positive"),
        ({"beta": "high"}, TypeError, "beta: "),
        ({"beta": torch.tensor([1.0, 2.0])}, ValueError, "beta: shape "),
        ({"beta": torch.tensor(-1.0, requires_grad=True)}, ValueError, "beta: must be positive"),
        ({"max_steps": -1}, ValueError, "max_steps: "),
        ({"similarity": "cos"}, ValueError, "similarity: unknown"),
        ({"separation": "max"}, ValueError, "separation: unknown"),
        ({"sparse_grad": np.eye(2)}, TypeError, "sparse_grad: must be True or False"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_bad_arguments_are_named(arguments, error, message):
    given = {"queries": torch.eye(3), "patterns": drawn(3, 3)} | arguments
    with pytest.raises(error, match=f"^{message}"):
        retrieve(**given)


def test_changes_in_place():
    """The patterns' numbers are those of the backward pass; queries and results may change."""
    queries, patterns = drawn(3, 4, grad=False), drawn(5, 4)
    states = retrieve(queries, patterns)
    queries.zero_()
    states = states.clone()
    states.detach().zero_()
    states.sum().backward()
    states = retrieve(drawn(3, 4), patterns)
    expected = torch.autograd.grad(states.sum(), patterns, retain_graph=True)[0]
    states.data.zero_()
    assert torch.equal(torch.autograd.grad(states.sum(), patterns, retain_graph=True)[0], expected)
    with torch.no_grad():
        patterns.mul_(2)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation"):
        states.sum().backward()


def test_second_derivatives_are_refused():
    """Also where another path leads to the patterns, along which autograd alone would go."""
    patterns = drawn(5, 4)
    loss = retrieve(drawn(3, 4), patterns).pow(3).sum() + patterns.pow(4).sum()
    (grad,) = torch.autograd.grad(loss, patterns, create_graph=True)
    with pytest.raises(RuntimeError, match=r"^patterns: the gradient of retrieve at a fixed point has no gradient"):
        grad.sum().backward()


def test_functional_transforms():
    queries, patterns = drawn(3, 4, grad=False), drawn(5, 4)
    expected = torch.autograd.grad(retrieve(queries, patterns).pow(2).sum(), patterns)[0]
    found = torch.func.grad(lambda rows: retrieve(queries, rows).pow(2).sum())(patterns.detach())
    torch.testing.assert_close(found, expected)
    with pytest.raises(NotImplementedError, match=r"^queries: retrieve has no vmap; queries may have any leading axes"):
        torch.func.vmap(retrieve, (0, None))(queries, patterns)
    with pytest.raises(NotImplementedError, match=r"jvp"):
        torch.func.jvp(lambda rows: retrieve(queries, rows), (patterns.detach(),), (patterns.detach(),))


def test_graph_break_under_compile():
    torch._dynamo.reset()

    def loss(queries, patterns):
        return retrieve(2 * queries, patterns).pow(2).sum()

    queries, patterns = drawn(3, 4, grad=False), drawn(5, 4)
    found = torch.compile(loss, backend="eager")(queries, patterns)
    torch.testing.assert_close(found, loss(queries, patterns))
    expected = torch.autograd.grad(loss(queries, patterns), patterns)
    torch.testing.assert_close(torch.autograd.grad(found, patterns), expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant):
    queries, patterns = drawn(3, 4, grad=False), drawn(5, 4)
    expected = torch.autograd.grad(retrieve(queries, patterns).pow(2).sum(), patterns)[0]
    found = torch.utils.checkpoint.checkpoint(retrieve, queries, patterns, use_reentrant=reentrant)
    found.pow(2).sum().backward()
    torch.testing.assert_close(patterns.grad, expected)


def test_default_device_and_dtype_do_not_matter():
    queries, patterns = drawn(30, 2, grad=False), drawn(9, 2)
    beta = torch.tensor(0.3, requires_grad=True)
    expected = torch.autograd.grad(retrieve(queries, patterns, beta).sum(), (patterns, beta))
    try:
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float16)
        found = [
            torch.autograd.grad(retrieve(queries, patterns, beta, sparse_grad=sparse).sum(), (patterns, beta))
            for sparse in (False, True)
        ]
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for rows, of_beta in found:
        torch.testing.assert_close(rows.to_dense(), expected[0])
        torch.testing.assert_close(of_beta, expected[1])
