"""`cloudai explain`: why a task went where it went, or why it waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.text import Text

from cloudai.cli.application import application
from cloudai.cli.output import (
    duration,
    from_now,
    heading,
    json_option,
    line,
    moment,
    number,
    print_fields,
    print_json,
    print_table,
    state_text,
)
from cloudai.cli.result_report import result_report
from cloudai.cli.task_report import gone_text, refusals_text, task_report

#: Terms of the score that have a column of their own or are left to `--json`.
_SHOWN_TERMS = ("base_risk", "affinity", "penalty", "lateness", "load", "predicted_s")


@click.command()
@click.argument("task_id")
@json_option
@click.pass_context
def explain(ctx: click.Context, task_id: str, as_json: bool) -> None:
    """Say why TASK_ID went where it went: state, history, the decision with its scores, why it waits."""
    app = application(ctx)
    report = task_report(app.deployment, task_id)
    report["result"] = result_report(app, task_id)
    if as_json:
        print_json(report)
        return
    _print_task(report)
    if report["waits_because"]:
        _print_waiting(report)
    _print_decision(report)
    _print_history(report)


def _print_task(report: Mapping[str, Any]) -> None:
    now, deadline = report["now"], report["deadline"]
    result = report["result"] or {}
    placed = report["state"] in ("placed", "running")
    print_fields(
        {
            "task": report["task_id"],
            "name": report["name"],
            "state": Text.assemble(
                state_text(report["state"]), f": {report['reason']}" if report["reason"] else ""
            ),
            "error": result.get("error") or "",
            "what to do": result.get("advice") or "",
            "node": f"{report['node']}, attempt {report['attempt']}{_devices(report)}"
            if report["node"]
            else "",
            "type": report["type"] + (f", family {report['family']}" if report["family"] else ""),
            "user": report["user"],
            "asks for": report["asks_for"] + _conditions(report["request"]),
            "submitted": moment(report["submitted"]),
            "not before": moment(report["arrival"]) if report["arrival"] != report["submitted"] else "",
            "deadline": f"{moment(deadline)} ({_kept(report) or from_now(deadline, now)})",
            "waited": _waited(report),
            "runtime": _runtime(report, running=placed),
            "node losses": str(report["losses"] or ""),
            "retries": str(report["retries"] or ""),
        }
    )


def _devices(report: Mapping[str, Any]) -> str:
    devices = report["gpu_devices"]
    return f", GPU {', '.join(map(str, devices))}" if devices else ""


def _conditions(request: Mapping[str, Any]) -> str:
    text = "".join(f", {label}={value}" for label, value in request.get("constraints", {}).items())
    if request.get("target_worker_id"):
        text += f", on node {request['target_worker_id']} only"
    return text


def _kept(report: Mapping[str, Any]) -> str:
    if report["sla_success"] is None:
        return ""
    if report["sla_success"]:
        return f"kept, {duration(report['deadline'] - report['finished'])} to spare"
    if report["state"] == "succeeded":
        return f"missed by {duration(report['finished'] - report['deadline'])}"
    return "missed: it did not succeed"


def _waited(report: Mapping[str, Any]) -> str:
    end = report["claimed"] or (report["now"] if report["state"] in ("waiting", "placed") else None)
    return duration(max(0.0, end - report["arrival"])) if end else ""


def _runtime(report: Mapping[str, Any], *, running: bool) -> str:
    predicted = report["predicted"]
    hoped = f"predicted {duration(predicted)}, tau {duration(report['tau'])}" if predicted else ""
    if report["runtime"] is not None and report["runtime"] >= 0 and not running:
        return f"{duration(report['runtime'])} ({hoped})" if hoped else duration(report["runtime"])
    return hoped


def _print_waiting(report: Mapping[str, Any]) -> None:
    why = report["waits_because"]
    heading("Why it waits (recomputed now)")
    line(
        why["text"]
        + (f": {moment(why['until'])} ({from_now(why['until'], report['now'])})" if "until" in why else "")
    )
    if why["kind"] == "eta":
        return
    line(f"It needs {why['needs']}; {why['before_it']} waiting tasks have an earlier deadline.")
    rows = []
    for node in why["nodes"]:
        refused = "; ".join(f"{r['reason']}: needs {r['needs']}, has {r['has']}" for r in node["refused"])
        rows.append([node["node"], refused or "fits now"])
    if rows:
        print_table(["*node", "what it has now"], rows)
    if why["nodes_in_all"] > len(rows):
        line(f"and {why['nodes_in_all'] - len(rows)} more nodes")
    if why["nodes_gone"]:
        line(f"{gone_text(why['nodes_gone'])}: see `cloudai nodes`.")


def _print_decision(report: Mapping[str, Any]) -> None:
    decision = report["decision"]
    heading("The decision (as it was made)")
    if decision is None:
        line("Its record is no longer kept (scheduling.decision_ttl_s).")
        return
    line(
        _who_decided(decision)
        + f", {moment(decision['decided_at'])}, with {duration(decision['slack_s'])} to the deadline."
    )
    if decision["why_never"]:
        line(decision["why_never"])
    if decision["candidates"]:
        _print_candidates(report["node"], decision)
    if decision["refusals"]:
        line(f"Refused, each node by its first reason: {refusals_text(decision['refusals'])}.")
    elif not decision["candidates"]:
        line("No node was registered.")
    line(
        f"Fleet version {decision['snapshot_version']}, "
        f"parameters {_parameters(decision['parameters_version'])}."
    )


def _parameters(version: int) -> str:
    return f"version {version}" if version else "the defaults"


def _who_decided(decision: Mapping[str, Any]) -> str:
    if decision["fallback_reason"]:
        detail = f" ({decision['fallback_detail']})" if decision["fallback_detail"] else ""
        return f"Round-Robin in place of the scheduler, because of {decision['fallback_reason']}{detail}"
    if decision["outcome"] == "place":
        tried = ", the first tried for what can be learned there" if decision["exploratory"] else ""
        return f"Ranked by {decision['scheduler']}{tried}"
    return "No node could take it" if decision["outcome"] == "wait" else "No node could ever take it"


def _print_candidates(chosen: str, decision: Mapping[str, Any]) -> None:
    candidates = decision["candidates"]
    scored = "score" in candidates[0]
    terms = [term for term in _SHOWN_TERMS if term in candidates[0]]
    names = {"base_risk": "R", "predicted_s": "E (s)", "lateness": "lateness (s)"}
    columns = [
        "",
        "*node",
        *([">*Rfinal"] if scored else []),
        *(f">*{names.get(term, term)}" for term in terms),
    ]
    rows: list[list[str | Text]] = []
    for candidate in candidates:
        here = candidate["node"] == chosen
        cells = [number(candidate["score"])] if scored else []
        cells += [number(candidate[term]) for term in terms]
        rows.append([Text("->" if here else "", style="green"), candidate["node"], *cells])
    print_table(columns, rows)
    if scored and "base_risk" in terms:
        line(
            "Rfinal = R - affinity + penalty, R = alpha * lateness + beta * load; the lowest wins. "
            "E: predicted runtime."
        )
    if chosen and chosen not in (candidate["node"] for candidate in candidates):
        line(f"It is on {chosen} now: it was placed again since.")
    elif chosen and chosen != candidates[0]["node"]:
        line(
            f"{candidates[0]['node']} had been taken when it was to be reserved; the next that fitted has it."
        )


def _print_history(report: Mapping[str, Any]) -> None:
    heading("History")
    rows: list[list[str | Text]] = []
    for step in report["history"]:
        rows.append([moment(step["at"])[11:], step["event"], _details(step)])
    print_table(["*time", "*event", "details"], rows)
    if not report["history_complete"]:
        line(
            "Not all of it: older events are trimmed from the stream, or too many tasks ran at the same time."
        )


def _details(step: Mapping[str, Any]) -> str:
    words = dict(step)
    runtime, old, new = words.pop("runtime", None), words.pop("tau_old", None), words.pop("tau_new", None)
    parts = [
        f"{name} {value}"
        for name, value in words.items()
        if name not in ("event", "at", "outcome", "peak_memory")
    ]
    if "outcome" in words:
        parts.insert(0, words["outcome"])
    if runtime and float(runtime) >= 0:
        parts.append(f"ran {duration(float(runtime))}")
    if "peak_memory" in words:
        parts.append(f"peak memory {float(words['peak_memory']) / 2**20:.1f} MiB")
    if old and new:
        parts.append(f"tau {number(float(old))} -> {number(float(new))} s")
    return ", ".join(parts)
