"""The pages of `ganad browse`: a grid, one image, their pictures, and the verdicts.

Only the verdicts are ever written. Everything needs the token of the URL that the command prints;
a browser keeps it in a cookie that other sites cannot send.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ganad.archive.verdicts import CHOICES, Choice
from ganad.browse import pages
from ganad.browse.access import HOSTS, WithToken
from ganad.browse.pictures import (
    FULL_SIDE,
    THUMBNAIL_SIDE,
    HeatMaps,
    MissingError,
    Thumbnails,
)
from ganad.browse.selection import Rows, Selection
from ganad.browse.vectors import MAX_GROUPED, Vectors, grouped
from ganad.browse.vectors import NUM_TYPICAL as NUM_COMPARED
from ganad.browse.verdicts import Verdicts
from ganad.errors import GanadError
from ganad.report.scale import NUM_TYPICAL
from ganad.scores.table import ScoreTable


class Browser:
    """What the pages of one table share. who signs the verdicts; cache_bytes bounds the pictures.

    token: asked of every request.
    """

    def __init__(self, table: ScoreTable, who: str, token: str, cache_bytes: int) -> None:
        self.table, self.who, self.token = table, who, token
        self.rows = Rows(table)
        self.verdicts = Verdicts(table.uri, who)
        self.rows.set_verdicts(self.verdicts.known)
        self.thumbnails = Thumbnails(table, cache_bytes)
        self._lock = threading.Lock()
        self._heat: dict[str, HeatMaps] = {}
        self._vectors: dict[str, Vectors] = {}
        self._groups: dict[str, list[list[dict[str, Any]]]] = {}
        self._choices: dict[str, dict[str, list[str]]] = {}
        self._heat_bytes = cache_bytes // 4

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/", self._grid),
            Route("/image/{image_id}", self._image),
            Route("/thumbnail/{image_id}", self._thumbnail),
            Route("/full/{image_id}", self._full),
            Route("/heat/{image_id}", self._heat_map),
            Route("/similar/{image_id}", self._similar),
            Route("/verdict", self._judge, methods=["POST"]),
            Route("/undo", self._take_back, methods=["POST"]),
            Mount("/static", StaticFiles(packages=[("ganad.browse", "static")])),
        ]
        return Starlette(
            routes=routes,
            middleware=[
                Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),
                Middleware(WithToken, token=self.token),
            ],
            exception_handlers={
                GanadError: _said,
                MissingError: _said,
            },
        )

    # Pages.

    async def _grid(self, request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(self._grid_page, request.query_params))

    def _grid_page(self, parameters: Mapping[str, str]) -> str:
        selection = Selection.parse(parameters, self.table.models)
        total = self.rows.count(selection)
        if selection.groups:
            every = self._grouped(selection)
            start = (selection.page - 1) * selection.size
            groups, num = every[start : start + selection.size], len(every)
        else:
            groups, num = [[row] for row in self.rows.page(selection)], total
        beside: dict[str, dict[str, Any]] = {}
        if selection.beside is not None:
            shown = [group[0]["image_id"] for group in groups]
            beside = self.rows.of_images(selection.beside, shown)
        return pages.grid(
            title=self._title,
            models=self.table.models,
            selection=selection,
            groups=groups,
            beside=beside,
            total=total,
            num_cards=num,
            num_grouped=min(total, MAX_GROUPED),
            choices=self._choices_of(selection.model),
            num_verdicts=len(self.verdicts.known),
        )

    async def _image(self, request: Request) -> Response:
        return HTMLResponse(
            await run_in_threadpool(
                self._image_page, request.path_params["image_id"], request.query_params
            )
        )

    def _image_page(self, image_id: str, parameters: Mapping[str, str]) -> str:
        selection = Selection.parse(parameters, self.table.models)
        found = self.rows.all_models(image_id)
        if not found:
            raise HTTPException(404, f"{image_id} is not an image of this table")
        neighbours = self._neighbours(image_id, selection)
        return pages.image(
            title=self._title,
            selection=selection,
            rows=found,
            row=next((row for row in found if row["model"] == selection.model), found[0]),
            regions=self.rows.regions(selection.model, image_id),
            verdict=self.verdicts.known.get(image_id),
            previous=neighbours[0],
            next=neighbours[1],
        )

    def _neighbours(self, image_id: str, selection: Selection) -> tuple[str | None, str | None]:
        """URLs of the images before and after this one, across the borders of pages."""
        size = selection.size
        start = max(0, (selection.page - 1) * size - 1)
        if selection.groups:
            groups = self._grouped(selection)[start : start + size + 2]
        else:
            groups = [[row] for row in self.rows.ranked(selection, size + 2, start)]
        places = [place for place, group in enumerate(groups) if _holds(group, image_id)]
        if not places:
            return None, None

        def url(place: int) -> str | None:
            if not 0 <= place < len(groups):
                return None
            page = (start + place) // size + 1
            return f"/image/{groups[place][0]['image_id']}{selection.url(page=page)}"

        return url(places[0] - 1), url(places[0] + 1)

    @property
    def _title(self) -> str:
        return self.table.uri.rstrip("/").rpartition("/")[2]

    def _choices_of(self, model: str) -> dict[str, list[str]]:
        if model not in self._choices:
            self._choices[model] = self.rows.choices(model)
        return self._choices[model]

    # Pictures.

    async def _thumbnail(self, request: Request) -> Response:
        return await self._picture(request, self._jpeg(THUMBNAIL_SIDE), "image/jpeg")

    async def _full(self, request: Request) -> Response:
        return await self._picture(request, self._jpeg(FULL_SIDE), "image/jpeg")

    async def _heat_map(self, request: Request) -> Response:
        return await self._picture(request, self._heat_png, "image/png")

    async def _picture(
        self, request: Request, make: Callable[[dict[str, Any]], bytes], kind: str
    ) -> Response:
        image_id = request.path_params["image_id"]
        model = request.query_params.get("model") or self.table.models[0]
        rows = await run_in_threadpool(self.rows.of_images, model, [image_id])
        if image_id not in rows:
            raise HTTPException(404, f"{image_id} is not an image of {model}")
        try:
            data = await run_in_threadpool(make, {**rows[image_id], "model": model})
        except MissingError as error:
            return PlainTextResponse(str(error), 404)
        return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    def _jpeg(self, side: int) -> Callable[[dict[str, Any]], bytes]:
        return lambda row: self.thumbnails.jpeg(row, side)

    def _heat_png(self, row: dict[str, Any]) -> bytes:
        model = row["model"]
        with self._lock:
            if model not in self._heat:
                typical = self.rows.typical(model, NUM_TYPICAL)
                self._heat[model] = HeatMaps(self.table, model, typical, self._heat_bytes)
        return self._heat[model].png(row)

    # Near duplicates and similar images.

    def _vectors_of(self, model: str) -> Vectors:
        with self._lock:
            if model not in self._vectors:
                typical = self.rows.typical(model, NUM_COMPARED)
                self._vectors[model] = Vectors(self.table, typical)
            return self._vectors[model]

    def _grouped(self, selection: Selection) -> list[list[dict[str, Any]]]:
        """The selection's highest scores by group; kept until another selection is grouped."""
        key = selection.url(page=1, size=None, groups=None, heat=None, beside=None)
        # A verdict changes which images a filter by verdict lets through.
        if selection.verdict != "any" or selection.where:
            key += f"|{self.verdicts.num_written}"
        if key not in self._groups:
            rows = self.rows.ranked(selection, MAX_GROUPED)
            vectors = self._vectors_of(selection.model).of(rows)
            found = [[rows[i] for i in group] for group in grouped(vectors)]
            self._groups = {key: found}
        groups = self._groups[key]
        for group in groups:
            for row in group:
                verdict = self.verdicts.known.get(row["image_id"])
                row["verdict"] = None if verdict is None else verdict.verdict
        return groups

    async def _similar(self, request: Request) -> Response:
        selection = Selection.parse(request.query_params, self.table.models)
        image_id = request.path_params["image_id"]
        return HTMLResponse(await run_in_threadpool(self._similar_part, image_id, selection))

    def _similar_part(self, image_id: str, selection: Selection) -> str:
        rows = self.rows.of_images(selection.model, [image_id])
        if image_id not in rows:
            raise HTTPException(404, f"{image_id} is not an image of {selection.model}")
        similar = self._vectors_of(selection.model).similar(rows[image_id])
        return pages.similar(rows=similar, selection=selection)

    # Verdicts.

    async def _judge(self, request: Request) -> Response:
        given = await _json(request)
        choice, model = given.get("verdict"), given.get("model")
        ids = given.get("images")
        if choice not in CHOICES or model not in self.table.models or not isinstance(ids, list):
            raise HTTPException(400, "a verdict needs images, a model, and defect or false alarm")
        await run_in_threadpool(self._set, [str(one) for one in ids], choice, model)
        return JSONResponse({"verdict": choice, "images": ids, "total": len(self.verdicts.known)})

    def _set(self, ids: list[str], choice: Choice, model: str) -> None:
        rows = list(self.rows.of_images(model, ids).values())
        if not rows:
            raise HTTPException(404, "none of these is an image of the table")
        self.verdicts.judge(rows, choice, model)
        self.rows.set_verdicts(self.verdicts.known)

    async def _take_back(self, request: Request) -> Response:
        await _json(request)
        return JSONResponse(await run_in_threadpool(self._undo))

    def _undo(self) -> dict[str, Any]:
        restored = self.verdicts.undo()
        self.rows.set_verdicts(self.verdicts.known)
        return {"images": restored, "total": len(self.verdicts.known)}


def _holds(group: list[dict[str, Any]], image_id: str) -> bool:
    return any(row["image_id"] == image_id for row in group)


async def _json(request: Request) -> dict[str, Any]:
    # A form of another site cannot send this type without asking the browser first.
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise HTTPException(415, "send application/json")
    try:
        given = await request.json()
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise HTTPException(400, "send a JSON object")
    return given


def _said(request: Request, error: Exception) -> Response:
    """A wrong filter or a table that cannot be read, as a page that leads back."""
    return HTMLResponse(pages.problem(str(error)), 400)
