"""Work travels flat and comes apart as it went in."""

import numpy as np

from actors.work import EngineWork, Generated


def test_requests_come_apart_as_they_went_in() -> None:
    token_ids = [np.array([3, 1, 4], np.int32), np.array([], np.int32), np.array([1], np.int32)]
    work = EngineWork.of("unit-7", token_ids, [11, 12, 13])
    assert list(work.requests()) == [[3, 1, 4], [], [1]]
    assert work.seeds.tolist() == [11, 12, 13]


def test_no_requests_are_no_work() -> None:
    assert list(EngineWork.of("unit-0", [], []).requests()) == []


def test_a_refusal_carries_its_reason_and_no_tokens() -> None:
    refused = Generated.refused("too long")
    assert (refused.error, refused.text, refused.token_ids) == ("too long", "", [])
