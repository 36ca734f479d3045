"""The API's OpenAPI document as it is committed: `python -m deploy.openapi`, or `make openapi`."""

import json
from pathlib import Path
from typing import cast

import api
from services.gateway.parts import Parts

FILE = Path(__file__).parent.parent / "docs" / "openapi.json"


def document() -> str:
    """What the code describes now."""
    app = api.create_app(cast(Parts, None))  # it is only described, not served
    return json.dumps(app.openapi(), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(document())
