"""`cloudai doctor`: what is missing on this machine, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict

import click

from cloudai.cli.application import application, connection_advice
from cloudai.cli.machine_checks import Check, machine_checks
from cloudai.cli.output import json_option, line, print_json, print_table, state_text
from cloudai.cli.server_checks import history_check, server_checks
from cloudai.scheduling.errors import CloudAIError
from cloudai.settings import Settings


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Say what is missing on this machine and what to do. Exit code 1 when something needed is missing."""
    checks = _checks(ctx)
    missing = [check for check in checks if check.status == "missing"]
    if as_json:
        print_json({"healthy": not missing, "checks": [asdict(check) for check in checks]})
    else:
        print_table(
            ["*check", "*status", "found", "what to do"],
            [[check.name, state_text(check.status), check.found, check.advice] for check in checks],
        )
        line(_summary(len(missing), sum(check.status == "warning" for check in checks)))
    if missing:
        ctx.exit(1)


def _checks(ctx: click.Context) -> list[Check]:
    try:
        app = application(ctx)
        settings = app.deployment.settings
    except CloudAIError as error:
        # The machine can be looked at all the same, with the defaults.
        return [
            *machine_checks(Settings()),
            Check("configuration", "missing", str(error), "correct what it names"),
        ]
    found = [*machine_checks(settings), Check("configuration", "ok", "read without a problem")]
    try:
        return [*found, *server_checks(app.deployment), *history_check(settings)]
    except Exception as error:
        advice = connection_advice(ctx, error)
        if advice is None:
            raise
        text, _, remedy = advice.partition("). ")
        return [*found, Check("Redis", "missing", f"{text})", remedy), *history_check(settings)]


def _summary(missing: int, warnings: int) -> str:
    if missing:
        return f"{missing} of what is needed is missing."
    if warnings:
        return f"Nothing that is needed is missing; {warnings} {'warning' if warnings == 1 else 'warnings'}."
    return "All is well."
