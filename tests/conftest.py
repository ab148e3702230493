"""What every test may use: the folder of real data, and settings that suit shared machines."""

import collections
import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")

# A busy machine is no failure of the code, so no example has a deadline.
settings.register_profile("sparsehopfield", deadline=None)
settings.load_profile("sparsehopfield")


@pytest.fixture(scope="session")
def data_folder():
    """Folder of the real data sets: SPARSEHOPFIELD_DATA, else ../shared/data seen from the project's root."""
    folder = Path(os.environ.get("SPARSEHOPFIELD_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder}; set SPARSEHOPFIELD_DATA to where mnist/ and others lie")
    return folder


def pytest_addoption(parser):
    parser.addoption(
        "--sample", type=int, default=1, metavar="N", help="of each test's cases the first of every N only"
    )


def pytest_collection_modifyitems(config, items):
    """Sanitizers see every test in some of its cases: the others take the same ways through the code."""
    every = config.getoption("--sample")
    seen = collections.Counter()
    kept, left = [], []
    for item in items:
        name = item.nodeid.partition("[")[0]
        (left if seen[name] % every else kept).append(item)
        seen[name] += 1
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def pytest_runtest_setup(item):
    if SANITIZED and item.get_closest_marker("resources"):
        pytest.skip("sanitizers distort time and memory")
