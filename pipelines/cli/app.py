"""The `ganad` command line. Each command parses its arguments, calls one function and prints."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer

from ganad import __version__
from ganad.errors import ArchiveError, ConfigError, GanadError
from pipelines.cli.benchmark import benchmarks
from pipelines.cli.cluster import add_commands as add_cluster_commands
from pipelines.cli.options import (
    Debug,
    DryRun,
    Gpu,
    Out,
    Sources,
    Workers,
    parse_workers,
    split_models,
    words,
)
from pipelines.cli.program import Program
from pipelines.cli.publish import add_commands as add_publishing_commands
from pipelines.cli.tables import add_commands as add_table_commands
from pipelines.console.progress import STOPPED, say
from pipelines.console.signals import Stopped, end, stops_and_resumes, stops_promptly
from pipelines.console.stdout import checked_stdout

app = Program(
    name="ganad",
    help="Find anomalous images: train detectors on normal images, score archives, and query the "
    "scores.\n\nStart with: ganad demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
@stops_and_resumes
def demo(
    out: Annotated[str, typer.Option("--out", help="Folder for all results.")] = "ganad-demo",
    debug: Debug = False,
) -> None:
    """Run every step on real handwritten digits: three minutes, no network needed.

    Example: ganad demo --out /tmp/demo
    """
    from pipelines.cli.demo import demo as run

    run(out, debug=debug)


@app.command()
@stops_promptly
def index(
    sources: Sources,
    out: Out,
    labels: Annotated[
        str | None, typer.Option(help="CSV with the columns path (or uri, name) and label.")
    ] = None,
    normal: Annotated[
        str, typer.Option(help="Labels that are normal, comma-separated; others are abnormal.")
    ] = "",
    abnormal: Annotated[
        str, typer.Option(help="Labels that are abnormal, comma-separated; others are normal.")
    ] = "",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Keep the listed images and add new ones.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """List the images of an archive in a manifest.

    Example: ganad index photos/ s3://bucket/line3/ --out manifest
    """
    from pipelines.cli.index import index as run

    run(
        sources,
        out,
        labels=labels,
        normal=words(normal),
        abnormal=words(abnormal),
        refresh=refresh,
        dry_run=dry_run,
    )


@app.command()
@stops_and_resumes
def train(
    detector: Annotated[str, typer.Argument(help="Name of a detector; see: ganad detectors")],
    sources: Sources,
    out: Out,
    config: Annotated[
        str | None,
        typer.Option(
            help="TOML file of config keys, or a preset such as paper; --set overrides it."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One config key, such as epochs=30.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Same as --set seed=S.")] = None,
    workers: Annotated[
        Any,
        typer.Option(
            parser=parse_workers,
            metavar="N or MIN:MAX",
            help="Number of worker processes; MIN:MAX grows and shrinks with the cluster.",
        ),
    ] = None,
    gpu: Gpu = None,
    drop_abnormal: Annotated[
        bool, typer.Option("--drop-abnormal", help="Leave out images labelled abnormal.")
    ] = False,
    add_to: Annotated[
        str | None,
        typer.Option("--add-to", help="Saved gaussian or padim model to add the images to."),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Train one model for each folder in SOURCE.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help="Engine that runs a frozen network, and is tried for scoring: eager, inductor, "
            "openvino or auto."
        ),
    ] = "eager",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Train a detector on normal images. Run the same command again to resume.

    Example: ganad train ganomaly parts/train --out model --set epochs=30
    """
    from ganad.detectors.settings import merge_settings
    from pipelines.train.request import TrainRequest

    if add_to is not None and (config or set_ or seed is not None):
        raise ConfigError(
            f"--add-to {add_to} has its own settings: leave out --config, --set and --seed"
        )
    if each and isinstance(workers, tuple):
        raise ConfigError(
            f"--workers {workers[0]}:{workers[1]} cannot be used with --each: give one number"
        )
    if each and add_to is not None:
        raise ConfigError("--each trains new models: leave out --add-to, or train one by one")
    request = TrainRequest(
        detector,
        sources,
        out,
        values=merge_settings(detector, config, set_ or [], seed),
        workers=workers,
        gpu=gpu,
        drop_abnormal=drop_abnormal,
        add_to=add_to,
        engine=engine,
    )
    if dry_run:
        from pipelines.cli.dry_run import print_each_training, print_training

        (print_each_training if each else print_training)(request)
    elif each:
        from pipelines.console.output import write_table
        from pipelines.train.each import train_each

        rows = train_each(request, debug)
        write_table([key for key in rows[0] if key != "error"], rows, sys.stdout)
    else:
        from pipelines.train.run import train as run

        run(request, debug)


