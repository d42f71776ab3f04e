"""Claims are found in whichever API version the server has; failures say what a caller may do."""

from __future__ import annotations

import asyncio

import pytest

from nvdra_kube.errors import (
    ApiError,
    Forbidden,
    Invalid,
    NotFound,
    ServerError,
    TooManyRequests,
    Unreachable,
)
from nvdra_nodeagent.claims.reader import ClaimReader
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable
from nvdra_testing.claims import ClaimApi, a_ref

REF = a_ref()


async def refusal(api: ClaimApi) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await ClaimReader(api).get(REF)
    return caught.value


async def test_a_claim_is_read_with_one_call() -> None:
    api = ClaimApi()
    api.add(REF)
    assert (await ClaimReader(api).get(REF))["metadata"]["uid"] == REF.uid
    assert api.calls == ["get v1 claim"]


async def test_an_older_server_is_asked_in_its_version_and_that_is_remembered() -> None:
    api = ClaimApi(versions=("v1beta1",))
    api.add(REF)
    reader = ClaimReader(api)
    await reader.get(REF)
    await reader.get(REF)
    assert [call.split()[1] for call in api.calls] == ["v1", "v1beta2", "v1beta1", "v1beta1"]


async def test_an_upgraded_server_is_followed() -> None:
    api = ClaimApi(versions=("v1beta1",))
    api.add(REF)
    reader = ClaimReader(api)
    await reader.get(REF)
    api.versions = ("v1",)
    assert await reader.get(REF)


async def test_a_missing_claim_costs_one_call_and_is_final() -> None:
    api = ClaimApi()
    error = await refusal(api)
    assert isinstance(error, Permanent)
    assert "default/claim does not exist" in str(error)
    assert len(api.calls) == 1


async def test_a_server_without_the_resource_does_not_mean_that_the_claim_is_gone() -> None:
    assert isinstance(await refusal(ClaimApi(versions=())), Retryable)


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (ServerError("etcd", status=503), Retryable, "ApiUnavailable"),
        (Unreachable("refused"), Retryable, "ApiUnavailable"),
        (TooManyRequests("slow down", status=429), Retryable, "ApiThrottled"),
        (Forbidden("no", status=403), Retryable, "ApiForbidden"),
        (Invalid("bad name", status=422), Permanent, "ApiRefused"),
    ],
)
async def test_failures_are_told_apart(failure: ApiError, kind: type, reason: str) -> None:
    api = ClaimApi()
    api.errors.append(failure)
    error = await refusal(api)
    assert (type(error), error.reason) == (kind, reason)
    assert "default/claim" in str(error)


async def test_a_server_that_does_not_answer_is_given_up_on() -> None:
    api = ClaimApi(gate=asyncio.Event())
    with pytest.raises(Retryable, match="no answer in time"):
        await ClaimReader(api, call_timeout_s=0.01).get(REF)


async def test_the_current_uid_is_that_of_the_name() -> None:
    api = ClaimApi()
    api.add(REF)
    assert await ClaimReader(api).current_uid(REF) == REF.uid
    assert await ClaimReader(api).current_uid(a_ref("gone")) is None


async def test_an_answer_without_uid_is_no_answer() -> None:
    api = ClaimApi(claims={REF.name: {"metadata": {}}})
    with pytest.raises(Retryable):
        await ClaimReader(api).current_uid(REF)


async def test_all_uids_of_the_cluster() -> None:
    api = ClaimApi(versions=("v1beta2",))
    refs = [api.add(a_ref(name)) for name in ("a", "b")]
    assert await ClaimReader(api).all_uids() == {ref.uid for ref in refs}


async def test_a_failed_list_is_no_empty_list() -> None:
    api = ClaimApi(versions=())
    with pytest.raises(Retryable):
        await ClaimReader(api).all_uids()
    api = ClaimApi()
    api.errors.append(NotFound("?", status=404))
    with pytest.raises(Retryable):
        await ClaimReader(api).all_uids()
