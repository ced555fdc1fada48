"""The commands for jobs on a cluster: ganad submit, jobs, logs, stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ganad.errors import ConfigError

Address = Annotated[
    str,
    typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The cluster's job server."),
]
Job = Annotated[str, typer.Argument(help="Its name, as ganad jobs lists it.")]
LOCAL = "http://localhost:8265"
"""Where `ray dashboard cluster.yaml` and `kubectl port-forward` bring a cluster's job server."""


def add_commands(app: typer.Typer) -> None:
    """Put the commands under ganad."""
    settings = {"allow_interspersed_args": False, "ignore_unknown_options": False}
    app.command(context_settings=settings)(submit)
    for command in (jobs, logs, stop):
        app.command()(command)


def submit(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="As typed after ganad.")
    ],
    address: Address = LOCAL,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan as JSON, do nothing.")
    ] = False,
    print_rayjob: Annotated[
        bool, typer.Option("--print-rayjob", help="Print a KubeRay manifest of it instead.")
    ] = False,
    image: Annotated[
        str | None, typer.Option(help="With --print-rayjob: an image that has Ray and ganad.")
    ] = None,
    service_account: Annotated[
        str | None,
        typer.Option(help="With --print-rayjob: their account, which opens the buckets."),
    ] = None,
) -> None:
    """Run a command as a job on a Ray cluster and follow its log. The same command resumes it.

    Example: ganad submit --address http://head:8265 -- train vae s3://b/good --out s3://b/model
    """
    from pipelines.cluster.package import package_command
    from pipelines.cluster.submit import submit as run

    parameters = _parse(context, command)
    package = package_command(command, parameters)
    if print_rayjob:
        from pipelines.cluster.rayjob import manifest

        if image is None:
            raise ConfigError("--print-rayjob needs --image: an image with Ray and ganad")
        print(manifest(package, parameters, image, service_account), end="")
        return
    if image is not None or service_account is not None:
        raise ConfigError("--image and --service-account apply to pods only: add --print-rayjob")
    raise typer.Exit(run(package, address, detach=detach, dry_run=dry_run))


def _parse(context: typer.Context, command: Sequence[str]) -> dict[str, Any]:
    """Parameters of a command, parsed here so that errors are reported before a job starts."""
    from pipelines.cluster.package import DRIVER_CPUS

    name, *rest = command
    if name not in DRIVER_CPUS:
        raise ConfigError(
            f"{name} is not a command that runs as a job: give {', '.join(sorted(DRIVER_CPUS))}"
        )
    group: Any = context.find_root().command
    parser = group.get_command(context, name)
    parsed = parser.make_context(f"ganad {name}", rest, parent=context.find_root())
    parameters = dict(parsed.params)
    if name == "query":
        from pipelines.cli.query import split_words

        parameters["tables"], parameters["sql"] = split_words(parameters.pop("tables_and_sql"))
    return parameters


def jobs(
    address: Address = LOCAL,
    format_: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
) -> None:
    """List the jobs of a cluster, the latest last.

    Example: ganad jobs --address http://head:8265
    """
    from pipelines.cluster.jobs import jobs as run

    run(address, format_)


def logs(job: Job, address: Address = LOCAL) -> None:
    """Print a job's log, and follow it while the job runs. The exit status is the job's.

    Example: ganad logs ganad-train-1f2e3d4c
    """
    from pipelines.cluster.jobs import logs as run

    raise typer.Exit(run(job, address))


def stop(job: Job, address: Address = LOCAL) -> None:
    """End a job. The same submit command resumes it.

    Example: ganad stop ganad-train-1f2e3d4c
    """
    from pipelines.cluster.jobs import stop as run

    run(job, address)
