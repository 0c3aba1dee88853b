"""The study's web page, and the service behind it."""

from __future__ import annotations

import json
from typing import Any

from glcic_hub.evaluation.pages import PAGES
from glcic_hub.evaluation.study import Study
from glcic_hub.files import first_line


def make_app(study: Study) -> Any:
    """Makes the study's web application (ASGI).

    Raises:
        ModuleNotFoundError: starlette is not installed; it comes with gradio.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    page = PAGES.get_template("study.html").render()

    async def entries(request: Request, *names: str) -> list[str]:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > 10_000:
                raise HTTPException(413, "the request is too large")
        try:
            values = json.loads(body)
            found = [values[name] for name in names]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise HTTPException(400, f"the request is to have {' and '.join(names)}, as JSON") from None
        if not all(isinstance(value, str) and value.isprintable() for value in found):
            raise HTTPException(400, f"{' and '.join(names)} are to be text")
        return found

    async def begin(request: Request) -> Response:
        (name,) = await entries(request, "name")
        return JSONResponse({"rater": await run_in_threadpool(study.add_rater, name)})

    def following(rater: str) -> Response:
        try:
            trial = study.next_trial(rater)
        except KeyError:
            raise HTTPException(404, "there is no such rater") from None
        return JSONResponse(trial._asdict() if trial else {"image": None})

    def show_next(request: Request) -> Response:
        return following(request.path_params["rater"])

    async def vote(request: Request) -> Response:
        image, answer = await entries(request, "image", "answer")
        rater = request.path_params["rater"]
        try:
            await run_in_threadpool(study.vote, rater, image, answer)
        except KeyError:
            raise HTTPException(404, "this rater was not shown this image") from None
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        return await run_in_threadpool(following, rater)

    def image(request: Request) -> Response:
        try:
            content = study.image(request.path_params["token"]).read_bytes()
        except KeyError:
            raise HTTPException(404, "there is no such image") from None
        # No name and no date: nothing but the content tells images apart.
        return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})

    def unavailable(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": first_line(error)}, 503)

    return Starlette(
        exception_handlers={OSError: unavailable},
        routes=[
            Route("/", lambda _: HTMLResponse(page)),
            Route("/raters", begin, methods=["POST"]),
            Route("/raters/{rater}", show_next),
            Route("/raters/{rater}/votes", vote, methods=["POST"]),
            Route("/images/{token}", image),
        ],
    )
