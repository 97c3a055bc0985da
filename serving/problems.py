"""Errors over HTTP as problem details (RFC 9457): expected, found, what to do. Never personal data."""

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving.errors import ServingError
from troth.errors import TrothError

_DOWN = (sqlite3.OperationalError, sqlite3.DatabaseError)


class FieldProblem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one field of one item: where it stands in what was sent, and never what it held."""

    position: int
    field: str
    detail: str


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`type` names the kind of problem for programs, `detail` tells a person what to do."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []


class ProblemError(Exception):
    """A request that cannot be answered as asked."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = headers or ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
        self.details = ProblemDetails(
            type=f"urn:troth:problem:{code}",
            title=code.replace("_", " ").capitalize(),
            status=status,
            detail=detail,
            errors=list(errors),
        )


def response(problem: ProblemError, told: bytes | None = None, kind: str = "application/problem+json") -> Response:
    """The answer of a problem, as problem details or as it is told otherwise."""
    return Response(
        told or msgspec.json.encode(problem.details), problem.details.status, problem.headers, media_type=kind
    )


def unavailable(error: Exception) -> ProblemError:
    """What is not to be had now, and in a second perhaps is: a store that is gone, nothing published yet, a damaged file.

    Raises: the error itself, where it is a fault of ours (SQL that is wrong) and none of a store.
    """
    if type(error) in _DOWN:  # in SQLite's words there may be a path, or what was asked
        error = ServingError(f"store: expected a database that can be read, found {type(error).__name__}. Ask again.")
    elif not isinstance(error, TrothError):
        raise error
    return ProblemError(503, "unavailable", str(error), headers={"Retry-After": "1"})


def on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 (registered for this class alone)
    return response(error)


def on_http(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: no such path, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "no_such_path", 405: "no_such_method"}.get(status, "refused")
    answer = response(
        ProblemError(status, code, "request: expected a path and method of /openapi.json, found another.")
    )
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


def on_refusal(request: Request, error: Exception) -> Response:
    """What the platform cannot answer now."""
    return response(unavailable(error))


def on_fault(request: Request, error: Exception) -> Response:
    """A fault of ours; what it says may hold data of a person, so it is not repeated."""
    return response(ProblemError(500, "fault", "answer: expected one, found a fault of the service. See its log."))
