"""Recorded errors: the class that was raised, and the message that ``str()`` would return."""

from __future__ import annotations

import builtins
import contextlib
import datetime as dt
import decimal
import fractions
import http
import itertools
import pathlib
import re
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from reprlib import recursive_repr
from typing import Any

from dbos_notebook.payloads.values import Opaque, Reference
from dbos_notebook.text import printable

_DBOS = {
    "DBOSConflictingWorkflowError": (
        "9: Conflicting workflow invocation with the same ID ({0}): {1}"
    ),
    "DBOSRecoveryError": "2: Recovery error for workflow ID {0}: {1}",
    "DBOSInitializationError": "3: Error initializing DBOS Transact: {0}",
    "DBOSWorkflowFunctionNotFoundError": "4: Could not execute workflow {0}: {1}",
    "DBOSNonExistentWorkflowError": "5: Non-existent {0} workflow ID: {1}",
    "DBOSNotAuthorizedError": "8: {0}",
    "DBOSWorkflowCancelledError": "10: {0}",
    "DBOSWorkflowConflictIDError": "1: {0}",
    "DBOSStepTimeoutError": (
        "18: Step {0} was cancelled after exceeding its timeout of {1} seconds"
    ),
    "DBOSUnexpectedStepError": (
        "11: During execution of workflow {0} step {1}, function {3} was recorded when {2} was "
        "expected. Check that your workflow is deterministic."
    ),
    "DBOSStepNondeterminismError": (
        "28: Step {1} of workflow {0} was recorded twice by the same execution with different "
        "results. Check that your workflow is deterministic."
    ),
    "DBOSPatchNondeterminismError": (
        "15: Cannot deterministically apply patch {1} in workflow {0}: {2}. Check that your "
        "workflow is deterministic."
    ),
    "DBOSStreamNondeterminismError": (
        "17: Cannot deterministically read stream {1} in workflow {0}: another stream read in the "
        "same workflow is still in progress, so which read records which value would depend on "
        "task scheduling. Read streams from sequential workflow code, or read them from a step."
    ),
    "DBOSQueueDeduplicatedError": (
        "12: Workflow {0} was deduplicated due to an existing workflow in queue {1} with "
        "deduplication ID {2}."
    ),
    "DBOSWorkflowIDInUseError": (
        "27: Workflow ID {0} is already in use by workflow {2} with status {1}."
    ),
    "DBOSAwaitedWorkflowCancelledError": "13: Awaited workflow {0} was cancelled",
    "DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded": (
        "14: Awaited workflow {0} exceeded its maximum recovery attempts"
    ),
}

_BOTOCORE = {
    "CapacityNotAvailableError": "Insufficient request capacity available.",
    "ChecksumError": (
        "Checksum {checksum_type} failed, expected checksum {expected_checksum} did not match "
        "calculated checksum {actual_checksum}."
    ),
    "ConfigNotFound": "The specified config file ({path}) could not be found.",
    "ConnectTimeoutError": 'Connect timeout on endpoint URL: "{endpoint_url}"',
    "ConnectionClosedError": (
        "Connection was closed before we received a valid response from endpoint URL: "
        '"{endpoint_url}".'
    ),
    "ConnectionError": "An HTTP Client failed to establish a connection: {error}",
    "CredentialRetrievalError": "Error when retrieving credentials from {provider}: {error_msg}",
    "DataNotFoundError": "Unable to load data for: {data_path}",
    "EndpointConnectionError": 'Could not connect to the endpoint URL: "{endpoint_url}"',
    "HTTPClientError": "An HTTP Client raised an unhandled exception: {error}",
    "IncompleteReadError": "{actual_bytes} read, but total bytes expected is {expected_bytes}.",
    "InvalidRegionError": (
        "Provided region_name '{region_name}' doesn't match a supported format."
    ),
    "MetadataRetrievalError": "Error retrieving metadata: {error_msg}",
    "MissingParametersError": (
        "The following required parameters are missing for {object_name}: {missing}"
    ),
    "NoAuthTokenError": "Unable to locate authorization token",
    "NoCredentialsError": "Unable to locate credentials",
    "NoRegionError": "You must specify a region.",
    "OperationNotPageableError": "Operation cannot be paginated: {operation_name}",
    "PaginationError": "Error during pagination: {message}",
    "ParamValidationError": "Parameter validation failed:\n{report}",
    "PartialCredentialsError": "Partial credentials found in {provider}, missing: {cred_var}",
    "ProfileNotFound": "The config profile ({profile}) could not be found",
    "ProxyConnectionError": 'Failed to connect to proxy URL: "{proxy_url}"',
    "ReadTimeoutError": 'Read timeout on endpoint URL: "{endpoint_url}"',
    "ResponseStreamingError": "An error occurred while reading from response stream: {error}",
    "SSLError": "SSL validation failed for {endpoint_url} {error}",
    "SSOTokenLoadError": "Error loading SSO Token: {error_msg}",
    "TokenRetrievalError": "Error when retrieving token from {provider}: {error_msg}",
    "UnauthorizedSSOTokenError": (
        "The SSO session associated with this profile has expired or is otherwise invalid. To "
        "refresh this SSO session run aws sso login with the corresponding profile."
    ),
    "UnknownEndpointError": (
        "Unable to construct an endpoint for {service_name} in region {region_name}"
    ),
    "UnknownRegionError": "Unknown region: '{region_name}'. {error_msg}",
    "UnknownServiceError": (
        "Unknown service: '{service_name}'. Valid service names are: {known_service_names}"
    ),
    "UnseekableStreamError": (
        "Need to rewind the stream {stream_object}, but stream is not seekable."
    ),
    "WaiterError": "Waiter {name} failed: {reason}",
}

