"""The shop's own tests: they need a broker, the shop's workers and its beat."""

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from celery.exceptions import TaskRevokedError
from celery.result import GroupResult
from shop import bill, catalogue, complain, mail, order, price, read

PATIENCE = 60


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def customer():
    return f"customer-{uuid.uuid4().hex[:8]}"


def test_an_order_goes_all_the_way(customer):
    result = order(customer, {"pen": 10, "ink": 2, "desk": 1})
    assert isinstance(result, GroupResult)
    assert result.get(timeout=PATIENCE) == [customer, customer]
    assert f"{customer} 150" in read("bills")
    assert customer in read("shipped")
    assert f"{customer}: thank you" in read("mail")


def test_the_bank_is_asked_again(customer):
    order(customer, {"pen": 1, "ink": 1}, failures=2).get(timeout=PATIENCE)
    assert [line for line in read("bank") if customer in line] == [f"{customer} {n}" for n in range(3)]


def test_an_unknown_article_is_an_error(customer):
    result = price.apply_async(("chair", 1), link_error=complain.s())
    with pytest.raises(KeyError):
        result.get(timeout=PATIENCE)
    until(lambda: "shop.price KeyError" in read("complaints"))


def test_an_order_with_an_unknown_article_is_never_billed(customer):
    result = order(customer, {"pen": 1, "chair": 1})
    paid = result.parent
    until(lambda: paid.parent.state == "FAILURE")
    assert customer not in " ".join(read("bills"))


def test_a_catalogue_replaces_itself():
    assert catalogue.delay(["pen", "ink"]).get(timeout=PATIENCE) == [2, 5]


def test_a_bill_by_hand(customer):
    assert bill.delay([1, 2, 3], customer).get(timeout=PATIENCE) == {"customer": customer, "total": 6}


def test_a_mail_for_later(customer):
    begun = datetime.now(UTC)
    mail.apply_async((customer, "later"), eta=begun + timedelta(seconds=1)).get(timeout=PATIENCE)
    assert datetime.now(UTC) - begun >= timedelta(seconds=1)


def test_a_mail_that_is_taken_back(customer):
    result = mail.apply_async((customer, "never"), countdown=1)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=PATIENCE)
    assert f"{customer}: never" not in read("mail")


def test_the_schedule_is_kept():
    until(lambda: len(read("stock")) >= 2)
    assert read("stock")[0].startswith("shelf ")
