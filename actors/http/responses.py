"""Response bodies as HTTP responses. Pydantic writes them once; they are built by our own code, so nothing checks them again."""

from fastapi.responses import Response
from pydantic import BaseModel


def json_response(body: BaseModel, status: int = 200) -> Response:
    """A body as JSON."""
    return Response(body.model_dump_json(), status_code=status, media_type="application/json")
