"""The registry: which engine the options name, who is identified without a server, and what a pinned table accepts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tagllm_cli.engines.base import Engine, ask_all
from tagllm_cli.engines.factory import ENGINES, Origin, identify, identify_served, make_engine, resolve
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.engines.identity import ModelIdentity, served_identity
from tagllm_cli.engines.local.engine import InProcessEngine
from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.engines.replay import RecordingEngine, ReplayEngine
from tagllm_cli.errors import EndpointError, ModelError
from tests.support.asking import LIST, picture
from tests.support.faulty_proxy import FaultyProxy

LOG = Path("vllm.log")
NOWHERE = ("http://127.0.0.1:9",)  # the discard port: asking it fails the test


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"")
    return path


def test_every_kind_makes_its_engine(recording: Path):
    engines = {
        ReplayEngine: ModelOptions(replay=recording, endpoints=NOWHERE, model="m"),
        EndpointEngine: ModelOptions(endpoints=NOWHERE, model="m"),
        InProcessEngine: ModelOptions(model="m"),
    }
    assert [type(make_engine(options, LOG)) for options in engines.values()] == list(engines)
    assert len(ENGINES) == len(engines)


def test_a_recorded_engine_is_wrapped(tmp_path: Path):
    assert isinstance(make_engine(ModelOptions(model="m", record=tmp_path / "r"), LOG), RecordingEngine)


def test_without_a_model_the_one_of_the_table_is_named():
    with pytest.raises(ModelError, match=r"no model is named to give them \(the table was made with demo\)"):
        make_engine(ModelOptions(), LOG, served_identity("demo"))
    assert identify(ModelOptions()) is None
    assert identify_served(ModelOptions(model="m")) is None


def test_no_server_is_asked_for_an_identity(recording: Path):
    assert identify(ModelOptions(endpoints=NOWHERE)) is None
    assert identify(ModelOptions(endpoints=NOWHERE, model="demo")) == served_identity("demo")
    assert identify(ModelOptions(endpoints=NOWHERE, model="demo", model_id="mine")) == served_identity("mine")
    assert identify(ModelOptions(replay=recording)) == served_identity("recording")


def test_a_server_is_asked_for_an_identity_that_only_it_knows(recording: Path):
    with FaultyProxy() as server:
        assert identify_served(ModelOptions(endpoints=(server.url,))) == served_identity("demo")
        assert identify_served(ModelOptions(endpoints=(server.url,), replay=recording)) is None


def start(engine: Engine) -> str:
    """Start an endpoint engine, ask one question, return the model that was asked."""

    async def body() -> str:
        assert isinstance(engine, EndpointEngine)
        try:
            await engine.start()
            await ask_all(engine, picture(), [LIST])
            return engine.model
        finally:
            await engine.close()

    return asyncio.run(body())


def test_a_pinned_model_is_chosen_among_several_and_any_other_refused():
    with FaultyProxy(models=("demo", "other")) as server:
        options = ModelOptions(endpoints=(server.url,))
        assert start(make_engine(options, LOG, served_identity("demo"))) == "demo"
        with pytest.raises(EndpointError, match="does not serve gone") as caught:
            start(make_engine(options, LOG, served_identity("gone")))
        assert "--replan" in caught.value.hint
    assert [each.json["model"] for each in server.questions] == ["demo"]


@pytest.mark.parametrize("owned_by", ["vllm", "somebody"])
def test_a_server_with_another_model_than_the_pinned_one_gets_no_question(owned_by: str):
    with FaultyProxy(models=("new",), owned_by=owned_by) as server, pytest.raises(EndpointError, match="not serve old"):
        start(make_engine(ModelOptions(endpoints=(server.url,)), LOG, served_identity("old")))
    assert server.questions == []


def test_a_model_identified_by_its_files_is_not_a_served_one_of_that_name():
    with pytest.raises(EndpointError, match="pinned to the model demo, read from its files"):
        make_engine(ModelOptions(endpoints=NOWHERE), LOG, ModelIdentity("demo", b"f" * 16))


def test_a_name_that_the_user_gives_is_sent_as_it_is():
    with FaultyProxy(models=("demo",)) as server:
        options = ModelOptions(endpoints=(server.url,), model_id="mine")
        assert start(make_engine(options, LOG, served_identity("mine"))) == "demo"


@pytest.mark.parametrize(
    ("model_from", "endpoints_from", "is_local"),
    [
        ("flag", "flag", False),
        ("flag", "environment", True),
        ("flag", "config", True),
        ("environment", "flag", False),
        ("environment", "environment", False),
        ("environment", "config", True),
        ("config", "flag", False),
        ("config", "environment", False),
        ("config", "config", False),
    ],
)
def test_a_model_of_stronger_origin_beats_an_endpoint(model_from: Origin, endpoints_from: Origin, is_local: bool):
    found = resolve("./folder", ["http://h"], model_from, endpoints_from)
    assert found == ("./folder", () if is_local else ("http://h",))


def test_an_endpoint_alone_and_a_model_alone_stay():
    assert resolve(None, ["http://h"], "default", "environment") == (None, ("http://h",))
    assert resolve("m", [], "environment", "default") == ("m", ())


def test_timeouts_and_limits_reach_the_engine():
    options = ModelOptions(endpoints=NOWHERE, timeout_s=7.0, retries=1, concurrency=3)
    engine = make_engine(options, LOG)
    assert isinstance(engine, EndpointEngine)
    assert (engine.settings.timeout_s, engine.settings.retries, engine.settings.concurrency) == (7.0, 1, 3)
    engine = make_engine(ModelOptions(endpoints=NOWHERE), LOG)
    assert isinstance(engine, EndpointEngine)
    assert (engine.settings.retries, engine.settings.concurrency) == (8, None)
