"""`cloudai acl`: Redis ACL profiles for the processes of a deployment."""

from __future__ import annotations

import click

from cloudai.acl import PROFILES, acl_rules
from cloudai.cli.output import json_option, print_json
from cloudai.settings import Settings

#: Stands where the operator's password belongs.
_PASSWORD = ">PASSWORD"


@click.command()
@click.argument("profile", type=click.Choice([profile.name for profile in PROFILES]), required=False)
@click.option("--queue", "queues", multiple=True, help="Ordinary Celery queue that the project uses, such as celery.")
@click.option("--namespace", help="The deployment's.  [default: redis.namespace]")
@click.option("--database", type=click.IntRange(0), default=0, show_default=True, help="Number of the Redis database.")
@json_option
def acl(
    profile: str | None, queues: tuple[str, ...], namespace: str | None, database: int, as_json: bool
) -> None:
    """Print the Redis ACL user of PROFILE, or of all profiles. Nothing is sent to Redis.

    Put your password in place of PASSWORD and give the line to `redis-cli`, or write it into the server's ACL file.
    """
    namespace = namespace or Settings.load().redis.namespace
    chosen = [one for one in PROFILES if profile in (None, one.name)]
    users = {one.name: acl_rules(one.name, namespace, queues, database) for one in chosen}
    if as_json:
        print_json({name: {"user": f"{namespace}-{name}", "rules": rules} for name, rules in users.items()})
        return
    for one in chosen:
        click.echo(f"# {one.name}: {one.purpose}")
        quoted = " ".join(f"'{rule}'" if set(rule) & set("*{}~&>|") else rule for rule in users[one.name])
        click.echo(f"ACL SETUSER {namespace}-{one.name} reset on '{_PASSWORD}' {quoted}\n")
