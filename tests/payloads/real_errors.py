"""Errors of real packages, raised as applications raise them, for ``real_errors.json``.

Run as a program in an environment that has the packages, it prints what DBOS's own serializer
stores of each, with the class and the ``str()`` that Python gives::

    python tests/payloads/real_errors.py 2.0.0=UNPACKED … > tests/payloads/real_errors.json

UNPACKED is the directory of another version's wheel, whose DBOS errors are added. What an installed
package raises today is compared too, by ``test_real_errors.py``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

Maker = Callable[[], BaseException]


def _raised(function: Callable[..., Any], *args: Any, **kwargs: Any) -> BaseException:
    """Return what a call raises."""
    try:
        function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - whatever it is, is what is asked for
        error.__traceback__ = None
        return error
    raise AssertionError(f"{function} raised nothing")


def _throw(error: BaseException) -> None:
    raise error


def _standard() -> Iterator[tuple[str, Maker]]:
    import configparser
    import decimal
    import email.errors
    import http.client
    import ipaddress
    import queue
    import shutil
    import smtplib
    import socket
    import sqlite3
    import ssl
    import struct
    import subprocess
    import urllib.error
    import uuid
    import xml.etree.ElementTree as ET
    import zoneinfo

    yield "ValueError", lambda: ValueError("no card")
    yield "ValueError of nothing", lambda: ValueError()
    yield "ValueError of two", lambda: ValueError("no card", 402)
    yield "ValueError of bytes", lambda: ValueError(b"\xff")
    yield "KeyError", lambda: _raised(lambda: {}["sku"])
    yield "KeyError of a number", lambda: _raised(lambda: {}[17])
    yield "IndexError", lambda: _raised(lambda: [][3])
    yield "AttributeError", lambda: _raised(lambda: None.total)  # type: ignore[attr-defined]
    yield "NameError", lambda: _raised(lambda: undefined_name)  # type: ignore[name-defined]  # noqa: F821
    yield "ImportError", lambda: _raised(__import__, "no_such_module_here")
    yield "ZeroDivisionError", lambda: _raised(lambda: 1 / 0)
    yield "AssertionError", lambda: AssertionError("total is off")
    yield "TypeError", lambda: _raised(len, 5)
    yield "FileNotFoundError", lambda: _raised(open, "/no/such/file")
    yield "OSError of two files", lambda: OSError(18, "Invalid cross-device link", "/a", None, "/b")
    yield "OSError of a text", lambda: OSError("disk is gone")
    yield "PermissionError", lambda: PermissionError(13, "Permission denied")
    yield "TimeoutError", lambda: TimeoutError()
    yield "ConnectionRefusedError", lambda: ConnectionRefusedError(111, "Connection refused")
    yield "UnicodeDecodeError", lambda: _raised(b"ab\xff".decode, "utf-8")
    yield "UnicodeDecodeError of more", lambda: _raised(b"ab\xc3\x28"[:3].decode, "utf-8")
    yield "UnicodeEncodeError", lambda: _raised("aé".encode, "ascii")
    yield "UnicodeEncodeError of more", lambda: _raised("aééé".encode, "ascii")
    yield "SyntaxError", lambda: _raised(compile, "a b", "rules.py", "exec")
    yield "StopIteration", lambda: StopIteration(3)
    yield "ExceptionGroup", lambda: ExceptionGroup("many", [ValueError("a"), KeyError("b")])
    yield "ExceptionGroup of one", lambda: ExceptionGroup("many", [ValueError("a")])
    yield "SystemExit", lambda: SystemExit(3)
    yield "json", lambda: _raised(json.loads, "{")
    yield (
        "subprocess status",
        lambda: subprocess.CalledProcessError(2, ["tar", "x"], b"out", b"err"),
    )
    yield "subprocess signal", lambda: subprocess.CalledProcessError(-9, "tar x")
    yield "subprocess timeout", lambda: subprocess.TimeoutExpired("tar x", 5)
    yield "socket.gaierror", lambda: socket.gaierror(-2, "Name or service not known")
    yield "ssl", lambda: ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    yield "ssl certificate", lambda: ssl.SSLCertVerificationError(1, "certificate verify failed")
    yield "urllib", lambda: urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))
    yield "http.client", lambda: http.client.RemoteDisconnected("Remote end closed connection")
    yield "http.client read", lambda: http.client.IncompleteRead(b"abc", 10)
    yield "http.client read of unknown", lambda: http.client.IncompleteRead(b"abc")
    yield "smtplib", lambda: smtplib.SMTPAuthenticationError(535, b"bad credentials")
    yield "smtplib recipients", lambda: smtplib.SMTPRecipientsRefused({"a@b.c": (550, b"no")})
    yield "sqlite3", lambda: _raised(sqlite3.connect(":memory:").execute, "select * from nothing")
    yield "configparser", lambda: configparser.NoOptionError("host", "smtp")
    yield "configparser section", lambda: configparser.NoSectionError("smtp")
    yield "decimal", lambda: _raised(decimal.Decimal, "x")
    yield "struct", lambda: _raised(struct.unpack, "i", b"a")
    yield "zoneinfo", lambda: _raised(zoneinfo.ZoneInfo, "Nowhere/Land")
    yield "xml", lambda: _raised(ET.fromstring, "<a>")
    yield "queue", queue.Empty
    yield "shutil", lambda: shutil.Error([("a", "b", "no")])
    yield "ipaddress", lambda: _raised(ipaddress.ip_address, "10.0.0")
    yield "uuid", lambda: _raised(uuid.UUID, "x")
    yield "email", lambda: email.errors.HeaderParseError("bad header")


def _dbos() -> Iterator[tuple[str, Maker]]:
    from dbos import _error as e

    yield (
        "retries",
        lambda: e.DBOSMaxStepRetriesExceeded("charge", 3, [ValueError("a"), KeyError("b")]),
    )
    yield "retries of none", lambda: e.DBOSMaxStepRetriesExceeded("charge", 3, [])
    yield "not authorized", lambda: e.DBOSNotAuthorizedError("Function f has required roles")
    yield "deduplicated", lambda: e.DBOSQueueDeduplicatedError("w-1", "emails", "d-1")
    yield "awaited cancelled", lambda: e.DBOSAwaitedWorkflowCancelledError("w-1")
    yield (
        "cancelled",
        lambda: e.DBOSWorkflowCancelledError("Workflow w-1 is cancelled. Aborting function"),
    )
    yield "conflicting ID", lambda: e.DBOSWorkflowConflictIDError("w-1")
    yield "conflicting workflow", lambda: e.DBOSConflictingWorkflowError("w-1", "another name")
    yield "recovery", lambda: e.DBOSRecoveryError("w-1", "no such function")
    yield "initialization", lambda: e.DBOSInitializationError("no database")
    yield (
        "function not found",
        lambda: e.DBOSWorkflowFunctionNotFoundError("w-1", "no such function"),
    )
    yield "non-existent", lambda: e.DBOSNonExistentWorkflowError("parent", "w-1")
    yield "recovery attempts", lambda: e.MaxRecoveryAttemptsExceededError("w-1", 50)
    yield "unexpected step", lambda: e.DBOSUnexpectedStepError("w-1", 3, "charge", "refund")
    if hasattr(e, "DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded"):
        yield (
            "awaited recovery attempts",
            lambda: e.DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded("w-1"),
        )
    if hasattr(e, "DBOSStepTimeoutError"):
        yield "stream timeout", lambda: e.DBOSStreamTimeoutError("w-1", "tokens", 2.5)
        yield "stream ended", lambda: e.DBOSStreamTimeoutError("w-1", "tokens")
        yield "stream order", lambda: e.DBOSStreamNondeterminismError("w-1", "tokens")
        yield "recovery attempts unknown", lambda: e.MaxRecoveryAttemptsExceededError("w-1")
        yield "step timeout", lambda: e.DBOSStepTimeoutError("charge", 1.5)
        yield "patch", lambda: e.DBOSPatchNondeterminismError("w-1", "p-1", "it was not there")
    if hasattr(e, "DBOSQueryTimeoutError"):
        yield "query timeout", lambda: e.DBOSQueryTimeoutError(30.0)
    if hasattr(e, "DBOSWorkflowIDInUseError"):
        yield "ID in use", lambda: e.DBOSWorkflowIDInUseError("w-1", "PENDING", "checkout")
        yield "step order", lambda: e.DBOSStepNondeterminismError("w-1", 3)

    class Own(e.DBOSException):
        def __init__(self, order: str) -> None:
            self.order = order
            super().__init__(f"Order {order} is lost")

    Own.__qualname__ = "Own"
    globals()["Own"] = Own
    yield "a class of the application's", lambda: Own("o-1")


def _sqlalchemy() -> Iterator[tuple[str, Maker]]:
    import sqlalchemy as sa

    engine = sa.create_engine("sqlite://")

    def run(statement: str, parameters: Any = None) -> BaseException:
        with engine.connect() as connection:
            return _raised(connection.execute, sa.text(statement), parameters)

    def twice() -> BaseException:
        with engine.connect() as connection:
            connection.execute(sa.text("create table t (id integer primary key)"))
            return _raised(
                connection.execute, sa.text("insert into t values (:id)"), [{"id": 1}, {"id": 1}]
            )

    yield "no table", lambda: run("select * from nothing where a = :a", {"a": 1})
    yield "no parameters", lambda: run("select * from nothing")
    yield "twice", twice
    yield (
        "hidden",
        lambda: sa.exc.IntegrityError("insert", {"a": 1}, ValueError("no"), hide_parameters=True),
    )
    yield (
        "many parameters",
        lambda: sa.exc.IntegrityError(
            "insert", [{"a": n} for n in range(40)], ValueError("no"), ismulti=True
        ),
    )
    yield (
        "long parameters",
        lambda: sa.exc.IntegrityError("insert", {"a": "x" * 900}, ValueError("no")),
    )
    yield "no result", lambda: _raised(run_one, engine)
    yield "no module", lambda: _raised(sa.create_engine, "nothing://")
    yield "argument", lambda: sa.exc.ArgumentError("wrong", code="abcd")
    yield "timeout", lambda: sa.exc.TimeoutError("QueuePool limit of size 5 reached", code="3o7r")
    yield "compile", lambda: sa.exc.CompileError("cannot compile")
    yield "statement", lambda: _raised(engine.connect().execute, sa.text("select :a"), {"b": 1})
    from sqlalchemy.orm import exc as orm

    yield "stale", lambda: orm.StaleDataError("expected 1 row")
    yield "no such", lambda: sa.exc.NoSuchTableError("orders")


def run_one(engine: Any) -> None:
    import sqlalchemy as sa

    with engine.connect() as connection:
        connection.execute(sa.text("select 1 where 1 = 0")).one()


def _psycopg() -> Iterator[tuple[str, Maker]]:
    import psycopg

    yield "psycopg", lambda: psycopg.errors.UniqueViolation("duplicate key value")
    yield "refused", lambda: _raised(psycopg.connect, "host=127.0.0.1 port=1 connect_timeout=2")


def _requests() -> Iterator[tuple[str, Maker]]:
    import requests

    def answered(status: int) -> requests.Response:
        response = requests.Response()
        response.status_code, response.reason = status, "Service Unavailable"
        response.url = "https://api.example/orders"
        response._content = b"{}"
        response.request = requests.Request("GET", response.url).prepare()
        return response

    yield "status", lambda: _raised(answered(503).raise_for_status)
    yield "refused", lambda: _raised(requests.get, "http://127.0.0.1:1/orders")
    yield "timeout", lambda: requests.exceptions.ReadTimeout("read timed out")
    yield "no scheme", lambda: _raised(requests.get, "orders")
    yield "no JSON", lambda: _raised(requests.compat.json.loads, "<html>")
    broken = answered(200)
    broken._content = b"<html>"
    yield "answer is no JSON", lambda: _raised(broken.json)


def _urllib3() -> Iterator[tuple[str, Maker]]:
    import urllib3

    pool = urllib3.PoolManager()
    yield (
        "refused",
        lambda: _raised(pool.request, "GET", "http://127.0.0.1:1/a", retries=urllib3.Retry(0)),
    )
    yield "location", lambda: urllib3.exceptions.LocationParseError("a:b:c")


def _httpx() -> Iterator[tuple[str, Maker]]:
    import httpx

    request = httpx.Request("GET", "https://api.example/orders")
    yield "status", lambda: _raised(httpx.Response(503, request=request).raise_for_status)
    yield "refused", lambda: _raised(httpx.get, "http://127.0.0.1:1/orders")
    yield "timeout", lambda: httpx.ReadTimeout("timed out", request=request)
    yield "timeout unsaid", lambda: httpx.ReadTimeout("")
    yield "URL", lambda: _raised(httpx.get, "orders")


def _starlette() -> Iterator[tuple[str, Maker]]:
    from starlette.exceptions import HTTPException, WebSocketException

    yield "named", lambda: HTTPException(status_code=404, detail="no such order")
    yield "by place", lambda: HTTPException(404, "no such order")
    yield "status alone", lambda: HTTPException(404)
    yield "websocket", lambda: WebSocketException(code=1008, reason="no")


def _fastapi() -> Iterator[tuple[str, Maker]]:
    from fastapi import HTTPException
    from fastapi.exceptions import RequestValidationError, ResponseValidationError

    yield "named", lambda: HTTPException(status_code=404, detail="no such order")
    yield "detail is a dict", lambda: HTTPException(422, detail={"sku": "unknown"})
    yield "headers", lambda: HTTPException(status_code=401, detail="no", headers={"a": "b"})
    yield "request", lambda: RequestValidationError([{"loc": ("body", "sku"), "msg": "missing"}])
    yield "response", lambda: ResponseValidationError([{"loc": ("body", "sku"), "msg": "missing"}])


def _pydantic() -> Iterator[tuple[str, Maker]]:
    import pydantic

    class Order(pydantic.BaseModel):
        sku: str
        count: int

    class Checked(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(hide_input_in_errors=True)
        sku: str = pydantic.Field(min_length=3)

    yield "one", lambda: _raised(Order, sku="a-1", count="many")
    yield "two", lambda: _raised(Order, sku=17)
    yield "hidden", lambda: _raised(Checked, sku="a")
    yield "function", lambda: _raised(pydantic.TypeAdapter(int).validate_python, "x")
    yield "JSON", lambda: _raised(Order.model_validate_json, "{")
    yield "strict", lambda: _raised(pydantic.TypeAdapter(bool).validate_python, "x", strict=True)

    def deny(value: int) -> int:
        raise ValueError("too many")

    from typing import Annotated

    limited = pydantic.TypeAdapter(Annotated[int, pydantic.AfterValidator(deny)])
    yield "own validator", lambda: _raised(limited.validate_python, 3)
    yield "user", lambda: _raised(_schema_error)


def _schema_error() -> None:
    import pydantic

    pydantic.create_model("Bad", field=(object(), ...))


def _botocore() -> Iterator[tuple[str, Maker]]:
    from botocore import exceptions as e

    yield "endpoint", lambda: e.EndpointConnectionError(endpoint_url="https://s3.example")
    yield "credentials", e.NoCredentialsError
    yield (
        "partial credentials",
        lambda: e.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
    )
    yield (
        "client",
        lambda: e.ClientError(
            {
                "Error": {"Code": "AccessDenied", "Message": "Access Denied"},
                "ResponseMetadata": {
                    "HTTPStatusCode": 403,
                    "RetryAttempts": 2,
                    "MaxAttemptsReached": True,
                },
            },
            "PutObject",
        ),
    )
    yield "client alone", lambda: e.ClientError({"Error": {"Code": "404"}}, "HeadObject")
    yield "connect timeout", lambda: e.ConnectTimeoutError(endpoint_url="https://s3.example")
    yield "read timeout", lambda: e.ReadTimeoutError(endpoint_url="https://s3.example")
    yield "HTTP", lambda: e.HTTPClientError(error=ValueError("odd"))
    yield "SSL", lambda: e.SSLError(endpoint_url="https://s3.example", error="bad certificate")
    yield "connection closed", lambda: e.ConnectionClosedError(endpoint_url="https://s3.example")
    yield "parameters", lambda: e.ParamValidationError(report='Missing required parameter: "Key"')
    yield "region", e.NoRegionError
    yield "profile", lambda: e.ProfileNotFound(profile="prod")
    yield (
        "waiter",
        lambda: e.WaiterError(
            name="BucketExists", reason="Max attempts exceeded", last_response={}
        ),
    )
    yield "token", e.UnauthorizedSSOTokenError
    yield "service", lambda: e.UnknownServiceError(service_name="s4", known_service_names=["s3"])
    yield "streaming", lambda: e.ResponseStreamingError(error="cut")
    yield "data", lambda: e.IncompleteReadError(actual_bytes=3, expected_bytes=9)


def _boto3() -> Iterator[tuple[str, Maker]]:
    import boto3

    client = boto3.client(
        "s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    yield (
        "no such key",
        lambda: client.exceptions.NoSuchKey(
            {"Error": {"Code": "NoSuchKey", "Message": "The key does not exist."}}, "GetObject"
        ),
    )
    yield "upload", lambda: boto3.exceptions.S3UploadFailedError("Failed to upload a to b")


def _grpc() -> Iterator[tuple[str, Maker]]:
    import grpc
    from grpc import aio

    yield (
        "aio",
        lambda: aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), "no connection", "debug"
        ),
    )
    yield "RpcError", lambda: grpc.RpcError("broken")
    channel = grpc.insecure_channel("127.0.0.1:1")
    yield "call", lambda: _raised(channel.unary_unary("/a/b"), b"", timeout=1)


def _google() -> Iterator[tuple[str, Maker]]:
    from google.api_core import exceptions as e

    yield "not found", lambda: e.NotFound("bucket missing")
    yield "quota", lambda: e.ResourceExhausted("quota", errors=({"reason": "rate"},))
    yield (
        "retry",
        lambda: e.RetryError("Timeout of 60s exceeded", cause=e.ServiceUnavailable("503")),
    )


def _openai() -> Iterator[tuple[str, Maker]]:
    import httpx
    import openai

    request = httpx.Request("POST", "https://api.openai.com/v1/chat")
    response = httpx.Response(429, request=request, json={"error": {"message": "slow down"}})
    yield (
        "rate",
        lambda: openai.RateLimitError(
            "Error code: 429 - slow down", response=response, body={"message": "slow down"}
        ),
    )
    yield "connection", lambda: openai.APIConnectionError(request=request)
    yield "timeout", lambda: openai.APITimeoutError(request=request)
    yield "configuration", lambda: openai.OpenAIError("The api_key client option must be set")
    yield "length", lambda: _raised(_length)


def _length() -> None:
    import openai

    raise openai.ContentFilterFinishReasonError


def _anthropic() -> Iterator[tuple[str, Maker]]:
    import anthropic
    import httpx

    request = httpx.Request("POST", "https://api.anthropic.com/v1/messages")
    response = httpx.Response(529, request=request, json={})
    yield (
        "overloaded",
        lambda: anthropic.InternalServerError(
            "Error code: 529 - Overloaded", response=response, body=None
        ),
    )
    yield "connection", lambda: anthropic.APIConnectionError(request=request)


def _aiohttp() -> Iterator[tuple[str, Maker]]:
    import aiohttp
    from aiohttp.client_reqrep import ConnectionKey, RequestInfo
    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL

    url = URL("https://api.example/orders")
    info = RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url)
    key = ConnectionKey("api.example", 443, True, True, None, None, None)
    yield "status", lambda: aiohttp.ClientResponseError(info, (), status=503, message="Unavailable")
    yield "content", lambda: aiohttp.ContentTypeError(info, (), status=200, message="no JSON")
    yield "refused", lambda: aiohttp.ClientConnectorError(key, OSError(111, "Connection refused"))
    yield "timeout", lambda: aiohttp.ServerTimeoutError("Connection timeout to host")
    yield "URL", lambda: aiohttp.InvalidURL("orders")
    yield "disconnected", aiohttp.ServerDisconnectedError
    yield "payload", lambda: aiohttp.ClientPayloadError("Response payload is not completed")


def _redis() -> Iterator[tuple[str, Maker]]:
    import redis

    yield "refused", lambda: _raised(redis.Redis(port=1, socket_timeout=1).ping)
    yield "response", lambda: redis.ResponseError("WRONGTYPE Operation")


def _pymongo() -> Iterator[tuple[str, Maker]]:
    from pymongo import errors as e

    yield "duplicate", lambda: e.DuplicateKeyError("E11000 duplicate key", 11000, {"code": 11000})
    yield "bulk", lambda: e.BulkWriteError({"writeErrors": [], "nInserted": 0})
    yield "selection", lambda: e.ServerSelectionTimeoutError("localhost:27017: refused")


def _elasticsearch() -> Iterator[tuple[str, Maker]]:
    import elasticsearch

    yield "connection", lambda: elasticsearch.ConnectionError("refused")
    from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig

    answer = ApiResponseMeta(404, "1.1", HttpHeaders(), 0.1, NodeConfig("http", "es", 9200))
    yield (
        "not found",
        lambda: elasticsearch.NotFoundError(
            "index_not_found_exception", answer, {"error": {"root_cause": [{"type": "i"}]}}
        ),
    )


def _stripe() -> Iterator[tuple[str, Maker]]:
    import stripe

    yield (
        "card",
        lambda: stripe.CardError(
            "Your card was declined.",
            "number",
            "card_declined",
            http_status=402,
            headers={"request-id": "req_1"},
        ),
    )
    yield "connection", lambda: stripe.APIConnectionError("Could not connect")


def _tenacity() -> Iterator[tuple[str, Maker]]:
    import tenacity

    def always() -> None:
        raise ValueError("no")

    retried = tenacity.retry(stop=tenacity.stop_after_attempt(2))(always)
    yield "retry", lambda: _raised(retried)


def _django() -> Iterator[tuple[str, Maker]]:
    from django.core.exceptions import ObjectDoesNotExist, ValidationError

    yield "validation", lambda: ValidationError("Enter a value", code="required")
    yield "validation of many", lambda: ValidationError(["a", "b"])
    yield "validation by field", lambda: ValidationError({"sku": ["missing"]})
    yield "missing", lambda: ObjectDoesNotExist("Order matching query does not exist.")


def _celery() -> Iterator[tuple[str, Maker]]:
    from celery import exceptions as e

    yield "retry", lambda: e.Retry("again", ValueError("no"), 30)
    yield "limit", lambda: e.TimeLimitExceeded(30)
    yield "retries", lambda: e.MaxRetriesExceededError("Can't retry task")


def _asyncpg() -> Iterator[tuple[str, Maker]]:
    import asyncpg

    yield "unique", lambda: asyncpg.UniqueViolationError("duplicate key value")


def _paramiko() -> Iterator[tuple[str, Maker]]:
    import paramiko

    yield "authentication", lambda: paramiko.AuthenticationException("Authentication failed.")
    yield "type", lambda: paramiko.BadAuthenticationType("Bad type", ["publickey"])
    yield (
        "connections",
        lambda: paramiko.ssh_exception.NoValidConnectionsError(
            {("10.0.0.7", 22): ConnectionRefusedError(111, "no")}
        ),
    )


def _jsonschema() -> Iterator[tuple[str, Maker]]:
    import jsonschema

    yield "one", lambda: _raised(jsonschema.validate, 3, {"type": "string"})


def _click() -> Iterator[tuple[str, Maker]]:
    import click

    yield "usage", lambda: click.UsageError("no such option")
    yield "parameter", lambda: click.BadParameter("not a number", param_hint="--count")
    yield "file", lambda: click.FileError("a.txt", "gone")


def _jinja2() -> Iterator[tuple[str, Maker]]:
    import jinja2

    yield (
        "undefined",
        lambda: _raised(
            jinja2.Environment(undefined=jinja2.StrictUndefined).from_string("{{ a }}").render
        ),
    )
    yield "syntax", lambda: _raised(jinja2.Environment().from_string, "{% if %}")
    yield "template", lambda: jinja2.TemplateNotFound("mail.html")


def _werkzeug() -> Iterator[tuple[str, Maker]]:
    from werkzeug import exceptions as e

    yield "not found", lambda: e.NotFound("no such order")
    yield "not found unsaid", lambda: e.NotFound()


def _marshmallow() -> Iterator[tuple[str, Maker]]:
    import marshmallow

    yield "one", lambda: marshmallow.ValidationError({"sku": ["Missing data"]})


def _attrs() -> Iterator[tuple[str, Maker]]:
    import attr

    yield "frozen", attr.exceptions.FrozenInstanceError

    @attr.s(auto_exc=True)
    class Declined(Exception):
        order = attr.ib()
        code = attr.ib(default=402)

    Declined.__qualname__ = "Declined"
    globals()["Declined"] = Declined
    yield "a class of the application's", lambda: Declined("o-1")


def _docker() -> Iterator[tuple[str, Maker]]:
    import docker

    yield "image", lambda: docker.errors.ImageNotFound("no such image")
    yield "container", lambda: docker.errors.ContainerError("c-1", 2, "ls", "img", b"no such file")


def _jwt() -> Iterator[tuple[str, Maker]]:
    import jwt

    yield "expired", lambda: jwt.ExpiredSignatureError("Signature has expired")


def _azure() -> Iterator[tuple[str, Maker]]:
    from azure.core import exceptions as e

    yield "missing", lambda: e.ResourceNotFoundError("The blob does not exist.")
    yield "request", lambda: e.ServiceRequestError("Cannot connect to host")


def _twilio() -> Iterator[tuple[str, Maker]]:
    from twilio.base.exceptions import TwilioRestException

    yield "rest", lambda: TwilioRestException(400, "/Messages", "The number is invalid", code=21211)


def _slack() -> Iterator[tuple[str, Maker]]:
    from slack_sdk.errors import SlackApiError

    yield "API", lambda: SlackApiError("The request failed", {"ok": False, "error": "no_channel"})


def _kafka() -> Iterator[tuple[str, Maker]]:
    from kafka import errors as e

    yield "brokers", e.NoOffsetForPartitionError
    yield "timeout", lambda: e.KafkaTimeoutError("Batch expired")


def _pydantic_ai() -> Iterator[tuple[str, Maker]]:
    from pydantic_ai import exceptions as e

    yield "behaviour", lambda: e.UnexpectedModelBehavior("Exceeded maximum retries", "body")
    yield "HTTP", lambda: e.ModelHTTPError(429, "gpt-5", {"message": "slow down"})
    yield "retry", lambda: e.ModelRetry("again")


PACKAGES: dict[str, Callable[[], Iterator[tuple[str, Maker]]]] = {
    name.removeprefix("_"): maker
    for name, maker in list(globals().items())
    if name.startswith("_")
    and name not in ("_raised", "_throw", "_schema_error", "_length")
    and callable(maker)
    and getattr(maker, "__module__", "") == __name__
}


def made(package: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield the name, class, ``str()`` and stored form of a package's errors.

    Raises ImportError where the package is not installed.
    """
    from dbos._serialization import DefaultSerializer

    serializer = DefaultSerializer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, maker in PACKAGES[package]():
            error = maker()
            try:
                stored = serializer.serialize(error)
            except Exception as problem:  # noqa: BLE001 - then DBOS stores none either
                print(f"{package} {name}: {problem!r}", file=sys.stderr)
                continue
            cls = type(error)
            with contextlib.suppress(Exception):
                # botocore pickles a class that was made at run time as the one below it.
                cls = type(serializer.deserialize(stored))
            yield name, f"{cls.__module__}.{cls.__qualname__}", str(error), stored


