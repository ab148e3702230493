"""What every test may use: the folder of real data, and settings that suit shared machines."""

import collections
import gc
import itertools
import os
from pathlib import Path

import helpers
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


@pytest.fixture(scope="session")
def data_folder():
    """Folder of the real data sets: SPARSEHOPFIELD_DATA, else ../shared/data seen from the project's root."""
    folder = Path(os.environ.get("SPARSEHOPFIELD_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder}; set SPARSEHOPFIELD_DATA to where mnist/ and others lie")
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Draw no figures within a test; fixtures of its module, which are made before, still draw theirs."""
    monkeypatch.setattr("sparsehopfield.inspect.plotting.save", helpers.undrawn)


def pytest_addoption(parser):
    parser.addoption(
        "--depth",
        action="store_const",
        const="also",
        help="run all cases of tests marked `covering`, and tests marked `depth`, too",
    )
    parser.addoption(
        "--depth-only",
        action="store_const",
        const="only",
        dest="depth",
        help="run what --depth adds alone: the cases left out without it, and more examples of each property",
    )
    parser.addoption(
        "--stronger",
        action="store_true",
        help="with --depth-only: of tests marked `covering` not all other cases, but enough that one value more meets",
    )
    parser.addoption(
        "--sample", type=int, default=1, metavar="N", help="of each test's cases the first of every N only"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Give each of several workers a stretch of the tests, so that few fixtures are made twice, and let them steal."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


def pytest_configure(config):
    """Say how many examples Hypothesis makes, before tests are imported."""
    # A busy machine is no failure of the code, so no example has a deadline.
    settings.register_profile("sparsehopfield", deadline=None, max_examples=200 if config.getoption("depth") else 25)
    settings.load_profile("sparsehopfield")


def _covering(items, strength):
    """Return some of a test's cases in which every `strength` values of its parameters meet that meet in any case."""
    # Cases share the values of their parameters, which need not be hashable.
    values = [[(name, id(value)) for name, value in item.callspec.params.items()] for item in items]
    meetings = [set(itertools.combinations(of_item, min(strength, len(of_item)))) for of_item in values]
    holders = collections.defaultdict(list)  # of a meeting: the cases in which it takes place
    for i, of_item in enumerate(meetings):
        for meeting in of_item:
            holders[meeting].append(i)
    new = [len(of_item) for of_item in meetings]  # how many values meet in a case for the first time
    chosen, uses = set(), collections.Counter()
    while most := max(new, default=0):  # of several cases with most of them that of the least used values
        best = min((i for i, n in enumerate(new) if n == most), key=lambda i: sum(uses[v] for v in values[i]))
        for meeting in meetings[best]:
            for i in holders.pop(meeting, ()):
                new[i] -= 1
        chosen.add(best)
        uses.update(values[best])
    return [item for i, item in enumerate(items) if i in chosen]


def _depth(items, stronger=False):
    """Return the set of items that a run without --depth leaves out, or those of them that --stronger takes."""
    left, cases = set(), collections.defaultdict(list)
    for item in items:
        if item.get_closest_marker("depth"):
            left.add(item)
        elif item.get_closest_marker("covering"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for group in cases.values():
        (strength,) = group[0].get_closest_marker("covering").args
        wanted = _covering(group, strength + 1) if stronger else group
        left |= {*wanted} - {*_covering(group, strength)}
    return left


def _is_property(item):
    """Return whether Hypothesis makes the examples of an item."""
    return hasattr(getattr(item, "obj", None), "hypothesis")


def _sampled(items, every):
    """Return every so many-th of each test's cases: the others take the same ways through the code."""
    seen = collections.Counter()
    kept = []
    for item in items:
        name = item.nodeid.partition("[")[0]
        if seen[name] % every == 0:
            kept.append(item)
        seen[name] += 1
    return kept


def pytest_collection_modifyitems(config, items):
    """Leave out what adds only depth, unless it is asked for; sanitizers see every test in some of its cases."""
    wanted, kept = config.getoption("depth"), items
    if wanted == "only":
        depth = _depth(items, config.getoption("--stronger"))
        kept = [item for item in items if item in depth or _is_property(item)]
    elif not wanted and not any("::" in argument for argument in config.args):  # whoever names a test means it
        depth = _depth(items)
        kept = [item for item in items if item not in depth]
    kept = _sampled(kept, config.getoption("--sample"))
    if len(kept) < len(items):
        chosen = {*kept}
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = kept


def pytest_collection_finish():
    """Spare the garbage collector the tests themselves, which are thousands and stay: some tests call it often."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    if SANITIZED and item.get_closest_marker("resources"):
        pytest.skip("sanitizers distort time and memory")


# --- one cluster of worker processes for all tests of sharded memories ----------------------------------------------


@pytest.fixture(scope="session")
def cluster():
    """A local cluster of two worker processes."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    # A LocalCluster gives a worker up whose place is empty 15 seconds after one in it was lost: another may have been
    # killed there since.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit="1 GiB"
        ) as made,
    ):
        yield made


@pytest.fixture(scope="session")
def client(cluster):
    """A client of this cluster, with all of its workers."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster) as made:
        yield made