GOOGLE_CODES = {
    **{"BadRequest": 400, "InvalidArgument": 400, "FailedPrecondition": 400, "OutOfRange": 400},
    **{"Unauthorized": 401, "Unauthenticated": 401, "Forbidden": 403, "PermissionDenied": 403},
    **{"NotFound": 404, "MethodNotAllowed": 405, "Conflict": 409, "AlreadyExists": 409},
    **{"Aborted": 409, "LengthRequired": 411, "PreconditionFailed": 412},
    **{"TooManyRequests": 429, "ResourceExhausted": 429, "Cancelled": 499},
    **{"InternalServerError": 500, "MethodNotImplemented": 501, "BadGateway": 502},
    **{"ServiceUnavailable": 503, "GatewayTimeout": 504, "DeadlineExceeded": 504},
}
"""The status codes that google.api_core's classes begin their messages with."""

TEMPLATES: dict[str, str] = {
    **{f"dbos._error.{name}": f"DBOS Error {words}" for name, words in _DBOS.items()},
    **{f"botocore.exceptions.{name}": words for name, words in _BOTOCORE.items()},
    "celery.exceptions.Retry": "{0}",
    "jinja2.exceptions.TemplateSyntaxError": "{0}",
    "paramiko.ssh_exception.BadAuthenticationType": "{0}; allowed types: {1!r}",
    "pydantic_ai.exceptions.ModelHTTPError": "status_code: {0}, model_name: {1}, body: {2}",
    "pydantic_ai.exceptions.UnexpectedModelBehavior": "{0}, body:\n{1}",
    "pymongo.errors.BulkWriteError": "batch op errors occurred, full error: {0!r}",
    "subprocess.TimeoutExpired": "Command '{0}' timed out after {1} seconds",
    "twilio.base.exceptions.TwilioRestException": "HTTP {status} error: {msg}",
    "urllib.error.URLError": "<urlopen error {0}>",
}
"""By class."""

MAX_NESTED = 6
"""Levels of errors within errors whose messages are composed; deeper ones show their record."""
MAX_LOOKED_AT = 10
"""Arguments that are looked at for a class, and attributes that are shown."""
MAX_LINES = 100
"""Problems of one validation error that are shown."""


