"""Commands for jobs on a Ray cluster: ganad submit, jobs, logs, stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ganad.errors import ConfigError

Address = Annotated[
    str,
    typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="URL of the cluster's job server."),
]
Job = Annotated[str, typer.Argument(help="Name of the job, as listed by ganad jobs.")]
LOCAL = "http://localhost:8265"
"""The address to which `ray dashboard cluster.yaml` and `kubectl port-forward` forward."""


def add_commands(app: typer.Typer) -> None:
    """Add the commands to ganad."""
    settings = {"allow_interspersed_args": False, "ignore_unknown_options": False}
    app.command(context_settings=settings)(submit)
    for command in (jobs, logs, stop):
        app.command()(command)


def submit(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="The command, without ganad.")
    ],
    address: Address = LOCAL,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan as JSON; do nothing.")
    ] = False,
    print_rayjob: Annotated[
        bool, typer.Option("--print-rayjob", help="Print a KubeRay RayJob manifest instead.")
    ] = False,
    image: Annotated[
        str | None, typer.Option(help="With --print-rayjob: container image with Ray and ganad.")
    ] = None,
    service_account: Annotated[
        str | None,
        typer.Option(help="With --print-rayjob: service account with access to the buckets."),
    ] = None,
) -> None:
    """Run a command as a job on a Ray cluster and follow its log. Submit it again to resume.

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
        raise ConfigError("--image and --service-account need --print-rayjob: add it")
    raise typer.Exit(run(package, address, detach=detach, dry_run=dry_run))


def _parse(context: typer.Context, command: Sequence[str]) -> dict[str, Any]:
    """Parse the parameters of a command, so that errors are reported before a job starts."""
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
    format_: Annotated[str, typer.Option("--format", help="Output: table, json or csv.")] = "table",
) -> None:
    """List the jobs of a cluster, the latest last.

    Example: ganad jobs --address http://head:8265
    """
    from pipelines.cluster.jobs import jobs as run

    run(address, format_)


def logs(job: Job, address: Address = LOCAL) -> None:
    """Print and follow the log of a job. The exit status is that of the job.

    Example: ganad logs ganad-train-1f2e3d4c
    """
    from pipelines.cluster.jobs import logs as run

    raise typer.Exit(run(job, address))


def stop(job: Job, address: Address = LOCAL) -> None:
    """Stop a job. Submit the same command again to resume it.

    Example: ganad stop ganad-train-1f2e3d4c
    """
    from pipelines.cluster.jobs import stop as run

    run(job, address)
