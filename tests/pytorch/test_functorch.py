"""The transforms of torch.func: the core where it can, and the same as plain torch under them all."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from association_cases import B, D, H, M, N, V, no_living_tape, passes  # noqa: E402, F401
from torch import func  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

import sparsehopfield.torch as sht  # noqa: E402
from sparsehopfield.torch import associate, hopfield_attention  # noqa: E402
from sparsehopfield.torch._backend import EAGER, PLAIN, TRANSFORMED, route_of  # noqa: E402


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hidden(*shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3
    mask[..., 0] = False
    return mask


Q, K, VALUES = rows(B, N, H, D), rows(B, M, H, D, seed=1), rows(B, M, H, V, seed=2)
BETA = torch.tensor([0.7, 1.3], dtype=torch.float64)
TANGENT = rows(B, N, H, D, seed=3)


def squares(f, **options):
    return lambda *given: f(*given, **options).square().sum()


def dual(f):
    with forward_ad.dual_level():
        out = f(forward_ad.make_dual(Q, TANGENT), K, VALUES, BETA)
        return tuple(forward_ad.unpack_dual(out))


def vjp(f):
    out, pull_back = func.vjp(lambda q, k: f(q, k, VALUES, BETA), Q, K)
    return pull_back(torch.ones_like(out))


def per_sample(f, shared=False):
    if shared:
        gradient = func.grad(lambda q, *rest: f(q[None], *rest).square().sum(), argnums=(0, 1, 2, 3))
        return func.vmap(gradient, in_dims=(0, None, None, None))(Q, K[0], VALUES[0], BETA)
    gradient = func.grad(lambda q, k, v: f(q[None], k[None], v[None], BETA).square().sum(), argnums=(0, 1, 2))
    return func.vmap(gradient)(Q, K, VALUES)


def masked(f, *shape):
    masks = hidden(3, *shape)
    return func.vmap(lambda q, mask: f(q, K, VALUES, BETA, mask=mask))(torch.stack([Q, 2 * Q, -Q]), masks)


def loss_of_mask(f):
    return func.grad(lambda mask: f(Q, K, VALUES, BETA, mask=mask).square().sum())(rows(N, M, seed=5))


def of_two(f, **options):
    return func.vmap(lambda q: f(q, K, VALUES, BETA, **options))(torch.stack([Q, 2 * Q]))


def twice(f):
    def first(q):
        return func.grad(lambda q: f(q[None], K[:1], VALUES[:1], BETA).square().sum())(q).square().sum()

    return func.vmap(func.grad(first))(Q)


ALL = (0, 1, 2, 3)
CASES = {
    "grad": lambda f: func.grad(squares(f), argnums=ALL)(Q, K, VALUES, BETA),
    "grad of two steps": lambda f: func.grad(squares(f, update_steps_max=2), argnums=ALL)(Q, K, VALUES, BETA),
    "grad and value": lambda f: func.grad_and_value(squares(f))(Q, K, VALUES, BETA),
    "vjp": vjp,
    "vmap": lambda f: func.vmap(lambda q, k, v: f(q[None], k[None], v[None], BETA))(Q, K, VALUES),
    "vmap of queries": lambda f: func.vmap(lambda q: f(q, K, VALUES, BETA), in_dims=1)(torch.stack([Q, 2 * Q], 1)),
    "vmap of queries of shared rows": lambda f: func.vmap(lambda q: f(q, K[0], VALUES[0], BETA))(Q),
    "vmap of rows of shared queries": lambda f: func.vmap(lambda k: f(Q[0], k, k, BETA))(torch.stack([K, 2 * K])),
    "vmap of shared rows": lambda f: func.vmap(lambda k: f(Q[0], k, k, BETA))(K),
    "vmap of beta": lambda f: func.vmap(lambda beta: f(Q, K, VALUES, beta))(torch.stack([BETA, 2 * BETA])),
    "vmap of padding": lambda f: func.vmap(lambda p: f(Q, K, VALUES, BETA, padding_mask=p))(hidden(3, B, M)),
    "vmap of ragged bags": lambda f: func.vmap(
        lambda q: f(q, K.flatten(0, 1), VALUES.flatten(0, 1), BETA, offsets=torch.tensor([0, 4, B * M]))
    )(torch.stack([Q, 2 * Q])),
    "vmap of masks (N, M)": lambda f: masked(f, N, M),
    "vmap of masks (B, N, M)": lambda f: masked(f, B, N, M),
    "vmap of masks (B, H, N, M)": lambda f: masked(f, B, H, N, M),
    "vmap over vmap": lambda f: func.vmap(func.vmap(lambda q: f(q[None], K[0], VALUES[0], BETA)))(torch.stack([Q, -Q])),
    "vmap with a mask": lambda f: of_two(f, mask=hidden(N, M)),
    "vmap with dropout": lambda f: of_two(f, dropout=0.4, seed=5),
    "gradients of each sample": per_sample,
    "gradients of each sample by shared rows": lambda f: per_sample(f, shared=True),
    "jacrev": lambda f: func.jacrev(f, argnums=ALL)(Q, K, VALUES, BETA),
    "jacrev in chunks": lambda f: func.jacrev(f, argnums=(0, 3), chunk_size=7)(Q, K, VALUES, BETA),
    "jacfwd": lambda f: func.jacfwd(f, argnums=(0, 3))(Q, K, VALUES, BETA),
    "hessian": lambda f: func.hessian(squares(f), argnums=(0, 3))(Q, K, VALUES, BETA),
    "jacrev of jacrev": lambda f: func.jacrev(func.jacrev(squares(f), argnums=3), argnums=(0, 3))(Q, K, VALUES, BETA),
    "jvp": lambda f: func.jvp(lambda q, beta: f(q, K, VALUES, beta), (Q, BETA), (TANGENT, torch.ones_like(BETA))),
    "jvp of grad": lambda f: func.jvp(func.grad(lambda q: squares(f)(q, K, VALUES, BETA)), (Q,), (TANGENT,)),
    "grad of grad under vmap": twice,
    "dual numbers": dual,
    "grad by a mask": loss_of_mask,
    "grad with dropout": lambda f: func.grad(squares(f, dropout=0.4, seed=5), argnums=ALL)(Q, K, VALUES, BETA),
    "grad with padding": lambda f: func.grad(squares(f, padding_mask=hidden(B, M)), argnums=ALL)(Q, K, VALUES, BETA),
}


@pytest.mark.parametrize("case", CASES)
def test_transforms_give_what_they_give_of_plain_torch(case):
    found = pytree.tree_leaves(CASES[case](associate))
    expected = pytree.tree_leaves(CASES[case](lambda *given, **options: associate(*given, **options, backend="torch")))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_grad_and_vmap_are_the_cores(passes):  # noqa: F811
    """One pass for all samples, whose tape the backward pass finds."""
    per_sample(associate)
    assert [passes[name] for name in ("forward", "backward", "forward again")] == [1, 1, 0]


def test_rows_of_a_jacobian_share_a_tape(passes):  # noqa: F811
    func.jacrev(lambda q: associate(q, K, VALUES, BETA))(Q)
    assert passes["forward"] == 1
    assert passes["backward"] == B * N * H * V


def test_attention_of_each_sample():
    def loss(q, k, v, backend=None):
        return hopfield_attention(q, k, v, backend=backend).square().sum()

    given = [t.transpose(1, 2) for t in (Q, K, VALUES)]
    found = func.vmap(func.grad(loss, argnums=(0, 1, 2)))(*given)
    expected = torch.autograd.grad(loss(*[t.requires_grad_() for t in given], backend="torch"), given)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_forward_mode_is_not_silently_zero():
    """As it is for operators: it goes to plain torch."""
    _, tangent = func.jvp(lambda q: associate(q, K, VALUES, BETA), (Q,), (TANGENT,))
    step = 1e-6
    difference = associate(Q + step * TANGENT, K, VALUES, BETA) - associate(Q - step * TANGENT, K, VALUES, BETA)
    assert tangent.abs().max() > 0.1
    torch.testing.assert_close(tangent, difference / (2 * step), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="backend: the core has no forward-mode derivatives"):
        func.jvp(lambda q: associate(q, K, VALUES, BETA, backend="core"), (Q,), (TANGENT,))


def test_routes():
    found = []
    func.grad(lambda q: (found.append(route_of("q", [q])), q.sum())[1])(Q)
    func.jvp(lambda q: (found.append(route_of("q", [q])), q.sum())[1], (Q,), (TANGENT,))
    assert [*found, route_of("q", [Q])] == [TRANSFORMED, PLAIN, EAGER]


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_dropout_under_vmap_is_as_random_as_asked(randomness):
    torch.manual_seed(0)
    q = torch.stack([Q, Q])
    out = func.vmap(lambda q: associate(q, K, VALUES, BETA, dropout=0.5), randomness=randomness)(q)
    assert torch.equal(out[0], out[1]) == (randomness == "same")
    with pytest.raises(RuntimeError, match="randomness"):
        func.vmap(lambda q: associate(q, K, VALUES, BETA, dropout=0.5))(q)


def test_implicit_gradients_have_no_second_derivatives_under_transforms():
    def loss(q):
        given = {"separation": "softmax", "update_steps_max": 5, "gradient": "implicit"}
        return associate(q, 0.5 * K, VALUES, 0.5, **given).sum()

    func.grad(loss)(Q)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        func.grad(lambda q: func.grad(loss)(q).sum())(Q)


def test_batched_gradients():
    """As `torch.autograd.functional.jacobian` has them with vectorize=True: those of one call after the other."""
    q, k = rows(2, 3, 1, 4), rows(2, 5, 1, 4, seed=1)
    layer = sht.Hopfield(4, num_heads=2, update_steps_max=1, dtype=torch.float64)
    patterns = 3 * torch.eye(4, dtype=torch.float64)
    functions = {
        "queries": (lambda q: sht.associate(q, k, k, 1.0, update_steps_max=1), q),
        "all": (lambda k: sht.associate(k, k, k, 1.0, separation="softmax"), k),
        "attention": (lambda q: sht.hopfield_attention(q, q, 2 * q), q),
        "layer": (layer, rows(2, 5, 4)),
        "update": (lambda p: sht.update(0.9 * patterns, p), patterns),
        "energy": (lambda p: sht.energy(0.9 * patterns, p), patterns),
    }
    jacobian = torch.autograd.functional.jacobian
    for name, (function, x) in functions.items():
        torch.testing.assert_close(jacobian(function, x, vectorize=True), jacobian(function, x), msg=name)
    with pytest.raises(NotImplementedError, match=r"^grad: retrieve takes no batched gradients"):
        jacobian(lambda p: sht.retrieve(0.9 * patterns, p), patterns, vectorize=True)
    with pytest.raises(NotImplementedError, match=r"^grad: batched gradients have no second derivative"):
        jacobian(functions["queries"][0], q, vectorize=True, create_graph=True)
