"""Which cases the run without --depth takes of a product of parameters, and which one of --depth-only."""

import itertools
from types import SimpleNamespace

import pytest
from conftest import _covering, pytest_collection_modifyitems


class Item(SimpleNamespace):
    """What is known of a test when it is collected."""

    __hash__ = object.__hash__


def cases(*sizes):
    """Make the items of a test whose parameters have so many values."""
    names = [f"p{i}" for i in range(len(sizes))]
    values = [[object() for _ in range(size)] for size in sizes]
    mark = SimpleNamespace(args=(2,))
    return [
        Item(
            nodeid=f"test[{number}]",
            callspec=SimpleNamespace(params=dict(zip(names, case, strict=True))),
            get_closest_marker={"covering": mark}.get,
        )
        for number, case in enumerate(itertools.product(*values))
    ]


def met(items, strength):
    """Return which values meet in any of the cases."""
    return {
        frozenset(some) for item in items for some in itertools.combinations(item.callspec.params.items(), strength)
    }


@pytest.mark.parametrize("sizes", [(3,), (5, 2), (4, 3, 2), (7, 6, 3, 2)], ids=str)
@pytest.mark.parametrize("strength", [1, 2, 3])
def test_all_values_meet_that_can(sizes, strength):
    items = cases(*sizes)
    chosen = _covering(items, strength)
    strength = min(strength, len(sizes))
    assert met(chosen, strength) == met(items, strength)
    least = 1
    for size in sorted(sizes)[-strength:]:
        least *= size
    assert least <= len(chosen) <= 2 * least
    assert [item for item in items if item in chosen] == chosen  # in order


def test_values_are_used_alike():
    chosen = _covering(cases(30, 3), 1)
    assert len(chosen) == 30
    second = [item.callspec.params["p1"] for item in chosen]
    assert all(second.count(value) == 10 for value in second)


def test_cases_that_are_not_there_are_not_missed():
    items = [item for number, item in enumerate(cases(4, 4)) if number % 5]
    assert len(_covering(items, 2)) == len(items) == 12


def taken(items, depth, arguments=("tests",), stronger=False):
    """Return the items that a run takes."""
    options = {"depth": depth, "--sample": 1, "--stronger": stronger}
    hook = SimpleNamespace(pytest_deselected=lambda items: None)
    left = [*items]
    pytest_collection_modifyitems(SimpleNamespace(getoption=options.get, args=arguments, hook=hook), left)
    return left


def test_tests_marked_depth_and_others():
    items = cases(6, 4, 3)
    deep = Item(nodeid="deep", get_closest_marker={"depth": True}.get)
    plain = Item(nodeid="plain", get_closest_marker={}.get)
    drawn = Item(nodeid="drawn", get_closest_marker={}.get, obj=SimpleNamespace(hypothesis=True))
    every = [deep, *items, plain, drawn]
    default, only = taken(every, None), taken(every, "only")
    assert deep not in default
    assert default[-2:] == [plain, drawn]
    assert 24 <= len(default) - 2 < len(items)
    assert taken(every, "also") == every
    assert only == [item for item in every if item not in default or item is drawn]
    assert taken(every, None, ["test.py::test"]) == every


def test_the_next_stronger_cases():
    items = cases(6, 4, 3, 2)
    deep = Item(nodeid="deep", get_closest_marker={"depth": True}.get)
    default = taken([deep, *items], None)
    only = taken([deep, *items], "only", stronger=True)
    assert only[0] is deep
    assert not {*only} & {*default}
    assert met(default + only[1:], 3) == met(items, 3)
    assert len(only) + len(default) < len(items)
