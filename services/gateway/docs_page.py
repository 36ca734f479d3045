"""`/docs`: the API to read and to try out, by Swagger UI. It all comes from here, so it works without the internet."""

from importlib import resources

from fastapi import FastAPI, Response
from starlette.exceptions import HTTPException

from services.gateway.conditional import IfNoneMatch
from services.gateway.headers import Public

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>street12: the API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# The validator would be somebody else's, and be told our address.
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
# Scripts from files only. The pictures of the style sheet are data: URLs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def install_docs(app: FastAPI) -> None:
    """The page, and the files that it is made of."""
    swagger = resources.files("fastapi_swagger.resources")
    page = Public(_PAGE.encode(), "text/html", {"Content-Security-Policy": _POLICY})
    files = {
        name: Public((swagger / name).read_bytes(), media_type)
        for name, media_type in (
            ("favicon-32x32.png", "image/png"),
            ("swagger-ui-bundle.js", "text/javascript"),
            ("swagger-ui.css", "text/css"),
        )
    }
    files["start.js"] = Public(_START.encode(), "text/javascript")

    @app.get("/docs", include_in_schema=False)
    async def show_docs(if_none_match: IfNoneMatch = None) -> Response:  # pyright: ignore[reportUnusedFunction]
        return page.answer(if_none_match)

    @app.get("/docs/{name}", include_in_schema=False)
    async def send_file(  # pyright: ignore[reportUnusedFunction]
        name: str, if_none_match: IfNoneMatch = None
    ) -> Response:
        if name not in files:
            raise HTTPException(404)
        return files[name].answer(if_none_match)
