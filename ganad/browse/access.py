"""Who may see the pages: the person who was given the URL with its token, on this machine."""

from __future__ import annotations

import hmac
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "ganad-token"
HOSTS = ["127.0.0.1", "localhost"]
"""A page elsewhere that points its own name at this machine has another host."""
HEADERS = {
    # No script but our file, nothing from elsewhere: a name with HTML in it could do nothing even
    # if it were not escaped.
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class WithToken:
    """Refuses every request without the token; sets the headers of every answer."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        typed = request.query_params.get("token")
        if typed is not None and hmac.compare_digest(typed.encode(), self.token.encode()):
            answer = Response(status_code=303, headers={"Location": _without_token(request)})
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", path="/")
            await answer(scope, receive, send)
            return
        kept = request.cookies.get(COOKIE, "")
        if not hmac.compare_digest(kept.encode(), self.token.encode()):
            refusal = PlainTextResponse(
                "This page needs the token: open the whole URL that ganad browse printed.\n", 403
            )
            await refusal(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((key.lower().encode(), value.encode()) for key, value in HEADERS.items()),
                ]
            await send(message)

        await self.app(scope, receive, with_headers)


def _without_token(request: Request) -> str:
    url = request.url.remove_query_params("token")
    return url.path + (f"?{url.query}" if url.query else "")
