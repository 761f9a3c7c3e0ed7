"""A Ray cluster of two machines on this one, started once per test session; a start takes about 15 seconds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.object_store import object_store

SMALL = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Two nodes, each with room for one worker. `ray_cluster.address` is for --ray."""
    object_store()  # so that the workers' environment has its address and keys
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
        cluster.add_node(**SMALL)
    yield cluster
    cluster.shutdown()
