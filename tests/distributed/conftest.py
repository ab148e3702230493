"""One cluster of worker processes for all tests of sharded memories."""

import pytest


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