def of_version(directory: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield the same of all errors of another version of DBOS, by what its constructors take."""
    import importlib
    import inspect
    import types

    from dbos._serialization import DefaultSerializer

    loaded = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("dbos")}
    package = types.ModuleType("dbos")
    package.__path__ = [f"{directory}/dbos"]
    sys.modules["dbos"] = package
    own = importlib.import_module("dbos._error")
    values = {"errors": [ValueError("a"), KeyError("b")], "max_retries": 3, "step_id": 3}
    for name, cls in vars(own).items():
        if not inspect.isclass(cls) or cls.__base__ not in (
            own.DBOSException,
            own.DBOSBaseException,
        ):
            continue
        taken = list(inspect.signature(cls.__init__).parameters)[1:]
        seconds = {"timeout_seconds": 2.5}
        error = cls(*((values | seconds).get(each, f"{each}-1") for each in taken))
        yield name, f"dbos._error.{name}", str(error), DefaultSerializer().serialize(error)
    del sys.modules["dbos"], sys.modules["dbos._error"]
    sys.modules |= loaded


def main(versions: dict[str, str]) -> None:
    """Print all as JSON."""
    import logging

    logging.disable()
    found: dict[str, list[tuple[str, str, str, str]]] = {}
    for package in PACKAGES:
        with contextlib.suppress(ImportError):
            found[package] = list(made(package))
        if package not in found:
            print(f"{package} is not installed", file=sys.stderr)
    known = {row[3] for row in found["dbos"]}
    for version, directory in versions.items():
        rows = [row for row in of_version(directory) if row[3] not in known]
        known |= {row[3] for row in rows}
        found[f"dbos {version}"] = rows
    found = {package: rows for package, rows in found.items() if rows}
    json.dump(found, sys.stdout, indent=0, ensure_ascii=False)


if __name__ == "__main__":
    main(dict(argument.split("=", 1) for argument in sys.argv[1:]))
