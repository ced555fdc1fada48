"""ganad submit, jobs, logs, stop: what is sent, what is refused, and jobs on a real cluster."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer

from ganad.errors import ClusterError, ConfigError
from pipelines.cli.app import app, main
from pipelines.cluster.connection import connected
from pipelines.cluster.package import (
    DRIVER_CPUS,
    FILES,
    PLACES,
    package_command,
    working_dir,
)
from pipelines.cluster.server import JobServer, find_token

ROOT = Path(__file__).parents[3]


def planned(line: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The plan of a submission, as --dry-run prints it."""
    with pytest.raises(SystemExit) as stopped:
        main(["submit", "--dry-run", "--", *shlex.split(line)])
    assert stopped.value.code == 0
    return json.loads(capsys.readouterr().out)


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    err = capsys.readouterr().err
    assert stopped.value.code != 0, err
    assert "Traceback" not in err
    return err


# What is sent


def test_a_job_is_the_command_as_typed(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned("train vae s3://b/good --out s3://b/model --set 'name=a b'", capsys)
    words = ["train", "vae", "s3://b/good", "--out", "s3://b/model", "--set", "name=a b"]
    assert shlex.split(plan["entrypoint"]) == ["python", "-m", "pipelines", *words]
    assert plan["driver_cpus"] == 0
    assert planned("report s3://b/t --out s3://b/r.html", capsys)["driver_cpus"] == 1


@pytest.mark.parametrize("spelling", ["--config {}", "--config={}"])
def test_small_files_go_along(
    spelling: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 3")
    line = "train vae s3://b/good --out s3://b/model " + spelling.format(file)
    plan = planned(line, capsys)
    assert plan["files"] == {"files/config/mine.toml": str(file)}
    assert spelling.format("files/config/mine.toml") in plan["entrypoint"]
    package = package_command(shlex.split(line), {"config": file, "out": "s3://b/model"})
    with working_dir(package) as folder:
        assert (folder / "files/config/mine.toml").read_text() == "epochs = 3"


def test_the_code_goes_along_and_is_small(tmp_path: Path) -> None:
    package = package_command(["detectors"], {})
    with working_dir(package) as folder:
        assert {path.name for path in folder.iterdir()} == {"ganad", "pipelines"}
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 2 * 2**20
        sent = {str(path.relative_to(folder)) for path in files}
        assert not [name for name in sent if "__pycache__" in name]
        command = [shutil.which("python") or "python3", "-m", "compileall", "-q", str(folder)]
        subprocess.run(command, check=True)
    tracked = {
        str(path.relative_to(ROOT))
        for package in ("ganad", "pipelines")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sent == tracked


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("train vae parts --out s3://b/model", "parts"),
        ("train vae s3://b/good --out model", "model"),
        ("score s3://b/model parts/test --out s3://b/t", "parts/test"),
        ("report s3://b/t --out report.html", "report.html"),
        ("index ./parts --out s3://b/m", "./parts"),
        ("query scores --top 3", "scores"),
        ("query s3://b/t old/scores", "old/scores"),
        ("query s3://b/t --top 3 --copy-to worst", "worst"),
        ("compare s3://b/t scores", "scores"),
        ("show model", "model"),
        ("evaluate s3://b/t --labels .", "--labels ."),
    ],
)
def test_a_place_that_only_this_machine_has_is_refused(
    line: str, typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refusal(["submit", "--dry-run", "--", *line.split()], capsys)
    assert err.startswith(f"ganad: {typed} is a path on this machine")


def test_weights_of_this_machine_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^--set backbone\.weights=w\.pth is a path on this"):
        package_command(["train"], {"set_": ["epochs=3", "backbone.weights=w.pth"]})


def test_every_parameter_of_a_job_is_known_to_the_package() -> None:
    """A place or file that a new parameter names would otherwise fail on the cluster."""
    values = {"abnormal", "bound", "brightness", "budget", "cost", "debug", "detector"}
    values |= {"drop_abnormal", "dry_run", "each", "engine", "ensemble", "fdr", "format_", "gpu"}
    values |= {
        "memory",
        "normal",
        "num_worst",
        "pixels",
        "refresh",
        "regions",
        "retry_failed",
        "seed",
    }
    values |= {"set_", "spill", "top", "where", "workers", "catalog", "ddl", "mb", "name"}
    handled = {*PLACES, *FILES, "tables_and_sql"}
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name in DRIVER_CPUS:
        unknown = {parameter.name for parameter in commands[name].params} - values - handled
        assert not unknown, name


def test_files_of_a_query_keep_their_names(tmp_path: Path) -> None:
    """Its views are named after them."""
    files = [tmp_path / "shifts.csv", tmp_path / "lines.csv"]
    for file in files:
        file.write_text("a\n1\n")
    words = ["query", "s3://b/t", "SELECT 1", *(f"--with={file}" for file in files)]
    package = package_command(words, {"tables": ["s3://b/t"], "with_": [str(f) for f in files]})
    assert package.arguments[3:] == ("--with=files/with/shifts.csv", "--with=files/with/lines.csv")
    assert list(package.files.values()) == files


def test_a_large_file_does_not_go_along(tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(ConfigError, match=r"^--labels .*labels\.csv has more than 32 MB"):
        package_command(["index"], {"labels": str(tmp_path / "labels.csv")})


def test_typing_errors_are_told_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--eppochs" in refusal(["submit", "--", "train", "vae", "/a", "--eppochs"], capsys)
    assert refusal(["submit", "--", "demo"], capsys).startswith("ganad: demo is not a command that")


# Clusters that are none


@pytest.fixture
def other_server() -> Iterator[str]:
    """A web server that is not Ray's."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_address_without_a_cluster_is_reported(other_server: str) -> None:
    with pytest.raises(ClusterError, match=r"^--address http://127.0.0.1:9 does not answer: start"):
        JobServer("http://127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"^--address head:6379 is not the address of a job"):
        JobServer("head:6379")
    with pytest.raises(ClusterError, match=r"answers, but is not a Ray job server"):
        JobServer(other_server)


def test_the_token_is_looked_for_where_ray_looks_for_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n")
    mode = {"RAY_AUTH_MODE": "token"}
    assert find_token({**mode, "RAY_AUTH_TOKEN_PATH": str(file)}) == "abc"
    assert find_token({**mode, "RAY_AUTH_TOKEN_PATH": str(file), "RAY_AUTH_TOKEN": "d"}) == "d"
    assert find_token({**mode, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent")}) is None
    assert find_token({"RAY_AUTH_TOKEN_PATH": str(file)}) is None, "authentication is off"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:9", r"does not answer \(Connection refused\): start"),
        ("http://head:8265", "is a job server: type ganad submit --address http://head:8265"),
        ("nonsense", "cannot be joined"),
    ],
)
def test_an_address_in_the_environment_without_a_cluster_is_told(
    address: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    if ray.is_initialized():
        pytest.skip("the session's own Ray runs in this process, and a process has one")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match=f"^RAY_ADDRESS={address} {says}"), connected():
        pass


# A real cluster

TRAIN = ["--set", "image_size=16", "--set", "channels=1", "--set", "width=8", "--no-gpu"]


@pytest.mark.slow
def test_a_job_runs_and_its_log_and_status_come_back(cluster: Any) -> None:
    done = cluster.ganad("submit", "--", "detectors")
    assert done.returncode == 0, done.stderr
    assert "GANomaly" in done.stdout
    (job,) = re.findall(r"submitted (ganad-detectors-\w+) to", done.stderr)
    assert not re.search("INFO|WARN", done.stderr)
    assert cluster.ganad("logs", job).stdout == done.stdout
    # What was typed goes before what the environment says.
    listed = cluster.ganad("jobs", "--format", "json", RAY_ADDRESS="http://127.0.0.1:9")
    rows = {row["job"]: row for row in json.loads(listed.stdout)}
    assert rows[job]["status"] == "succeeded"
    assert rows[job]["command"] == "ganad detectors"
    assert f"{job} has already finished" in cluster.ganad("stop", job).stderr


@pytest.mark.slow
def test_a_job_that_fails_says_why_and_gives_its_status(cluster: Any, tmp_path: Path) -> None:
    done = cluster.ganad("submit", "--", "show", str(tmp_path))
    assert done.returncode == 1
    assert f"ganad: {tmp_path}" in done.stdout
    assert "has failed; submit the same command again to continue" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"RAY_AUTH_TOKEN_PATH": ""}, "needs a token"),
        ({"RAY_AUTH_TOKEN": "of another cluster"}, "rejects this token"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "needs a token"),
    ],
)
def test_a_request_without_the_token_is_refused_in_one_sentence(
    environment: dict[str, str], says: str, cluster: Any
) -> None:
    for arguments in (["jobs"], ["submit", "--", "detectors"], ["stop", "some-job"]):
        done = cluster.ganad(*arguments, **environment)
        assert done.returncode == 1
        assert re.fullmatch(
            rf"ganad: --address {cluster.address} {says}: set RAY_AUTH_TOKEN_PATH .* head\n",
            done.stderr,
        ), done.stderr


@pytest.mark.slow
def test_a_driver_without_the_token_is_refused_in_one_sentence(
    cluster: Any, image_folder: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "model")
    command = cluster.command("train", "ganomaly", str(image_folder / "train"), "--out", out)
    command = [word for word in command if word not in ("--address", cluster.address)]
    done = subprocess.run(
        command,
        env={**cluster.user(), "RAY_AUTH_TOKEN": "wrong", "RAY_ADDRESS": cluster.gcs},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "gcs_client" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert re.match(rf"ganad: RAY_ADDRESS={cluster.gcs} cannot be joined .*RAY_AUTH_TOKEN", line)


@pytest.mark.slow
def test_the_tree_that_submits_is_the_code_that_runs(
    cluster: Any, image_folder: Path, tmp_path: Path
) -> None:
    """In the driver and in the workers, whatever ganad is installed on the cluster."""
    tree = tmp_path / "tree"
    for package in ("ganad", "pipelines"):
        shutil.copytree(ROOT / package, tree / package)
    init = tree / "ganad" / "__init__.py"
    text, num = re.subn(r'__version__ = ".*"', '__version__ = "0.0.0+sent"', init.read_text())
    assert num == 1
    init.write_text(text)
    model = tmp_path / "model"
    train = ["train", "ganomaly", str(image_folder / "train"), "--out", str(model), *TRAIN]
    node = cluster.add()
    try:
        done = subprocess.run(
            cluster.command("submit", "--", *train, "--set", "epochs=1"),
            env={**cluster.user(), "PYTHONPATH": str(tree)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    finally:
        cluster.lose(node)
    assert done.returncode == 0, done.stdout + done.stderr
    info = json.loads((model / "model.json").read_text())
    assert info["versions"]["ganad"] == "0.0.0+sent"


@pytest.mark.slow
def test_ctrl_c_detaches_and_the_same_command_comes_back(
    cluster: Any, image_folder: Path, tmp_path: Path
) -> None:
    """While the cluster has no worker node, the job waits for one: nothing here is a race."""
    model = tmp_path / "model"
    train = ["train", "ganomaly", str(image_folder / "train"), "--out", str(model), *TRAIN]
    train += ["--set", "epochs=2"]
    user = subprocess.Popen(
        cluster.command("submit", "--", *train),
        env=cluster.user(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    assert any("indexed" in line for line in user.stdout)
    user.send_signal(signal.SIGINT)
    said = user.communicate(timeout=300)[1]
    assert user.returncode == 130
    (back,) = re.findall(r"keeps running. To follow it again: ganad (.*)", said)
    job = back.split()[1]
    again = cluster.ganad("submit", "--detach", "--", *train)
    assert again.returncode == 0
    assert f"{job} already runs this command" in again.stderr
    other = cluster.ganad("submit", "--", *train, "--set", "width=16")
    assert other.returncode == 1
    assert re.match(rf"ganad: --out {model} is being written by the job {job}", other.stderr)
    stopped = cluster.ganad("stop", job)
    assert stopped.returncode == 0
    assert f"{job} has been stopped" in stopped.stderr
    logs = cluster.ganad("logs", job)
    assert logs.returncode == 1
    assert "has been stopped" in logs.stderr
    assert "stopped; run the same command again to continue" in logs.stdout + logs.stderr
    assert "Traceback" not in logs.stdout + logs.stderr
    node = cluster.add()
    try:
        finished = cluster.ganad("submit", "--", *train)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert "indexed" not in finished.stdout  # its first run has done that
        assert (model / "model.json").exists()
        again = cluster.ganad("submit", "--", *train)
        assert again.returncode == 0
        assert "is trained already" in again.stdout
    finally:
        cluster.lose(node)