class RecordedError:
    """An error as it was recorded; it is no exception and cannot be raised.

    Attributes
    ----------
    type
        The dotted name of the class that was raised.
    message
        What ``str()`` of it would give, as far as the record shows.
    args, kwargs
        What it was to be made with.
    state
        What was recorded of its attributes.
    notes, code, data
        Notes that were added to it; the code and data of a portable error.

    Examples
    --------
    >>> RecordedError("builtins.ValueError", ("no card",))
    ValueError('no card')
    >>> RecordedError("builtins.ValueError", ("no card",)).message
    'no card'
    >>> RecordedError("shop.Declined", state={"code": 402, "reason": "no funds"}).message
    '402: no funds'
    """

    __slots__ = ("args", "code", "data", "kwargs", "notes", "recorded_message", "state", "type")

    def __init__(
        self,
        type: str,  # noqa: A002 - the word for it
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        message: str | None = None,
        state: Any = None,
        code: Any = None,
        data: Any = None,
    ) -> None:
        self.type = type
        self.args = tuple(args)
        self.kwargs = kwargs or {}
        self.state: dict[Any, Any] = {}
        self.notes: list[Any] = []
        self.take_state(state)
        self.code = code
        self.data = data
        self.recorded_message = message

    @property
    def message(self) -> str:
        """What ``str()`` of the error would give."""
        # Made when it is asked for: the arguments may stand for far more than was recorded, which
        # is seen when all is decoded.
        return _message(self, 0) if self.recorded_message is None else self.recorded_message

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordedError):
            return NotImplemented
        names = RecordedError.__slots__
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]

    def take_state(self, state: Any) -> None:
        """Take what was recorded of the error's attributes."""
        if isinstance(state, dict):
            self.state = state
            notes = state.get("__notes__")
            self.notes = notes if isinstance(notes, list) else []

    @recursive_repr()
    def __repr__(self) -> str:
        # Not the message: that of an error within an error would be composed over and over.
        shown = [repr(arg) for arg in self.args]
        if not shown and self.recorded_message:
            shown.append(repr(self.recorded_message))
        shown += [f"{_shown_name(name)}={value!r}" for name, value in self.kwargs.items()]
        if not shown:
            shown = [f"{_shown_name(name)}={value!r}" for name, value in self.state.items()]
        if not shown and (message := self.message):
            # Of a class that always says the same: nothing is nested in it.
            shown = [repr(message)]
        return f"{_leaf(self.type)}({', '.join(shown)})"


def shown(value: Any) -> str:
    """Return a value's repr; of an error whose message is composed, its class and the message.

    Examples
    --------
    >>> shown(RecordedError("builtins.KeyError", ("sku",)))
    "KeyError('sku')"
    >>> shown(RecordedError("botocore.exceptions.NoCredentialsError"))
    'NoCredentialsError: Unable to locate credentials'
    """
    if not isinstance(value, RecordedError):
        return repr(value)
    message = value.message
    plain = ("", repr(value.args), *(repr(arg) for arg in value.args[:1]))
    if message in plain or value.args == (message,) or value.recorded_message is not None:
        return repr(value)
    return f"{_leaf(value.type)}: {message}"


def as_error(value: Any) -> RecordedError | None:
    """Return the error that a record of a call stands for; ``None`` for what is no such record.

    Its class is the one that was raised, also where the pickle names a function or a method that
    makes it.

    Examples
    --------
    >>> maker = "botocore.exceptions._exception_from_packed_args"
    >>> cls = Reference("botocore.exceptions.ProfileNotFound")
    >>> as_error(Opaque(maker, (cls, None, {"profile": "prod"}))).message
    'The config profile (prod) could not be found'
    """
    if type(value) is RecordedError:
        return value
    if type(value) is not Opaque:
        return None
    named, args, kwargs = _called(value)
    named, args, kwargs = _raised_class(named, args, kwargs)
    return RecordedError(named, args, kwargs, state=value.state)


def _called(value: Opaque) -> tuple[str, tuple[Any, ...], Mapping[str, Any]]:
    """Return what a record calls and with what, through ``functools.partial``."""
    named, args, kwargs = value.type, tuple(value.args), value.kwargs
    for _ in range(MAX_NESTED):
        called = args[0] if named == "call" and args else None
        if type(called) is not Opaque or called.type != "functools.partial":
            break
        state = called.state
        if type(state) is not tuple or len(state) != 4 or type(state[1]) is not tuple:
            break
        function, first, keywords = state[:3]
        args = (*first, *args[1:])
        kwargs = {**(keywords if type(keywords) is dict else {}), **kwargs}
        if type(function) is Reference:
            named = function.type
        else:
            args = (function, *args)
    return named, args, kwargs


def _raised_class(
    named: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, tuple[Any, ...], Mapping[str, Any]]:
    owner, _, last = named.rpartition(".")
    if _is_class(last):
        return named, args, kwargs
    if last != "__new__" and _is_class(_leaf(owner)):
        # A class method: pydantic_core.ValidationError.from_exception_data
        return owner, args, kwargs
    # A function that is given the class, and mostly its arguments beside or behind it.
    for place, arg in enumerate(args[:MAX_LOOKED_AT]):
        if type(arg) is Reference and _is_class(_leaf(arg.type)):
            rest = args[:place] + args[place + 1 :]
            return arg.type, *_packed(rest, kwargs)
    return named, args, kwargs


