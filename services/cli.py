"""The command `bgpanet`: its verbs stand in `services/commands/`, a file a topic."""

import typer

from services.commands import (
    audit,
    backups,
    datasets,
    deploy,
    doctor,
    follow,
    jobs,
    models,
    networks,
    parts,
    projects,
    results,
    submit,
    tokens,
    webhooks,
    workers,
)
from services.commands.common import STATUSES

VERBS = (parts, submit, jobs, follow, results, networks, deploy, doctor, backups)
GROUPS = {
    "dataset": datasets,
    "model": models,
    "token": tokens,
    "project": projects,
    "webhook": webhooks,
    "audit": audit,
    "workers": workers,
}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, cross-validate and apply skin-lesion classifiers. `bgpanet up` starts everything on this machine; "
    "the other commands talk to BGPANET_URL with BGPANET_TOKEN, else to what was started here.",
    epilog="Exit statuses: " + " · ".join(f"{status} {what}" for status, what in STATUSES.items()) + ".",
)
for topic in VERBS:
    app.add_typer(topic.app)
for name, topic in GROUPS.items():
    app.add_typer(topic.app, name=name)


def main() -> None:
    """The console command."""
    app()


if __name__ == "__main__":
    main()
