"""A server is asked for its model only where the plan does not know it, and is refused when it serves another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.cli.console import Console
from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.errors import EndpointError
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.jobs import candidates_job
from tagllm_cli.pipeline.label.run import run_job
from tests.support.faulty_proxy import FaultyProxy
from tests.support.stub_server import stub_server
from tests.support.workspace import Workspace


def run(workspace: Workspace, server: FaultyProxy, **options: Any) -> Any:
    """Run `candidates` with an endpoint whose model is not named."""
    chosen = RunOptions(**options)
    model = ModelOptions(endpoints=(server.url,), retries=0)
    job = candidates_job(str(workspace.images), str(workspace.vocabulary), workspace.out, model, chosen, group_size=5)
    return run_job(job, chosen, Console(quiet=True))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, 3)


def test_a_run_with_nothing_to_ask_needs_no_server(workspace: Workspace):
    with stub_server("demo") as server:
        assert run(workspace, server).rows.ok == 3
        server.down()
        assert run(workspace, server).rows.ok == 3
        assert run(workspace, server, dry_run=True).pending.requests == 0


def test_a_first_run_and_a_new_plan_need_the_server(workspace: Workspace):
    with stub_server("demo") as server:
        server.down()
        with pytest.raises(EndpointError, match="no endpoint answers"):
            run(workspace, server)
        server.up()
        run(workspace, server)
        server.down()
        with pytest.raises(EndpointError, match="no endpoint answers"):
            run(workspace, server, replan=True)


def test_another_served_model_is_refused_before_a_question(workspace: Workspace):
    with stub_server("demo") as server:
        run(workspace, server)
    workspace.paint(99, "new.png")
    with stub_server("other") as server:
        with pytest.raises(EndpointError, match="does not serve demo"):
            run(workspace, server)
        assert server.questions == []
        assert run(workspace, server, replan=True).rows.ok == 4