def _packed(
    rest: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    kinds = [type(part) for part in rest]
    if len(rest) == 2 and kinds[1] is dict and kinds[0] in (tuple, list, type(None)):
        return tuple(rest[0] or ()), {**rest[1], **kwargs}
    if kinds in ([tuple], [list]):
        return tuple(rest[0]), kwargs
    if kinds == [dict] and all(type(key) is str and key.isidentifier() for key in rest[0]):
        return (), {**rest[0], **kwargs}
    return rest, kwargs


def _shown_name(name: Any) -> str:
    return printable(name if type(name) is str else repr(name))


def _leaf(dotted: str) -> str:
    return dotted.rpartition(".")[2]


def _is_class(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


# What an error says


def _message(error: RecordedError, depth: int) -> str:
    if error.recorded_message is not None:
        return error.recorded_message
    if depth < MAX_NESTED:
        with contextlib.suppress(
            ArithmeticError, AttributeError, LookupError, TypeError, ValueError
        ):
            # What does not have the parts that are known says what every error says.
            words = _known(error, depth)
            if words is not None:
                return words
    return _plain(error, depth)


def _known(error: RecordedError, depth: int) -> str | None:
    state = error.state
    if state:
        if "dbos_error_code" in state:
            # DBOS's own, and classes that are made of them; the others are pickled by arguments.
            words, code = state["message"], state["dbos_error_code"]
            return f"DBOS Error {code}: {words}" if code else f"DBOS Error: {words}"
        if "status_code" in state and "detail" in state:
            # starlette's and fastapi's, and classes that are made of theirs
            return f"{_str(state['status_code'], depth)}: {_str(state['detail'], depth)}"
    if (template := TEMPLATES.get(error.type)) is not None:
        return _filled(template, error, depth)
    composer = _COMPOSERS.get(error.type) or _FAMILIES.get(error.type.partition(".")[0])
    return None if composer is None else composer(error, depth)


def _plain(error: RecordedError, depth: int) -> str:
    """Return what ``str()`` of any exception gives; without arguments, what its attributes say."""
    args = error.args
    if not args:
        return _attributes(error, depth)
    words = error.state.get("message") if error.state else None
    if (
        type(words) is str
        and len(args) <= MAX_LOOKED_AT
        and all(type(arg) in _SIMPLE and str(arg) in words for arg in args)
    ):
        # A message that was made of the arguments: configparser's, and many an application's.
        return words
    return _str(args[0], depth) if len(args) == 1 else repr(args)


_MESSAGES = (
    *("message", "msg", "detail", "details", "error_message", "error_msg", "errmsg", "report"),
    *("description", "explanation", "reason", "title", "error_description", "text", "error"),
    *("errors", "orig", "cause", "original_error", "original_exception"),
)
_CODES = ("status_code", "status", "http_status", "code", "error_code", "errno", "returncode")
_SIMPLE = (str, int, float, bool)


def _attributes(error: RecordedError, depth: int) -> str:
    words = next(filter(None, (_words(error, name, depth) for name in _MESSAGES)), "")
    code = next(filter(None, (_code(error, name) for name in _CODES)), "")
    if words:
        return f"{code}: {words}" if code else words
    named = itertools.chain(error.kwargs.items(), error.state.items())
    shown = (
        f"{printable(name)}={value!r}"
        for name, value in itertools.islice(named, MAX_LOOKED_AT)
        if type(name) is str and not name.startswith("__") and value not in (None, "", (), [], {})
    )
    return ", ".join(shown)


def _named(error: RecordedError, name: str) -> Any:
    """Return a keyword argument or an attribute, also a private one; ``None``: there is none."""
    for key in (name, f"_{name}"):
        for named in (error.kwargs, error.state):
            if key in named:
                return named[key]
    return None


def _words(error: RecordedError, name: str, depth: int) -> str:
    value = _named(error, name)
    if isinstance(value, str):
        return value
    if not value:
        return ""
    nested = _nested(value)
    if nested is not None and depth < MAX_NESTED:
        return _described(nested, depth + 1)
    return repr(value) if isinstance(value, list | tuple | dict) else ""


def _code(error: RecordedError, name: str) -> str:
    value = _named(error, name)
    if type(value) is Opaque and len(value.args) == 1 and not value.state:  # a member of an enum
        value = value.args[0]
    return str(value) if value and type(value) in (str, int) else ""


def _str(value: Any, depth: int) -> str:
    """Return what ``str()`` of a recorded value would give."""
    if isinstance(value, str):
        return value
    if isinstance(value, _STR):
        return str(value)
    nested = _nested(value) if depth < MAX_NESTED else None
    return repr(value) if nested is None else _message(nested, depth + 1)


_STR = (
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
    dt.date,
    dt.time,
    dt.timedelta,
)
_ERROR_NAME = re.compile(
    "(?:Error|Exception|Exceeded|Timeout|Failed|Failure|Refused|Violation|Warning|Cancelled|"
    "Unavailable|Expired|Found|Interrupt|Exit|Group|Retry)$"
)


def _nested(value: Any) -> RecordedError | None:
    """Return an error that another one holds; ``None`` for what seems to be none."""
    error = as_error(value)
    if error is not value and error is not None and not _ERROR_NAME.search(error.type):
        return None
    return error


def _described(error: RecordedError, depth: int) -> str:
    message = _message(error, depth)
    kind = _leaf(error.type)
    return f"{kind}: {message}" if message else kind


_PART = re.compile(r"\{(\w+)(!r)?\}")


def _filled(template: str, error: RecordedError, depth: int) -> str | None:
    def part(found: re.Match[str]) -> str:
        name, whole = found.groups()
        if name.isdecimal():
            value = error.args[int(name)]
        elif name in error.kwargs:
            value = error.kwargs[name]
        else:
            value = error.state[name]
        return repr(value) if whole else _str(value, depth)

    return _PART.sub(part, template)


# Known classes. A composer returns None, or raises, where it does not find what it expects.


def _dbos_retries(error: RecordedError, depth: int) -> str | None:
    step, most, errors = error.args
    words = f"DBOS Error 7: Step {_str(step, depth)} has exceeded its maximum of {most} retries"
    last = _nested(errors[-1]) if errors else None
    return words if last is None else f"{words}: {_described(last, depth + 1)}"


def _dbos_recovery(error: RecordedError, depth: int) -> str:
    workflow, most = error.args
    limit = "its maximum number of" if most is None else f"its maximum of {most}"
    return (
        f"DBOS Error 6: Workflow {_str(workflow, depth)} has exceeded {limit} execution or "
        "recovery attempts. Further attempts to execute or recover it will fail. See documentation "
        "for details: https://docs.dbos.dev/python/reference/decorators"
    )


def _dbos_stream(error: RecordedError, depth: int) -> str:
    workflow, key, seconds = error.args
    within = "" if seconds is None else f" within {seconds} seconds"
    return f"DBOS Error 16: No value arrived on stream {key} of workflow {workflow}{within}"


def _dbos_query(error: RecordedError, depth: int) -> str:
    (seconds,) = error.args
    return (
        f"DBOS Error 26: This query was cancelled after exceeding its {seconds:g}s statement "
        "timeout."
    )


def _key_error(error: RecordedError, depth: int) -> str | None:
    return repr(error.args[0]) if len(error.args) == 1 else None


def _os_error(error: RecordedError, depth: int) -> str | None:
    args = error.args
    if not 2 <= len(args) <= 5:
        return None
    words = f"[Errno {args[0]}] {_str(args[1], depth)}"
    if len(args) > 2 and args[2] is not None:
        words += f": {args[2]!r}"
        if len(args) > 4:
            words += f" -> {args[4]!r}"
    return words


def _ssl(error: RecordedError, depth: int) -> str | None:
    # Its strerror alone.
    return error.args[1] if len(error.args) == 2 and type(error.args[1]) is str else None


def _unicode(verb: str) -> Callable[[RecordedError, int], str]:
    def compose(error: RecordedError, depth: int) -> str:
        *codec, text, begin, end, reason = error.args
        prefix = f"'{codec[0]}' codec can't {verb}" if codec else f"can't {verb}"
        many = f"position {begin}-{end - 1}: {reason}"
        one = end == begin + 1 and 0 <= begin < len(text)
        if verb == "decode":
            where = f"byte 0x{text[begin]:02x} in position {begin}: {reason}"
            return f"{prefix} {where}" if one else f"{prefix} bytes in {many}"
        if not one:
            return f"{prefix} characters in {many}"
        number = ord(text[begin])
        written = f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
        written = f"\\U{number:08x}" if number > 0xFFFF else written
        return f"{prefix} character '{written}' in position {begin}: {reason}"

    return compose


def _syntax(error: RecordedError, depth: int) -> str:
    words, (file, line, *_) = error.args
    name = file.rpartition("/")[2] if type(file) is str else ""
    where = ", ".join(filter(None, (name, f"line {line}" if type(line) is int else "")))
    return f"{words} ({where})" if where else str(words)


def _group(error: RecordedError, depth: int) -> str:
    words, errors = error.args
    return f"{words} ({len(errors)} sub-exception{'' if len(errors) == 1 else 's'})"


def _json(error: RecordedError, depth: int) -> str:
    words, document, place = error.args
    line = document.count("\n", 0, place) + 1
    column = place - document.rfind("\n", 0, place)
    return f"{words}: line {line} column {column} (char {place})"


def _called_process(error: RecordedError, depth: int) -> str:
    status, command = error.args[:2]
    words = f"Command '{_str(command, depth)}'"
    if status >= 0:
        return f"{words} returned non-zero exit status {status}."
    try:
        return f"{words} died with {signal.Signals(-status)!r}."
    except ValueError:
        return f"{words} died with unknown signal {-status}."


def _incomplete_read(error: RecordedError, depth: int) -> str:
    expected = error.state.get("expected")
    more = "" if expected is None else f", {expected} more expected"
    return f"IncompleteRead({len(error.args[0])} bytes read{more})"


def _client_error(error: RecordedError, depth: int) -> str:
    answer, operation = error.args
    said = answer.get("Error") or {}
    meta = answer.get("ResponseMetadata") or {}
    code, words = (_str(said.get(name, "Unknown"), depth) for name in ("Code", "Message"))
    retries = ""
    if meta.get("MaxAttemptsReached") and "RetryAttempts" in meta:
        retries = f" (reached max retries: {meta['RetryAttempts']})"
    return (
        f"An error occurred ({code}) when calling the {_str(operation, depth)} "
        f"operation{retries}: {words}"
    )


def _pydantic(error: RecordedError, depth: int) -> str:
    title, problems, _, hidden = error.args
    lines = [
        f"{len(problems)} validation error{'' if len(problems) == 1 else 's'} for {_str(title, 0)}"
    ]
    for problem in problems[:MAX_LINES]:
        if problem["loc"]:
            lines.append(".".join(_str(part, 0) for part in problem["loc"]))
        found = problem.get("input")
        shown = f"type={problem['type']}"
        if not hidden:
            kind = _leaf(found.type) if type(found) is Opaque else type(found).__name__
            shown += f", input_value={_cut_middle(repr(found), 50)}, input_type={kind}"
        lines.append(f"  {problem['msg']} [{shown}]")
        if problem.get("url"):
            lines.append(f"    For further information visit {problem['url']}")
    if len(problems) > MAX_LINES:
        lines.append(f"… and {len(problems) - MAX_LINES} more")
    return "\n".join(lines)


def _cut_middle(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}...{text[1 - most // 2 :]}"


def _fastapi(error: RecordedError, depth: int) -> str | None:
    problems = error.state.get("_errors")
    if not isinstance(problems, list | tuple):
        return None
    words = f"{len(problems)} validation error{'' if len(problems) == 1 else 's'}:"
    return "\n".join([words, *(f"  {problem!r}" for problem in problems[:MAX_LINES])])


def _sqlalchemy(error: RecordedError, depth: int) -> str | None:
    args = error.args
    if len(args) < 6 or not error.type.startswith("sqlalchemy.exc."):
        return None
    if error.type == "sqlalchemy.exc.StatementError":
        words, statement, parameters, _, hidden, _, *many = args
        lines = [_str(words, depth)]
    else:
        statement, parameters, orig, hidden, _, _, *many = args
        nested = as_error(orig)
        lines = (
            [_str(orig, depth)]
            if nested is None
            else [f"({nested.type}) {_message(nested, depth + 1)}"]
        )
    details = error.state.get("detail")
    lines[:0] = [f"({_str(detail, depth)})" for detail in details or ()]
    if statement:
        lines.append(f"[SQL: {_str(statement, depth)}]")
        if parameters and hidden:
            lines.append("[SQL parameters hidden due to hide_parameters=True]")
        elif parameters:
            lines.append(f"[parameters: {_parameters(parameters, many[0] if many else None)}]")
    # Where its manual explains it follows here, with SQLAlchemy's version, which is not recorded.
    return "\n".join(lines)


_MOST_SETS, _MOST_PARAMETERS, _MOST_CHARACTERS = 10, 100, 300


def _parameters(parameters: Any, many: Any) -> str:
    """Write bound parameters as SQLAlchemy does: few sets, and long values cut."""
    if many is None:
        return _cut_value(parameters)
    if not many or not isinstance(parameters, list | tuple):
        return _parameter_set(parameters)
    opened, closed = "[]" if isinstance(parameters, list) else "()"
    if len(parameters) <= _MOST_SETS:
        return f"{opened}{', '.join(map(_parameter_set, parameters))}{closed}"
    first = ", ".join(map(_parameter_set, parameters[: _MOST_SETS - 2]))
    last = ", ".join(map(_parameter_set, parameters[-2:]))
    told = f"displaying {_MOST_SETS} of {len(parameters)} total bound parameter sets"
    return f"{opened}{first}  ... {told} ...  {last}{closed}"


def _parameter_set(parameters: Any) -> str:
    if not isinstance(parameters, list | tuple | dict) or len(parameters) > _MOST_PARAMETERS:
        return _cut_value(parameters)
    if isinstance(parameters, dict):
        return f"{{{', '.join(f'{k!r}: {_cut_value(v)}' for k, v in parameters.items())}}}"
    shown = ", ".join(map(_cut_value, parameters))
    if isinstance(parameters, list):
        return f"[{shown}]"
    return f"({shown},)" if len(parameters) == 1 else f"({shown})"


def _cut_value(value: Any) -> str:
    text = repr(value)
    more = len(text) - _MOST_CHARACTERS
    if more <= 0:
        return text
    kept = _MOST_CHARACTERS // 2
    return f"{text[:kept]} ... ({more} characters truncated) ... {text[-kept:]}"


def _urllib3(error: RecordedError, depth: int) -> str | None:
    # The pool, with which the message begins, is left out of the pickle.
    if error.type == "urllib3.exceptions.MaxRetryError":
        _, url, reason = error.args
        words = f"Max retries exceeded with url: {url}"
        nested = _nested(reason)
        if nested is None:
            return words
        return f"{words} (Caused by {_leaf(nested.type)}({_message(nested, depth + 1)!r}))"
    if error.type == "urllib3.exceptions.NameResolutionError":
        host, _, reason = error.args
        return f"Failed to resolve {host!r} ({_str(reason, depth)})"
    if error.args[:1] == (None,):
        return ", ".join(_str(arg, depth) for arg in error.args[1:] if arg is not None)
    return None


def _google(error: RecordedError, depth: int) -> str | None:
    if error.type == "google.api_core.exceptions.RetryError":
        words, cause = error.args
        nested = as_error(cause)
        if nested is None:
            return None
        return f"{words}, last exception: {_message(nested, depth + 1)}"
    code = GOOGLE_CODES.get(_leaf(error.type))
    details = error.state.get("_details")
    words = f"{code} {_str(error.args[0], depth)}"
    return None if code is None else f"{words} {details!r}" if details else words


def _grpc(error: RecordedError, depth: int) -> str:
    status, _, _, details, debug = error.args
    name = status.args[0][1].upper().replace(" ", "_")
    return (
        f"<AioRpcError of RPC that terminated with:\n\tstatus = StatusCode.{name}\n"
        f'\tdetails = "{details}"\n\tdebug_error_string = "{debug}"\n>'
    )


def _aiohttp(error: RecordedError, depth: int) -> str | None:
    key, cause = (error.state.get(name) for name in ("_conn_key", "_os_error"))
    if key is not None and cause is not None:
        host, port, _, tls = key.args[:4]
        tls = "default" if tls is True else _str(tls, depth)
        reason = cause.args[1] if len(cause.args) > 1 else cause.message
        return f"Cannot connect to host {host}:{port} ssl:{tls} [{reason}]"
    status, words = (error.state.get(name) for name in ("status", "message"))
    if type(status) is int and type(words) is str:
        return f"{status}, message={words!r}"
    return None


def _elasticsearch(error: RecordedError, depth: int) -> str | None:
    meta = error.state.get("meta")
    if type(meta) is not Opaque:
        return None
    words = f"{meta.state['status']}, {error.state['message']!r}"
    body = error.state.get("body")
    said = body.get("error") if type(body) is dict else None
    causes = said.get("root_cause") if type(said) is dict else None
    if causes and "reason" in causes[0]:
        words += f", {causes[0]['reason']!r}"
    return f"{_leaf(error.type)}({words})"


def _stripe(error: RecordedError, depth: int) -> str:
    words, request = error.state["_message"] or "<empty message>", error.state.get("request_id")
    return f"Request {request}: {words}" if request is not None else _str(words, depth)


def _django(error: RecordedError, depth: int) -> str:
    words, _, values = error.args
    if not isinstance(words, str):
        return repr(words)
    if type(values) is dict and len(words) <= _MOST_CHARACTERS and len(values) <= MAX_LOOKED_AT:
        for name, value in values.items():
            text = _cut_value(value) if type(value) is not str else value[:_MOST_CHARACTERS]
            words = words.replace(f"%({name})s", text).replace(f"%({name})d", text)
    return repr([words])


def _arguments(error: RecordedError, depth: int) -> str:
    return f"{_leaf(error.type)}{error.args!r}"


_PHRASES = {status.phrase: status.value for status in http.HTTPStatus}


def _werkzeug(error: RecordedError, depth: int) -> str | None:
    phrase = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _leaf(error.type))
    code, words = _PHRASES.get(phrase), error.state.get("description")
    if code is None or not error.type.startswith("werkzeug.exceptions."):
        return None
    return f"{code} {phrase}: {_str(words, depth)}" if words else f"{code} {phrase}"


def _kafka(error: RecordedError, depth: int) -> str | None:
    if not error.type.startswith("kafka.errors."):
        return None
    words = _plain(error, depth)
    return f"{_leaf(error.type)}: {words}" if error.args else _leaf(error.type)


def _builtin(base: type[BaseException]) -> Iterator[str]:
    for name, value in vars(builtins).items():
        if isinstance(value, type) and issubclass(value, base):
            yield f"builtins.{name}"


_Composer = Callable[[RecordedError, int], str | None]

_COMPOSERS: dict[str, _Composer] = {
    **dict.fromkeys(_builtin(KeyError), _key_error),
    **dict.fromkeys(_builtin(OSError), _os_error),
    **dict.fromkeys(_builtin(SyntaxError), _syntax),
    **dict.fromkeys(_builtin(BaseExceptionGroup), _group),
    "builtins.UnicodeDecodeError": _unicode("decode"),
    "builtins.UnicodeEncodeError": _unicode("encode"),
    "builtins.UnicodeTranslateError": _unicode("translate"),
    "json.decoder.JSONDecodeError": _json,
    "requests.exceptions.JSONDecodeError": _json,
    "simplejson.errors.JSONDecodeError": _json,
    "http.client.IncompleteRead": _incomplete_read,
    "socket.gaierror": _os_error,
    "socket.herror": _os_error,
    "subprocess.CalledProcessError": _called_process,
    "zoneinfo._common.ZoneInfoNotFoundError": _key_error,
    **dict.fromkeys(
        (f"ssl.SSL{kind}Error" for kind in ("", "CertVerification", "EOF", "WantRead", "Syscall")),
        _ssl,
    ),
    "botocore.exceptions.ClientError": _client_error,
    "billiard.exceptions.SoftTimeLimitExceeded": _arguments,
    "billiard.exceptions.TimeLimitExceeded": _arguments,
    "dbos._error.DBOSMaxStepRetriesExceeded": _dbos_retries,
    "dbos._error.DBOSQueryTimeoutError": _dbos_query,
    "dbos._error.DBOSStreamTimeoutError": _dbos_stream,
    "dbos._error.MaxRecoveryAttemptsExceededError": _dbos_recovery,
    "django.core.exceptions.ValidationError": _django,
    "grpc.aio._call.AioRpcError": _grpc,
    "pydantic_core._pydantic_core.ValidationError": _pydantic,
}
"""By class."""
_FAMILIES: dict[str, _Composer] = {
    "aiohttp": _aiohttp,
    "elasticsearch": _elasticsearch,
    "fastapi": _fastapi,
    "google": _google,
    "kafka": _kafka,
    "sqlalchemy": _sqlalchemy,
    "stripe": _stripe,
    "urllib3": _urllib3,
    "werkzeug": _werkzeug,
}
"""By package, for classes that compose alike."""