@app.command()
@stops_and_resumes
def score(
    models_and_source: Annotated[
        list[str],
        typer.Argument(metavar="MODEL... SOURCE", help="Saved models, then the archive."),
    ],
    out: Out,
    workers: Workers = None,
    gpu: Gpu = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Score images with an error again.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help="Engine that runs the networks: eager, inductor, openvino, or auto, the fastest "
            "one that gives the same p-values.",
            envvar="GANAD_ENGINE",
        ),
    ] = "auto",
    regions: Annotated[
        bool,
        typer.Option("--regions", help="Also write where images are unusual: boxes, for SQL."),
    ] = False,
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Score an archive with one or more models. Run the same command again to resume.

    Example: ganad score model s3://bucket/line3/ --out scores
    """
    models, source = split_models(models_and_source)
    if dry_run:
        from pipelines.cli.dry_run import print_scoring

        return print_scoring(models, [source], out, workers=workers)
    from pipelines.score.run import score as run

    runs = run(
        models,
        [source],
        out,
        workers=workers,
        gpu=gpu,
        retry_failed=retry_failed,
        engine=engine,
        regions=regions,
        debug=debug,
    )
    for model, done in runs.items():
        say(
            f"{model}: {done.counts['in']:,} images, {done.counts['scored']:,} scored, "
            f"{done.counts['failed']:,} failed; in {out}"
        )
    damaged = max(done.num_damaged for done in runs.values())
    if damaged:
        raise ArchiveError(
            f"{source}: {damaged:,} of its shards could not be listed completely, so images are "
            f"missing; repair the shards, then score into a new --out"
        )
    return None


add_table_commands(app)
add_publishing_commands(app)


@app.command()
def browse(
    table: Annotated[str, typer.Argument(help="A folder that ganad score wrote.")],
    model: Annotated[
        str | None, typer.Option(help="Model to show first, by the beginning of its id.")
    ] = None,
    who: Annotated[
        str | None, typer.Option(help="Name to record with verdicts. Default: your user name.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 chooses a free port.")] = 0,
    cache_mb: Annotated[
        int, typer.Option(min=16, help="Maximum size of the picture cache in MB.")
    ] = 256,
    debug: Debug = False,
) -> None:
    """Browse a score table in a web browser and mark defects.

    The server accepts connections from this machine only. Verdicts are written to TABLE/_verdicts.

    Example: ganad browse scores --model knn
    """
    from pipelines.cli.browse import browse as run

    run(table, port, who, model, cache_mb)


app.add_typer(benchmarks, name="benchmark")


@app.command()
def detectors() -> None:
    """List the detectors, with their papers, strengths and weaknesses.

    Example: ganad detectors
    """
    from pipelines.cli.detectors import list_detectors

    list_detectors()


add_cluster_commands(app)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; an error is printed as one line, with exit status 1."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        # Ray, which is imported later, ignores the token without this.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    debug = "--debug" in (arguments if arguments is not None else sys.argv)
    try:
        with checked_stdout():
            return app(arguments, standalone_mode=True)
    except GanadError as error:
        if debug:
            traceback.print_exc()
        say(f"ganad: {error}")
        sys.exit(1)
    except Stopped as stopped:
        end(stopped)
    except SystemExit as leave:
        # Typer turns Ctrl-C into an exit with status 130 and prints nothing.
        stop = leave.__context__.__cause__ if leave.__context__ else None
        if isinstance(stop, KeyboardInterrupt) and STOPPED not in stop.args:
            say(STOPPED)
        raise
    except Exception as error:
        if debug:
            raise
        line = next((text for text in str(error).splitlines() if text.strip()), "no message")
        say(f"ganad: {type(error).__name__}: {line}; this is a bug in ganad: see --debug")
        sys.exit(1)
