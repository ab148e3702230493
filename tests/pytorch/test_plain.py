"""The association in plain torch: against the reference over random arguments, and under all that torch does to it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the extra torch")

from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

from sparsehopfield import Entmax, Normmax, Polynomial, reference, structures  # noqa: E402
from sparsehopfield._engine.association import (  # noqa: E402
    Projection,
    associate_backward,
    associate_forward,
    association_weights,
)
from sparsehopfield._engine.separations import separation_code  # noqa: E402
from sparsehopfield.structures import (  # noqa: E402
    BlockSparse,
    DilatedBlocks,
    LinearFeatures,
    RandomFeatures,
    RandomMask,
    TopK,
    Window,
)
from sparsehopfield.torch import _maps, _plain, associate  # noqa: E402
from sparsehopfield.torch._arguments import Options, Tensors, structure_text  # noqa: E402

MAPS = ["softmax", "sparsemax", "entmax15", Entmax(1.3), Entmax(2.5), Normmax(1.5), Normmax(3.0), Polynomial(2)]
OPTIONS = {"update_steps_max": 0, "update_steps_eps": 1e-4, "dropout": 0.0, "seed": 0, "gradient": "unrolled"}


def as_tensor(a, graded=False):
    """An array as a tensor, None as None."""
    if a is None or isinstance(a, torch.Tensor):
        return a
    t = torch.from_numpy(np.array(a))
    return t.requires_grad_() if graded else t


def as_arguments(queries, stored, values, beta, *, separation="sparsemax", structure=None, appended=0, **given):
    """The arguments of the reference as those of plain torch, with gradients."""
    given = {**OPTIONS, **given}
    key, value = (given.pop(name, None) or (None, None) for name in ("key_projection", "value_projection"))
    graded = [as_tensor(a, True) for a in (queries, stored, values, beta, *key, *value)]
    others = [as_tensor(given.pop(name, None)) for name in ("padding_mask", "mask", "offsets")]
    seed, steps = given.pop("seed"), given.pop("update_steps_max")
    seed = torch.tensor([seed]) if given["dropout"] else None
    return Tensors(*graded, *others, seed), Options(
        *separation_code(separation),
        -1 if steps is None else steps,
        given.pop("update_steps_eps"),
        given.pop("dropout"),
        given.pop("gradient") == "implicit",
        structure_text(structure),
        appended,
    )


def gradients_of(tensors, out, grad):
    """The gradients of sum(grad * out) by the tensors, None where there are none."""
    graded = [t for t in tensors[:8] if t is not None]
    found = torch.autograd.grad(out, graded, as_tensor(grad), allow_unused=True)
    return [np.zeros(t.shape) if d is None else d.numpy() for t, d in zip(graded, found, strict=True)]


def flat(gradients, beta):
    """The gradients of the reference or the core in the order of the tensors."""
    queries, stored, values, by_beta, *projections = gradients
    by_beta = np.sum(by_beta) if np.ndim(beta) == 0 else by_beta
    return [queries, stored, values, by_beta, *(a for p in projections if p is not None for a in p)]


def assert_near(got, want, tolerance):
    """Arrays differ by at most so much of their largest number, or of 1."""
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max(initial=0)), rtol=0)


def drawn_structure(rng, queries, own, ragged, causal):
    """A structure of pairs for so many queries and rows, or None."""
    positions = rng.integers(0, max(own, 1), queries)
    kind = rng.integers(8)
    if kind == 0:
        return TopK(int(rng.integers(1, 7)))
    if kind == 1:
        columns = [0] if rng.random() < 0.4 else ()
        return Window(int(rng.integers(3)), dilation=2, causal=causal, positions=positions, global_positions=columns)
    if kind == 2:
        return DilatedBlocks(int(rng.integers(1, 4)), int(rng.integers(1, 3)), causal=causal, positions=positions)
    if kind == 3:
        return RandomMask(int(rng.integers(1, 7)), int(rng.integers(100)), block=int(rng.integers(1, 3)))
    if kind == 4 and own and not ragged:
        return BlockSparse(rng.random((queries, own)) < 0.5, 1)
    return None


def drawn_case(rng):
    """The arguments of an association of pairs."""

    def chance(p):
        return rng.random() < p

    B, N, H, M, d, v, e = (int(rng.integers(1, most)) for most in (4, 6, 4, 8, 5, 5, 5))
    ragged, shared = chance(0.3), chance(0.3)
    separation = MAPS[rng.integers(len(MAPS))]
    steps = [0, 0, 1, 3, None][rng.integers(5)]
    polynomial = isinstance(separation, Polynomial)
    steps = 2 if polynomial and steps is None else steps  # which need not come to rest
    implicit = chance(0.2) and not polynomial
    keys, by_values = chance(0.2) and not (implicit or polynomial or steps is None), chance(0.2)
    M = 0 if chance(0.05) else M
    sizes = rng.integers(0, 6, B)
    M = int(sizes.max()) if ragged else M
    appended = int(rng.integers(0, min(sizes.min() if ragged else M, 2) + 1)) if chance(0.3) else 0
    heads = [1, H][rng.integers(2)]
    key_heads = value_heads = 1 if keys or by_values else heads
    lead = (int(sizes.sum()),) if ragged else (M,) if shared else (B, M)
    structure = drawn_structure(rng, N, M - appended, ragged, chance(0.4))
    options = {
        "separation": separation,
        "update_steps_max": steps,
        "update_steps_eps": 1e-10 if implicit else 1e-3,
        "gradient": "implicit" if implicit else "unrolled",
        "dropout": 0.3 if chance(0.3) else 0.0,
        "seed": int(rng.integers(2**62)),
        "structure": structure,
        "appended": appended,
    }
    if ragged:
        options["offsets"] = np.concatenate([[0], np.cumsum(sizes)])
    elif chance(0.3):
        options["padding_mask"] = rng.random((B, M)) < 0.3
    kind = rng.integers(6)
    if kind in (0, 1):
        options["mask"] = rng.random([(N, M), (B, N, M)][kind]) < 0.3
    elif kind in (2, 3):
        shape = [(N, M), (B, H, N, M)][kind - 2]
        options["mask"] = np.where(rng.random(shape) < 0.2, -np.inf, rng.standard_normal(shape))
    if keys:
        options["key_projection"] = Projection(rng.standard_normal((H, d, e)), rng.standard_normal((H, d)))
    if by_values:
        options["value_projection"] = Projection(rng.standard_normal((H, v, e)), rng.standard_normal((H, v)))
    arrays = (
        rng.standard_normal((N, H, d) if chance(0.2) and not shared else (B, N, H, d)),
        rng.standard_normal((*lead, key_heads, e if keys else d)),
        rng.standard_normal((*lead, value_heads, e if by_values else v)),
        rng.uniform(0.3, 2, H) if chance(0.5) else np.array(rng.uniform(0.3, 2)),
    )
    return arrays, options


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_results_and_gradients_are_those_of_the_reference(seed):
    rng = np.random.default_rng(seed)
    arrays, options = drawn_case(rng)
    tensors, torch_options = as_arguments(*arrays, **options)
    want, saved = reference.associate_forward(*arrays, **options)
    out = _plain.associate(tensors, torch_options)
    by_core, saved_by_core = associate_forward(*arrays, **options)
    assert out.shape == by_core.shape == want.shape
    # by rounding, a query at its fixed point may come to rest (at 1e-10) an update earlier or later
    tolerance = 1e-6 if options["gradient"] == "implicit" else 1e-9
    assert_near([out.detach().numpy(), by_core], [want, want], tolerance)
    grad = rng.standard_normal(want.shape)
    backward = (
        lambda: gradients_of(tensors, out, grad),
        lambda: flat(associate_backward(saved_by_core, grad), arrays[3]),
    )
    try:
        gradients = reference.associate_backward(saved, grad)
    except np.linalg.LinAlgError:  # the updates of a query ended where no stable fixed point is
        for gradients_by_route in backward:
            with pytest.raises(ArithmeticError, match="gradient"):
                gradients_by_route()
        return
    by_queries = gradients[0].sum(0) if tensors.queries.dim() == 3 else gradients[0]
    for gradients_by_route in backward:
        assert_near(gradients_by_route(), flat((by_queries, *gradients[1:]), arrays[3]), 10 * tolerance)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("features", [LinearFeatures, lambda **k: LinearFeatures("relu", **k), RandomFeatures])
@pytest.mark.parametrize("form", ["all", "padding", "ragged"])
def test_features_are_those_of_the_core(features, causal, form):
    rng = np.random.default_rng(5)
    structure = features(8, seed=3, causal=causal) if features is RandomFeatures else features(causal=causal)
    N, M = (5, 5) if causal else (3, 5)
    arrays = [rng.standard_normal(shape) for shape in ((2, N, 2, 3), (2, M, 2, 3), (2, M, 1, 4))]
    options = {"separation": "softmax", "structure": structure, "update_steps_max": 2}
    if form == "padding":
        options["padding_mask"] = rng.random((2, M)) < 0.3
    elif form == "ragged":
        arrays[1], arrays[2] = rng.standard_normal((8, 2, 3)), rng.standard_normal((8, 1, 4))
        options["offsets"] = np.array([0, 5, 8])
    beta = np.array([0.5, 1.5])
    want, saved = associate_forward(*arrays, beta, **options)
    tensors, torch_options = as_arguments(*arrays, beta, **options)
    out = _plain.associate(tensors, torch_options)
    grad = rng.standard_normal(want.shape)
    assert_near([out.detach().numpy()], [want], 1e-9)
    assert_near(gradients_of(tensors, out, grad), flat(associate_backward(saved, grad), beta), 1e-8)


def arguments(dtype=np.float64, rows=6, beta=(0.7, 1.6), **options):
    """Arguments of a small association, all samples with all rows."""
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in ((2, 4, 2, 3), (2, rows, 2, 3), (2, rows, 1, 4))]
    return as_arguments(*arrays, np.array(beta), **options)


@pytest.mark.parametrize("separation", MAPS)
@pytest.mark.parametrize("steps", [0, 2])
def test_derivatives(separation, steps):
    tensors, options = arguments(rows=3, separation=separation, update_steps_max=steps)
    mask = torch.linspace(-0.5, 0.5, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()

    def by(queries, stored, beta, mask):
        return _plain.associate(tensors._replace(queries=queries, stored=stored, beta=beta, mask=mask), options)

    graded = (tensors.queries[:, :2, :, :2], tensors.stored[..., :2], tensors.beta, mask[:2])
    graded = tuple(t.detach().requires_grad_() for t in graded)
    assert gradcheck(by, graded, fast_mode=True, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(by, graded, fast_mode=True)


@pytest.mark.parametrize("separation", ["softmax", "sparsemax", Entmax(1.3), Entmax(2.5), Normmax(2.0)])
def test_implicit_gradients_are_those_of_unlimited_updates(separation):
    tensors, options = arguments(separation=separation, update_steps_max=None, update_steps_eps=1e-12)
    tensors = tensors._replace(beta=torch.full((2,), 0.2, dtype=torch.float64, requires_grad=True))
    assert options.steps == -1
    out = _plain.associate(tensors, options)
    grad = np.random.default_rng(2).standard_normal(out.shape)
    unrolled = gradients_of(tensors, out, grad)
    options = options._replace(implicit=True)
    implicit = _plain.associate(tensors, options)
    assert_near([implicit.detach().numpy()], [out.detach().numpy()], 1e-12)
    assert_near(gradients_of(tensors, implicit, grad), unrolled, 1e-7)

    def by(stored):
        return _plain.associate(tensors._replace(stored=stored), options._replace(steps=200))

    assert gradcheck(by, (tensors.stored,), fast_mode=True, check_forward_ad=True)
    (first,) = torch.autograd.grad(by(tensors.stored).square().sum(), tensors.stored, create_graph=True)
    with pytest.raises(NotImplementedError, match="implicit"):
        torch.autograd.grad(first.sum(), tensors.stored)


def test_a_fixed_point_that_is_not_isolated_has_no_gradient():
    rows = np.array([[1.0], [-1.0]]).reshape(1, 2, 1, 1)
    tensors, options = as_arguments(
        np.zeros((1, 1, 1, 1)), rows, rows, 1.0, separation="softmax", update_steps_max=2, gradient="implicit"
    )
    out = _plain.associate(tensors, options)
    with pytest.raises(ArithmeticError, match="not isolated"):
        out.sum().backward()


def test_dropout_drops_what_the_core_drops():
    rng = np.random.default_rng(0)
    queries, rows = rng.standard_normal((3, 5, 2, 4)), rng.standard_normal((3, 7, 1, 4))
    eye = np.broadcast_to(np.eye(7)[None, :, None], (3, 7, 1, 7))
    for seed in (0, 3, 2**31 + 7, 2**62 + 5):
        options = {"separation": "softmax", "dropout": 0.37, "seed": seed}
        out, saved = associate_forward(queries, rows, eye, 0.5, **options)
        tensors, torch_options = as_arguments(queries, rows, eye, np.array(0.5), **options)
        got = _plain.associate(tensors, torch_options).detach().numpy()
        np.testing.assert_array_equal(got == 0, out == 0)
        np.testing.assert_allclose(got, out, atol=1e-12)
        assert association_weights(saved).shape == (3, 2, 5, 7)


@pytest.mark.parametrize("appended", [0, 2, 6])
def test_ties_go_to_the_first_rows(appended):
    """The best are chosen among appended rows, too, whatever k."""
    rows = np.ones((1, 6, 1, 1))
    eye = np.eye(6)[None, :, None]
    for k in range(1, 7):
        options = {"separation": "softmax", "structure": TopK(k), "appended": appended}
        tensors, torch_options = as_arguments(np.ones((1, 1, 1, 1)), rows, eye, np.array(1.0), **options)
        got = _plain.associate(tensors, torch_options).detach().numpy()
        np.testing.assert_allclose(got, associate_forward(np.ones((1, 1, 1, 1)), rows, eye, 1.0, **options)[0])
        np.testing.assert_allclose(got.ravel(), [1 / k] * k + [0] * (6 - k))


CASES = {
    "steps": {"separation": "entmax15", "update_steps_max": 2},
    "dropout": {"dropout": 0.3, "seed": 5},
    "padding": {"padding_mask": np.array([[False] * 4 + [True] * 2, [False] * 6])},
    "implicit": {"separation": "softmax", "update_steps_max": 1, "gradient": "implicit", "beta": (0.2, 0.3)},
    "window": {"structure": Window(1, positions=[0, 2, 4, 5])},
    "random": {"structure": RandomMask(2, seed=1)},
    "blocks": {"structure": BlockSparse([[True, False], [True, True]], (2, 3))},
    "top k": {"structure": TopK(3)},
    "features": {"separation": "softmax", "structure": RandomFeatures(5)},
}


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [("dropout", False), ("implicit", False), ("blocks", True), ("top k", False), ("features", False)],
)
def test_compiled_without_a_break(name, dynamic):
    tensors, options = arguments(**CASES[name])
    torch._dynamo.reset()

    @torch.compile(backend="aot_eager", fullgraph=True, dynamic=dynamic)
    def compiled(queries, stored):
        return _plain.associate(Tensors(queries, stored, *tensors[2:]), options)

    grad = np.random.default_rng(3).standard_normal((2, 4, 2, 4))
    out = _plain.associate(tensors, options)
    got = compiled(tensors.queries, tensors.stored)
    assert_near([got.detach().numpy()], [out.detach().numpy()], 1e-9)
    assert_near(gradients_of(tensors, got, grad), gradients_of(tensors, out, grad), 1e-8)


def test_compiled_ragged_bags_need_no_look_at_their_sizes():
    rng = np.random.default_rng(4)
    arrays = [rng.standard_normal(shape) for shape in ((3, 2, 2, 3), (9, 1, 3), (9, 1, 4))]
    for structure in (None, Window(1, positions=[0, 2]), RandomMask(2, seed=3)):
        options = {"offsets": np.array([0, 4, 4, 9]), "structure": structure, "update_steps_max": 1}
        tensors, torch_options = as_arguments(*arrays, np.array(0.8), **options)
        torch._dynamo.reset()
        compiled = torch.compile(lambda t, o=torch_options: _plain.associate(t, o), backend="aot_eager", fullgraph=True)
        want = reference.associate_forward(*arrays, 0.8, **options)[0]
        assert_near([compiled(tensors).detach().numpy()], [want], 1e-9)


@pytest.mark.parametrize("name", [name for name in CASES if name != "dropout"])
def test_transforms_of_torch_func(name):
    tensors, options = arguments(**CASES[name])
    queries = torch.stack([tensors.queries.detach(), tensors.queries.detach() + 0.1])

    def loss(queries):
        return _plain.associate(tensors._replace(queries=queries), options).square().sum()

    got = torch.func.vmap(torch.func.grad(loss))(queries)
    want = torch.stack([torch.autograd.grad(loss(q), q)[0] for q in queries.clone().requires_grad_()])
    torch.testing.assert_close(got, want, atol=1e-8, rtol=0)
    tangent = torch.ones_like(queries[0])
    _, derivative = torch.func.jvp(loss, (queries[0],), (tangent,))
    torch.testing.assert_close(derivative, (want[0] * tangent).sum(), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_are_computed_in_float32_and_given_back(dtype):
    tensors, options = arguments(np.float32, separation="entmax15", update_steps_max=1)
    given = tensors._replace(
        **{name: getattr(tensors, name).detach().to(dtype) for name in ("queries", "stored", "values")}
    )
    out = _plain.associate(given, options)
    assert out.dtype == dtype
    want = _plain.associate(given._replace(queries=given.queries.float()), options)
    torch.testing.assert_close(out, want.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(_plain.associate(given, options), out)


def test_on_meta_and_faked():
    from torch._subclasses.fake_tensor import FakeTensorMode

    for name, case in CASES.items():
        tensors, options = arguments(**case)
        shape = _plain.associate(tensors, options).shape
        on_meta = Tensors(*(None if t is None else t.to("meta") for t in tensors))
        assert _plain.associate(on_meta, options).shape == shape, name
        with FakeTensorMode() as mode:
            faked = Tensors(*(None if t is None else mode.from_tensor(t) for t in tensors))
            assert _plain.associate(faked, options).shape == shape, name


def test_no_samples_no_queries_no_rows():
    for shape, rows in (((0, 4, 2, 3), (0, 5)), ((2, 0, 2, 3), (2, 5)), ((2, 4, 2, 3), (2, 0))):
        for separation in MAPS:
            for steps in (0, 2, None):
                tensors, options = as_arguments(
                    np.ones(shape),
                    np.ones((*rows, 1, 3)),
                    np.ones((*rows, 1, 5)),
                    np.array(1.0),
                    separation=separation,
                    update_steps_max=steps,
                )
                out = _plain.associate(tensors, options)
                assert out.shape == (*shape[:3], 5)
                out.sum().backward()
                assert rows[1] or not out.any()


@pytest.mark.parametrize("form", ["padding", "padding of shared rows", "ragged"])
@pytest.mark.parametrize("structure", [None, Window(2), TopK(3), LinearFeatures()])
def test_a_sample_does_not_depend_on_rows_that_are_none_of_it(form, structure):
    """Whatever lies in padding, or in another bag, NaN included: as in the core, also in the gradients."""
    queries, rows, values = (torch.from_numpy(np.random.default_rng(i).random((2, 4, 1, 3))) for i in range(3))
    padding, offsets = torch.zeros(2, 4, dtype=torch.bool), None
    padding[1, 2:] = True
    bad = rows.clone(), values.clone()
    for clean, spoiled in zip((rows, values), bad, strict=True):
        clean[1, 2:] = 0.5
        spoiled[1, 2:] = torch.nan
    first = slice(0, 2)
    if form == "padding of shared rows":
        padding[0] = padding[1]
        rows, values, bad = rows[1], values[1], (bad[0][1], bad[1][1])
    elif form == "ragged":  # of 4 and 2 rows; the first is spoiled, and the second is filled up
        bad[0][1] = rows[1]
        bad[1][1] = values[1]
        bad[0][0, 0] = bad[1][0, 0] = torch.nan
        rows, values, *bad = (a.flatten(0, 1)[:6] for a in (rows, values, *bad))
        padding, offsets, first = None, torch.tensor([0, 4, 6]), slice(1, 2)
    separation = "softmax" if isinstance(structure, LinearFeatures) else "sparsemax"
    found = []
    for stored, mixed in ((rows, values), bad):
        given = *(a.numpy() for a in (queries, stored, mixed)), np.array([1.5])
        forms = {"padding_mask": padding, "offsets": offsets, "structure": structure}
        tensors, options = as_arguments(*given, separation=separation, update_steps_max=1, **forms)
        out = _plain.associate(tensors, options)[first]
        gradients = torch.autograd.grad(out.square().sum(), tensors[:3])
        found.append((out, gradients[0][first], *(d if offsets is None else d[4:] for d in gradients[1:])))
    for clean, spoiled in zip(*found, strict=True):
        assert not clean.isnan().any()
        torch.testing.assert_close(clean, spoiled, rtol=0, atol=0)


def test_queries_that_see_nothing_get_zeros_and_no_gradient():
    for separation in MAPS:
        tensors, options = arguments(separation=separation, update_steps_max=2)
        hidden = torch.zeros(4, 6, dtype=torch.bool)
        hidden[1] = True
        out = _plain.associate(tensors._replace(mask=hidden), options)
        assert not out[:, 1].any()
        out.sum().backward()
        assert not tensors.queries.grad[:, 1].any()
        assert tensors.queries.grad.isfinite().all()


def test_a_learned_mask_has_a_gradient():
    tensors, options = arguments()
    mask = torch.zeros(4, 6, dtype=torch.float64)
    mask[0, 2] = -torch.inf
    mask.requires_grad_()
    _plain.associate(tensors._replace(mask=mask), options).square().sum().backward()
    assert mask.grad.isfinite().all()
    assert mask.grad.any()
    assert mask.grad[0, 2] == 0


def test_what_cannot_be_is_refused():
    tensors, options = arguments(separation="softmax", structure=RandomFeatures(4), dropout=0.3, seed=1)
    with pytest.raises(ValueError, match="dropout: not with RandomFeatures"):
        _plain.associate(tensors, options)
    tensors, options = arguments(separation="softmax", structure=LinearFeatures(causal=True))
    with pytest.raises(ValueError, match="queries: causal features need as many"):
        _plain.associate(tensors, options)
    tensors, options = arguments(structure=BlockSparse([[True]], (3, 3)))
    with pytest.raises(ValueError, match="mask: is for 3 queries and 3 patterns"):
        _plain.associate(tensors, options)
    tensors, options = arguments(update_steps_max=None)
    with pytest.raises(NotImplementedError, match="update_steps_max: unlimited"):
        torch.func.vmap(lambda q: _plain.associate(tensors._replace(queries=q), options))(
            tensors.queries[None].detach()
        )


def test_a_mask_has_a_column_for_each_row_of_the_largest_bag():
    rows, offsets = torch.ones(5, 1, 3), torch.tensor([0, 3, 5])
    for columns in (2, 4):
        mask = torch.zeros(2, columns, dtype=torch.bool)
        for backend in ("core", "torch"):
            with pytest.raises(ValueError, match=r"mask: must have a column for each of 3 rows"):
                associate(torch.ones(2, 2, 1, 3), rows, rows, 1.0, mask=mask, offsets=offsets, backend=backend)


def test_every_structure_has_its_way():
    named = {*structures._NAMES} - {"TopK", "LinearFeatures", "RandomFeatures"}
    assert named == {"BlockSparse", "DilatedBlocks", "RandomMask", "Window"}


def test_unlimited_updates_wait_seldom_for_a_device(monkeypatch):
    waits = []
    monkeypatch.setattr(_maps, "can_look", lambda t: False)
    monkeypatch.setattr(_maps, "can_read", lambda t: waits.append(t) or True)
    tensors, options = arguments(separation="softmax", update_steps_max=None, update_steps_eps=1e-9)
    reads = []
    real = _plain._is_time_to_wait
    monkeypatch.setattr(_plain, "_is_time_to_wait", lambda i, m: reads.append(real(i, m)) or reads[-1])
    out = _plain.associate(tensors, options)
    assert len(reads) % _plain.UPDATES_BETWEEN_LOOKS == 0
    assert sum(reads) == len(reads) // _plain.UPDATES_BETWEEN_LOOKS
    monkeypatch.undo()
    torch.testing.assert_close(out, _plain.associate(tensors, options), atol=1e-8, rtol=0)
