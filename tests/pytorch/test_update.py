"""One step of retrieval, and the energy, on tensors: the numbers of arrays, gradients of all tensors, other routes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

import sparsehopfield as sh  # noqa: E402
from sparsehopfield.structures import LinearFeatures, TopK, Window  # noqa: E402
from sparsehopfield.torch import energy, update  # noqa: E402

MAPS = ("sparsemax", "softmax", "entmax15", sh.Entmax(1.3), "normmax2", sh.Polynomial(3))


def drawn(*shape, seed=0, dtype=torch.float64):
    """Return a tensor of normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


QUERIES, PATTERNS, VALUES = drawn(2, 3, 4), drawn(6, 4, seed=1), drawn(6, 2, seed=2)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Leave torch one thread: tensors here are small, and others run tests at the same time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("backend", [None, "torch"])
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("separation", MAPS, ids=str)
def test_numbers_are_those_of_arrays(separation, similarity, backend):
    for values in (None, VALUES):
        for beta in (torch.tensor(1.5), torch.tensor([0.5, 1.0, 2.0]), torch.tensor([[3.0], [1.0]])):
            options = {"similarity": similarity, "separation": separation}
            found = update(QUERIES, PATTERNS, beta, values=values, backend=backend, **options)
            arrays = QUERIES.numpy(), PATTERNS.numpy(), beta.numpy()
            expected = sh.update(*arrays, values=None if values is None else values.numpy(), **options)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15"])
def test_gradients(separation, similarity):
    for values in (None, VALUES):
        for beta in (torch.tensor(0.7), torch.tensor([0.5, 1.0, 2.0])):

            def states(queries, patterns, beta, values):
                return update(queries, patterns, beta, values=values, similarity=similarity, separation=separation)

            tensors = QUERIES, PATTERNS, beta, values
            given = [None if t is None else t.double().clone().requires_grad_() for t in tensors]
            assert torch.autograd.gradcheck(states, given, fast_mode=True)
            assert torch.autograd.gradgradcheck(states, given, fast_mode=True)


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("separation", MAPS[:-1], ids=str)
def test_energies(separation, similarity):
    """The numbers are those of arrays; first and second derivatives those of differences."""
    options = {"similarity": similarity, "separation": separation}
    for beta in (torch.tensor(1.5), torch.tensor([0.5, 1.0, 2.0]), torch.tensor([[3.0], [1.0]])):
        found = energy(QUERIES, PATTERNS, beta, **options)
        expected = sh.energy(QUERIES.numpy(), PATTERNS.numpy(), beta.numpy(), **options)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)
        given = [t.double().clone().requires_grad_() for t in (QUERIES, PATTERNS, beta)]
        assert torch.autograd.gradcheck(lambda *t: energy(*t, **options), given, fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda *t: energy(*t, **options), given, fast_mode=True)
        for one in range(3):  # which has a gradient alone
            alone = [t.detach().requires_grad_(i == one) for i, t in enumerate(given)]
            assert torch.autograd.gradcheck(lambda *t: energy(*t, **options), alone, fast_mode=True)


