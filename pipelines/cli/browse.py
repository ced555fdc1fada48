"""Serves a score table to a web browser. Run: ganad browse TABLE [--port N] [--who NAME]"""

from __future__ import annotations

import getpass
import secrets
import socket
from urllib.parse import urlencode

import uvicorn

from ganad.browse.app import Browser
from ganad.errors import ConfigError
from ganad.scores.table import ScoreTable
from pipelines.console.progress import say

HOST = "127.0.0.1"


def browse(
    table: str,
    port: int = 0,
    who: str | None = None,
    model: str | None = None,
    cache_mb: int = 256,
) -> None:
    """Serve the pages on this machine until Ctrl-C.

    port: 0 chooses a free one. who: name to record with verdicts; default: the user name. model:
    shown first, by the beginning of its id. cache_mb: maximum size of the picture cache.
    """
    scores = ScoreTable(table)
    first = _first(scores, model)
    listener = _listener(port)
    token = secrets.token_urlsafe(24)
    browser = Browser(scores, who or getpass.getuser(), token, cache_mb * 2**20)
    query = {"token": token} | ({"model": first} if first else {})
    say(f"browse {table} at http://{HOST}:{listener.getsockname()[1]}/?{urlencode(query)}")
    say("anyone with this URL can open the table; press Ctrl-C to stop")
    config = uvicorn.Config(browser.app(), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def _first(scores: ScoreTable, typed: str | None) -> str | None:
    if typed is None:
        return None
    for model in scores.models:
        if model.startswith(typed):
            return model
    raise ConfigError(
        f"--model {typed} has not scored {scores.typed}: choose among {', '.join(scores.models)}"
    )


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--port {port} cannot be opened ({error.strerror}): leave it out to use a free port"
        ) from error
    return listener
