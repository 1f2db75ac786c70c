"""A small Celery project: a shop that prices, bills and mails, with retries, links and a schedule."""

import os
import random
from pathlib import Path

from celery import Celery, chain, chord, group

app = Celery("shop", broker=os.environ["SHOP_REDIS"], backend=os.environ["SHOP_REDIS"])
app.conf.update(
    result_expires=3600,
    task_track_started=True,
    beat_schedule={
        "count-stock": {"task": "shop.count_stock", "schedule": 1.0, "args": ("shelf",)},
        "price-list": {"task": "shop.price", "schedule": 1.0, "args": ("pen", 1), "options": {"expires": 30}},
    },
)

PRICES = {"pen": 2, "ink": 5, "desk": 120}


def book(name, line):
    """Append to one of the shop's books."""
    with Path(os.environ["SHOP_BOOKS"], name).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read(name):
    """The lines of a book."""
    path = Path(os.environ["SHOP_BOOKS"], name)
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


@app.task(name="shop.price")
def price(article, count):
    book("priced", article)
    return PRICES[article] * count


@app.task(name="shop.bill")
def bill(amounts, customer):
    total = sum(amounts)
    book("bills", f"{customer} {total}")
    return {"customer": customer, "total": total}


@app.task(
    name="shop.collect", bind=True, autoretry_for=(ConnectionError,), retry_kwargs={"max_retries": 4, "countdown": 0.3}
)
def collect(self, bill, failures=0):
    """Takes the money; the bank is not always there."""
    book("bank", f"{bill['customer']} {self.request.retries}")
    if self.request.retries < failures:
        raise ConnectionError("the bank does not answer")
    return {**bill, "paid": True}


@app.task(name="shop.ship", bind=True, max_retries=2)
def ship(self, bill):
    """Waits for a van."""
    if self.request.retries == 0:
        raise self.retry(countdown=0.3)
    book("shipped", bill["customer"])
    return bill["customer"]


@app.task(name="shop.mail")
def mail(to, text="thank you"):
    book("mail", f"{to}: {text}")
    return to


@app.task(name="shop.complain")
def complain(request, error, traceback):
    book("complaints", f"{request.task} {type(error).__name__}")


@app.task(name="shop.count_stock")
def count_stock(where):
    book("stock", f"{where} {random.randint(1, 9)}")


@app.task(name="shop.catalogue", bind=True)
def catalogue(self, articles):
    """Prices everything, as a task that gives way to others."""
    return self.replace(group(price.s(article, 1) for article in articles))


def order(customer, articles, failures=0):
    """Price all articles, bill them, take the money, ship and say so."""
    priced = chord((price.s(article, count) for article, count in articles.items()), bill.s(customer))
    return chain(
        priced, collect.s(failures=failures).on_error(complain.s()), group(ship.s(), mail.si(customer))
    ).apply_async()
