"""The check that every test with Redis runs under: a key of ours without a TTL belongs to a rule, or is a leak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from ...conftest import leaked_keys

if TYPE_CHECKING:
    from .conftest import Lab


def test_what_outlives_its_rule_is_found(lab: Lab, redis_client: redis.Redis) -> None:
    lab.join("node")
    lab.place("waiting", decision="{}")
    lab.place("cancelled", decision="{}")
    lab.ledger.cancel("cancelled")
    lab.finish(lab.run("ended", "node", cpu=1, decision="{}"))
    assert list(leaked_keys(redis_client)) == []

    keys = lab.keys
    lab.client.persist(keys.decision("waiting"))
    lab.client.persist(keys.task("ended"))
    lab.client.set(keys.message("ended"), "x")
    lab.client.hset(keys.next("nobody"), "nonce", "x")
    lab.client.set(keys.prefix + "invented", "x")
    found = {line.partition(": ")[0] for line in leaked_keys(redis_client)}
    leaks = {
        keys.decision("waiting"),
        keys.task("ended"),
        keys.message("ended"),
        keys.next("nobody"),
        keys.prefix + "invented",
    }
    assert found == leaks

    lab.client.delete(*leaks)
    lab.settle_all()