def test_the_gradient_of_the_energy_is_the_step():
    queries = QUERIES.clone().requires_grad_()
    options = {"similarity": "euclidean", "structure": TopK(2)}
    energy(queries, PATTERNS, 0.7, **options).sum().backward()
    torch.testing.assert_close(queries.grad, queries - update(queries, PATTERNS, 0.7, **options))
    compiled = torch.compile(lambda x: 2 * energy(x, PATTERNS), backend="eager")
    torch.testing.assert_close(compiled(QUERIES), 2 * energy(QUERIES, PATTERNS))
    assert energy(QUERIES.float(), PATTERNS.bfloat16()).dtype is torch.float32
    assert energy(QUERIES[0, 0], PATTERNS).shape == ()
    with torch.no_grad():
        assert not energy(queries, PATTERNS).requires_grad


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"separation": sh.Polynomial(2)}, ValueError, "separation: Polynomial has no energy"),
        ({"structure": LinearFeatures(), "separation": "softmax"}, ValueError, "structure: "),
        ({"beta": torch.ones(3)}, ValueError, "beta: shape"),
        ({"beta": torch.tensor(0.0)}, ValueError, "queries: "),
        ({"beta": 0.0}, ValueError, "beta: "),
        ({"patterns": torch.full((4, 4), torch.nan)}, ValueError, "patterns: "),
        ({"queries": np.eye(4)}, TypeError, "queries: must be a tensor"),
    ],
)
def test_bad_arguments_of_energies_are_named(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        energy(**{"queries": torch.eye(4), "patterns": torch.eye(4)} | arguments)


def test_half_precision_is_widened_first():
    """Results differ from those of float32 by the rounding of what goes in and out alone."""
    for dtype in (torch.float16, torch.bfloat16):
        queries, patterns = (3 + t.float() for t in (QUERIES, PATTERNS))
        narrow = queries.to(dtype), patterns.to(dtype)
        for similarity in ("dot", "euclidean", "cosine"):
            for function in (update, energy):
                found = function(*narrow, 2.0, similarity=similarity)
                expected = function(*(t.float() for t in narrow), 2.0, similarity=similarity)
                assert torch.equal(found, expected.to(dtype))


@pytest.mark.parametrize("structure", [TopK(2), Window(1, positions=np.arange(3)), LinearFeatures()], ids=str)
def test_structures(structure):
    separation = "softmax" if isinstance(structure, LinearFeatures) else "sparsemax"
    for similarity in ("dot", "cosine"):
        options = {"similarity": similarity, "structure": structure, "separation": separation}
        found = update(QUERIES[0], PATTERNS, 0.5, **options)
        expected = sh.update(QUERIES[0].numpy(), PATTERNS.numpy(), 0.5, **options)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_far_from_the_origin():
    """A shift of all rows changes no euclidean score, though their squares are beyond float32's precision."""
    queries, patterns = drawn(5, 4, dtype=torch.float32), drawn(6, 4, seed=1, dtype=torch.float32)
    shift = 1024.0  # so small a step of float32 there, 2^-13, that rows are rounded to it first
    queries, patterns = (torch.round(rows * 2**12) / 2**12 for rows in (queries, patterns))
    found = update(queries + shift, patterns + shift, 2.0, similarity="euclidean") - shift
    expected = update(queries, patterns, 2.0, similarity="euclidean")
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 0, 4), (1, 1, 1, 4)])
def test_shapes(shape):
    queries = torch.ones(shape, dtype=torch.bfloat16, requires_grad=True)
    states = update(queries, PATTERNS, values=VALUES)
    assert states.shape == (*shape[:-1], 2)
    assert states.dtype is torch.bfloat16
    states.sum().backward()
    assert queries.grad.shape == shape


def test_transforms_and_devices():
    expected = update(QUERIES, PATTERNS, 0.5, similarity="euclidean")
    found = torch.func.vmap(lambda x: update(x, PATTERNS, 0.5, similarity="euclidean"))(QUERIES)
    torch.testing.assert_close(found, expected)
    jacobian = torch.func.jacrev(lambda x: update(x, PATTERNS, 0.5))(QUERIES[0, 0])
    assert jacobian.shape == (4, 4)
    torch.testing.assert_close(jacobian, jacobian.T)  # of a map with an energy
    assert update(QUERIES.to("meta"), PATTERNS.to("meta"), similarity="cosine").shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"queries": np.eye(4)}, TypeError, "queries: must be a tensor, got ndarray"),
        ({"queries": torch.eye(4, dtype=torch.int64)}, TypeError, "queries: must be of floating numbers"),
        ({"queries": torch.eye(3)}, ValueError, "queries: the last axis must have the patterns' 4"),
        ({"queries": torch.tensor(1.0)}, ValueError, "queries: the last axis must have the patterns' 4"),
        ({"patterns": torch.eye(4)[0]}, ValueError, "patterns: must be two-dimensional"),
        ({"patterns": torch.zeros(0, 4)}, ValueError, "patterns: must be two-dimensional"),
        ({"values": torch.eye(3)}, ValueError, "values: needs one row per pattern"),
        ({"beta": torch.ones(5)}, ValueError, "beta: shape"),
        ({"beta": torch.tensor([1.0, -1.0, 1.0, 1.0])}, ValueError, "queries: "),
        ({"beta": -1.0}, ValueError, "beta: "),
        ({"beta": torch.tensor(0.0)}, ValueError, "beta: "),
        ({"patterns": torch.full((4, 4), torch.nan)}, ValueError, "patterns: "),
        ({"queries": torch.full((4,), torch.inf)}, ValueError, "queries: "),
        ({"similarity": "cos"}, ValueError, "similarity: unknown name"),
        ({"separation": "max"}, ValueError, "separation: unknown name"),
        ({"structure": 3}, TypeError, "structure: "),
        ({"structure": LinearFeatures(), "similarity": "euclidean"}, ValueError, "structure: LinearFeatures is for"),
        ({"backend": "cuda"}, ValueError, "backend: unknown name"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        update(**{"queries": torch.eye(4), "patterns": torch.eye(4)} | arguments)
