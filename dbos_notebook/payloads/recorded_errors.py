"""Recorded errors: the class that was raised, and the message that ``str()`` would return.

The messages of known libraries are composed from the pickled arguments and attributes, as the
library's own ``__str__`` does.
"""

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
from typing import Any, NamedTuple

from dbos_notebook.payloads.values import Opaque, Reference
from dbos_notebook.text import describe_failure, sanitize

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
"""The status code at the start of the messages of google.api_core's classes."""

TEMPLATES: dict[str, str] = {
    **{f"dbos._error.{name}": f"DBOS Error {message}" for name, message in _DBOS.items()},
    **{f"botocore.exceptions.{name}": message for name, message in _BOTOCORE.items()},
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
"""Message templates by class, with positional arguments, keyword arguments or attributes."""

MAX_NESTED_ERRORS = 6
"""Levels of nested errors whose messages are composed; deeper ones are shown by their repr."""
MAX_ATTRIBUTES = 10
"""Arguments that are searched for a class, and attributes that are shown."""
MAX_GROUP_MEMBERS = 3
"""Members of an ExceptionGroup that its message names."""
MAX_LINES = 100
"""Problems of one validation error that are shown."""
_MAX_SETS, _MAX_PARAMETERS, _MAX_CHARACTERS = 10, 100, 300
"""SQLAlchemy's limits for the parameters in a message."""


class RecordedError:
    """A recorded error. It is not an exception and cannot be raised.

    Attributes
    ----------
    type
        The dotted name of the class that was raised.
    message
        The result of ``str()``, as far as it can be derived from the record.
    cause
        The error that this one wraps, such as that of a step's last attempt.
    args, kwargs
        The recorded constructor arguments.
    state
        The recorded attributes.
    notes, code, data
        The notes added to the error; the code and data of a portable error.

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
        type: str,  # noqa: A002 - the standard term
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
        self.set_state(state)
        self.code = code
        self.data = data
        self.recorded_message = message

    @property
    def message(self) -> str:
        """The result of ``str()``, as far as it can be derived from the record."""
        # Composed on demand: until everything is decoded, the size of the arguments is unchecked.
        return _message(self, 0) if self.recorded_message is None else self.recorded_message

    @property
    def cause(self) -> RecordedError | None:
        """The error that this one wraps, such as that of a step's last attempt; ``None`` if none.

        Errors that are raised ``from`` another one do not wrap it: Python does not pickle it.
        """
        found = _wrapped(self)
        return None if found is None else found[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordedError):
            return NotImplemented
        names = RecordedError.__slots__
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment] # unhashable, as its attributes are

    def set_state(self, state: Any) -> None:
        """Set the recorded attributes."""
        if isinstance(state, dict):
            self.state = state
            notes = state.get("__notes__")
            self.notes = notes if isinstance(notes, list) else []

    @recursive_repr()
    def __repr__(self) -> str:
        # Not the message, because messages of nested errors would be composed again and again.
        parts = [repr(arg) for arg in self.args]
        if not parts and self.recorded_message:
            parts.append(repr(self.recorded_message))
        parts += [f"{_printable_name(name)}={value!r}" for name, value in self.kwargs.items()]
        if not parts:
            parts = [f"{_printable_name(name)}={value!r}" for name, value in self.state.items()]
        if not parts and (message := self.message):
            # The class has a constant message without nested errors.
            parts = [repr(message)]
        return f"{sanitize(_last_name(self.type))}({', '.join(parts)})"


class UnwrappedError(NamedTuple):
    """A recorded error by its cause.

    Attributes
    ----------
    error
        The cause: the error itself, or what its wrappers wrap.
    wrapper
        The class of the outermost wrapper; ``None`` without one.
    attempts
        How often the step was attempted, if the error says so.
    """

    error: RecordedError
    wrapper: str | None = None
    attempts: int | None = None


def find_cause(error: RecordedError) -> UnwrappedError:
    """Return the cause of an error that was raised because of another one.

    Examples
    --------
    >>> error = RecordedError("shop.UpstreamError", ("503",))
    >>> wrapper = "dbos._error.DBOSMaxStepRetriesExceeded"
    >>> find_cause(RecordedError(wrapper, ("charge", 3, [error]))).attempts
    3
    """
    wrapper, attempts, cause = None, None, error
    for _ in range(MAX_NESTED_ERRORS):
        found = _wrapped(cause)
        if attempts is None:
            attempts = _attempts(cause) if found is None else found[1]
        if found is None:
            break
        wrapper = wrapper or _wrapper_name(cause)
        cause = found[0]
    return UnwrappedError(cause, wrapper, attempts)


def describe(value: Any) -> str:
    """Return a value's repr, or the class and message of an error with a composed message.

    An error that wraps another one is described by its cause.

    Examples
    --------
    >>> error = RecordedError("shop.UpstreamError", ("503",))
    >>> describe(RecordedError("dbos._error.DBOSMaxStepRetriesExceeded", ("pay", 3, [error])))
    'failed after 3 attempts: UpstreamError: 503'
    >>> describe(RecordedError("builtins.KeyError", ("sku",)))
    "KeyError('sku')"
    >>> describe(RecordedError("botocore.exceptions.NoCredentialsError"))
    'NoCredentialsError: Unable to locate credentials'
    """
    if not isinstance(value, RecordedError):
        return repr(value)
    failure = find_cause(value)
    if failure.wrapper is not None or failure.attempts is not None:
        return describe_failure(failure.error.type, failure.error.message, failure.attempts)
    message = value.message
    plain = ("", repr(value.args), *(repr(arg) for arg in value.args[:1]))
    if message in plain or value.args == (message,) or value.recorded_message is not None:
        return repr(value)
    return f"{_last_name(value.type)}: {message}"


def to_recorded_error(value: Any) -> RecordedError | None:
    """Convert the record of a call to a RecordedError; return ``None`` for other values.

    The error's type is the class that was raised, even if the pickle calls a function or a method
    that creates it.

    Examples
    --------
    >>> function = "botocore.exceptions._exception_from_packed_args"
    >>> cls = Reference("botocore.exceptions.ProfileNotFound")
    >>> to_recorded_error(Opaque(function, (cls, None, {"profile": "prod"}))).message
    'The config profile (prod) could not be found'
    """
    if type(value) is RecordedError:
        return value
    if type(value) is not Opaque:
        return None
    function, args, kwargs = _unwrap_partial(value)
    function, args, kwargs = _raised_class(function, args, kwargs)
    return RecordedError(function, args, kwargs, state=value.state)


def _unwrap_partial(value: Opaque) -> tuple[str, tuple[Any, ...], Mapping[str, Any]]:
    """Return the function, args and kwargs of a recorded call, resolving ``functools.partial``."""
    name, args, kwargs = value.type, tuple(value.args), value.kwargs
    for _ in range(MAX_NESTED_ERRORS):
        partial = args[0] if name == "call" and args else None
        if type(partial) is not Opaque or partial.type != "functools.partial":
            break
        state = partial.state
        if type(state) is not tuple or len(state) != 4 or type(state[1]) is not tuple:
            break
        function, first, keywords = state[:3]
        args = (*first, *args[1:])
        kwargs = {**(keywords if type(keywords) is dict else {}), **kwargs}
        if type(function) is Reference:
            name = function.type
        else:
            args = (function, *args)
    return name, args, kwargs


def _raised_class(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, tuple[Any, ...], Mapping[str, Any]]:
    owner, _, last = name.rpartition(".")
    if _is_class(last):
        return name, args, kwargs
    if last != "__new__" and _is_class(_last_name(owner)):
        # A class method, such as pydantic_core.ValidationError.from_exception_data
        return owner, args, kwargs
    # A function whose arguments are the class and usually the arguments of the class.
    for position, arg in enumerate(args[:MAX_ATTRIBUTES]):
        if type(arg) is Reference and _is_class(_last_name(arg.type)):
            rest = args[:position] + args[position + 1 :]
            return arg.type, *_unpack_arguments(rest, kwargs)
    return name, args, kwargs


def _unpack_arguments(
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


def _printable_name(name: Any) -> str:
    return sanitize(name if type(name) is str else repr(name))


def _last_name(dotted: str) -> str:
    return dotted.rpartition(".")[2]


def _is_class(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


# Causes

_DBOS_RETRIES = "dbos._error.DBOSMaxStepRetriesExceeded"
_TYPESCRIPT_RETRIES = "DBOSMaxStepRetriesError"
_TYPESCRIPT_RETRIES_CODE = 23
_GROUPS = (
    "builtins.ExceptionGroup",
    "builtins.BaseExceptionGroup",
    "exceptiongroup.ExceptionGroup",
)
# The words of all SDKs; the Go SDK and the portable format of the others record nothing else.
_RETRIES = re.compile(r"Step .{1,500}? has exceeded its maximum of (\d{1,9}) retries(?:: )?", re.S)
_MAX_RETRIES_WORDS = 1_000
"""Characters in which the words are searched, because a step's name may be long."""
_GO_TYPES = ("error", "*dbos.DBOSError", "dbos.DBOSError")


def _wrapper_name(error: RecordedError) -> str:
    # Errors of JavaScript have the name of their base class.
    return _TYPESCRIPT_RETRIES if _is_typescript_retries(error) else error.type


def _is_typescript_retries(error: RecordedError) -> bool:
    return error.state.get("dbosErrorCode") == _TYPESCRIPT_RETRIES_CODE


def _wrapped(error: RecordedError) -> tuple[RecordedError, int | None] | None:
    """Return the error that a wrapper wraps, and how often the step was attempted."""
    kind, args = error.type, error.args
    if kind == _DBOS_RETRIES and len(args) == 3:
        return _last_attempt(args[2], args[1])
    if _is_typescript_retries(error):
        return _last_attempt(error.state.get("errors"), None)
    if kind in _GROUPS and len(args) == 2 and type(args[1]) in (list, tuple) and len(args[1]) == 1:
        member = to_recorded_error(args[1][0])
        return None if member is None else (member, None)
    if kind == "google.api_core.exceptions.RetryError" and len(args) == 2:
        cause = to_recorded_error(args[1])
        return None if cause is None else (cause, None)
    if kind == "dbos._serialization.PortableWorkflowError" and type(error.state) is dict:
        # An error of another language, raised again in Python.
        name, message = error.state.get("name"), error.state.get("message")
        if type(name) is str and type(message) is str:
            return RecordedError(sanitize(name), message=message), None
    if kind in _GO_TYPES:
        attempts, rest = _search_retries(error.message)
        if attempts is not None and rest:
            return RecordedError("error", message=rest), attempts
    return None


def _search_retries(message: str) -> tuple[int | None, str]:
    """Return the number of attempts in a message, and the words after it."""
    match = _RETRIES.search(message[:_MAX_RETRIES_WORDS])
    return (int(match[1]), message[match.end() :]) if match else (None, "")


def _last_attempt(errors: Any, maximum: Any) -> tuple[RecordedError, int | None] | None:
    if type(errors) not in (list, tuple) or not errors:
        return None
    last = to_recorded_error(errors[-1])
    attempts = maximum if type(maximum) is int else len(errors)
    return None if last is None else (last, attempts)


def _attempts(error: RecordedError) -> int | None:
    """Return the number of attempts of an error that says it, but not why they failed."""
    name = _last_name(error.type)
    if (
        not name.startswith("DBOS")
        and error.type not in _GO_TYPES
        and not error.state.get("dbosErrorCode")
    ):
        return None
    return _search_retries(error.message)[0]


# Messages


def _message(error: RecordedError, depth: int) -> str:
    if error.recorded_message is not None:
        return error.recorded_message
    if depth < MAX_NESTED_ERRORS:
        with contextlib.suppress(
            ArithmeticError, AttributeError, LookupError, TypeError, ValueError
        ):
            # If the error lacks an expected part, use the default message.
            message = _known_message(error, depth)
            if message is not None:
                return message
    return _default_message(error, depth)


def _known_message(error: RecordedError, depth: int) -> str | None:
    state = error.state
    if state:
        if "dbos_error_code" in state:
            # DBOS's errors and subclasses; the others are pickled with their arguments only.
            message, code = state["message"], state["dbos_error_code"]
            return f"DBOS Error {code}: {message}" if code else f"DBOS Error: {message}"
        if "status_code" in state and "detail" in state:
            # starlette's and fastapi's errors and subclasses
            return f"{_str(state['status_code'], depth)}: {_str(state['detail'], depth)}"
    if (template := TEMPLATES.get(error.type)) is not None:
        return _fill_template(template, error, depth)
    formatter = _FORMATTERS.get(error.type) or _PACKAGE_FORMATTERS.get(error.type.partition(".")[0])
    return None if formatter is None else formatter(error, depth)


def _default_message(error: RecordedError, depth: int) -> str:
    """Return ``str()`` of a plain exception or, without arguments, a message from attributes."""
    args = error.args
    if not args:
        return _attributes(error, depth)
    message = error.state.get("message") if error.state else None
    if (
        type(message) is str
        and len(args) <= MAX_ATTRIBUTES
        and all(type(arg) in _SIMPLE and str(arg) in message for arg in args)
    ):
        # A message composed from the arguments, as in configparser and many applications.
        return message
    if args == ("",):
        # Without words; the default of many applications' constructors.
        return _attributes(error, depth)
    return _str(args[0], depth) if len(args) == 1 else repr(args)


_MESSAGES = (
    *("message", "msg", "detail", "details", "error_message", "error_msg", "errmsg", "report"),
    *("description", "explanation", "reason", "title", "error_description", "text", "error"),
    *("errors", "orig", "cause", "original_error", "original_exception"),
)
_CODES = ("status_code", "status", "http_status", "code", "error_code", "errno", "returncode")
_SIMPLE = (str, int, float, bool)


def _attributes(error: RecordedError, depth: int) -> str:
    message = next(filter(None, (_message_part(error, name, depth) for name in _MESSAGES)), "")
    code = next(filter(None, (_code_part(error, name) for name in _CODES)), "")
    if message:
        return f"{code}: {message}" if code else message
    pairs = itertools.chain(error.kwargs.items(), error.state.items())
    attributes = (
        f"{sanitize(name)}={value!r}"
        for name, value in itertools.islice(pairs, MAX_ATTRIBUTES)
        if type(name) is str and not name.startswith("__") and value not in (None, "", (), [], {})
    )
    return ", ".join(attributes)


def _attribute(error: RecordedError, name: str) -> Any:
    """Return a keyword argument or an attribute, also a private one; ``None`` if absent."""
    for key in (name, f"_{name}"):
        for mapping in (error.kwargs, error.state):
            if key in mapping:
                return mapping[key]
    return None


def _message_part(error: RecordedError, name: str, depth: int) -> str:
    value = _attribute(error, name)
    if isinstance(value, str):
        return value
    if not value:
        return ""
    nested = _nested_error(value)
    if nested is not None and depth < MAX_NESTED_ERRORS:
        return _describe(nested, depth + 1)
    return repr(value) if isinstance(value, list | tuple | dict) else ""


def _code_part(error: RecordedError, name: str) -> str:
    value = _attribute(error, name)
    if type(value) is Opaque and len(value.args) == 1 and not value.state:  # a member of an enum
        value = value.args[0]
    return str(value) if value and type(value) in (str, int) else ""


def _str(value: Any, depth: int) -> str:
    """Return ``str()`` of a recorded value."""
    if isinstance(value, str):
        return value
    if isinstance(value, _STR_TYPES):
        return str(value)
    nested = _nested_error(value) if depth < MAX_NESTED_ERRORS else None
    return repr(value) if nested is None else _message(nested, depth + 1)


_STR_TYPES = (
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


def _nested_error(value: Any) -> RecordedError | None:
    """Return an argument as a nested error; ``None`` if it does not look like an error."""
    error = to_recorded_error(value)
    if error is not value and error is not None and not _ERROR_NAME.search(error.type):
        return None
    return error


def _describe(error: RecordedError, depth: int) -> str:
    message = _message(error, depth)
    kind = _last_name(error.type)
    return f"{kind}: {message}" if message else kind


_PLACEHOLDER = re.compile(r"\{(\w+)(!r)?\}")


def _fill_template(template: str, error: RecordedError, depth: int) -> str | None:
    def part(match: re.Match[str]) -> str:
        name, whole = match.groups()
        if name.isdecimal():
            value = error.args[int(name)]
        elif name in error.kwargs:
            value = error.kwargs[name]
        else:
            value = error.state[name]
        return repr(value) if whole else _str(value, depth)

    return _PLACEHOLDER.sub(part, template)


# Formatters of known classes. A formatter returns None or raises if an expected part is absent.


def _dbos_retries(error: RecordedError, depth: int) -> str | None:
    step, maximum, errors = error.args
    message = (
        f"DBOS Error 7: Step {_str(step, depth)} has exceeded its maximum of {maximum} retries"
    )
    last = to_recorded_error(errors[-1]) if errors else None
    return message if last is None else f"{message}: {_describe(last, depth + 1)}"


def _dbos_recovery(error: RecordedError, depth: int) -> str:
    workflow, maximum = error.args
    limit = "its maximum number of" if maximum is None else f"its maximum of {maximum}"
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
    message = f"[Errno {args[0]}] {_str(args[1], depth)}"
    if len(args) > 2 and args[2] is not None:
        message += f": {args[2]!r}"
        if len(args) > 4:
            message += f" -> {args[4]!r}"
    return message


def _ssl(error: RecordedError, depth: int) -> str | None:
    # The message is strerror alone.
    return error.args[1] if len(error.args) == 2 and type(error.args[1]) is str else None


def _unicode(verb: str) -> Callable[[RecordedError, int], str]:
    def compose(error: RecordedError, depth: int) -> str:
        *codec, text, begin, end, reason = error.args
        prefix = f"'{codec[0]}' codec can't {verb}" if codec else f"can't {verb}"
        span = f"position {begin}-{end - 1}: {reason}"
        single = end == begin + 1 and 0 <= begin < len(text)
        if verb == "decode":
            where = f"byte 0x{text[begin]:02x} in position {begin}: {reason}"
            return f"{prefix} {where}" if single else f"{prefix} bytes in {span}"
        if not single:
            return f"{prefix} characters in {span}"
        number = ord(text[begin])
        written = f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
        written = f"\\U{number:08x}" if number > 0xFFFF else written
        return f"{prefix} character '{written}' in position {begin}: {reason}"

    return compose


def _syntax(error: RecordedError, depth: int) -> str:
    message, (file, line, *_) = error.args
    name = file.rpartition("/")[2] if type(file) is str else ""
    where = ", ".join(filter(None, (name, f"line {line}" if type(line) is int else "")))
    return f"{message} ({where})" if where else str(message)


def _group(error: RecordedError, depth: int) -> str:
    message, errors = error.args
    members = [to_recorded_error(each) for each in errors[:MAX_GROUP_MEMBERS]]
    described = [_describe(member, depth + 1) for member in members if member is not None]
    more = ["…"] if len(errors) > len(described) else []
    count = f"{len(errors)} sub-exception{'' if len(errors) == 1 else 's'}"
    return f"{message} ({count}: {'; '.join([*described, *more])})" if described else message


def _json(error: RecordedError, depth: int) -> str:
    message, document, position = error.args
    line = document.count("\n", 0, position) + 1
    column = position - document.rfind("\n", 0, position)
    return f"{message}: line {line} column {column} (char {position})"


def _called_process(error: RecordedError, depth: int) -> str:
    status, command = error.args[:2]
    message = f"Command '{_str(command, depth)}'"
    if status >= 0:
        return f"{message} returned non-zero exit status {status}."
    try:
        return f"{message} died with {signal.Signals(-status)!r}."
    except ValueError:
        return f"{message} died with unknown signal {-status}."


def _incomplete_read(error: RecordedError, depth: int) -> str:
    expected = error.state.get("expected")
    more = "" if expected is None else f", {expected} more expected"
    return f"IncompleteRead({len(error.args[0])} bytes read{more})"


def _client_error(error: RecordedError, depth: int) -> str:
    response, operation = error.args
    error_field = response.get("Error") or {}
    meta = response.get("ResponseMetadata") or {}
    code, message = (_str(error_field.get(name, "Unknown"), depth) for name in ("Code", "Message"))
    retries = ""
    if meta.get("MaxAttemptsReached") and "RetryAttempts" in meta:
        retries = f" (reached max retries: {meta['RetryAttempts']})"
    return (
        f"An error occurred ({code}) when calling the {_str(operation, depth)} "
        f"operation{retries}: {message}"
    )


def _pydantic(error: RecordedError, depth: int) -> str:
    title, problems, _, hidden = error.args
    lines = [
        f"{len(problems)} validation error{'' if len(problems) == 1 else 's'} for {_str(title, 0)}"
    ]
    for problem in problems[:MAX_LINES]:
        if problem["loc"]:
            lines.append(".".join(_str(part, 0) for part in problem["loc"]))
        value = problem.get("input")
        details = f"type={problem['type']}"
        if not hidden:
            kind = _last_name(value.type) if type(value) is Opaque else type(value).__name__
            details += f", input_value={_truncate_middle(repr(value), 50)}, input_type={kind}"
        lines.append(f"  {problem['msg']} [{details}]")
        if problem.get("url"):
            lines.append(f"    For further information visit {problem['url']}")
    if len(problems) > MAX_LINES:
        lines.append(f"… and {len(problems) - MAX_LINES} more")
    return "\n".join(lines)


def _truncate_middle(text: str, maximum: int) -> str:
    return text if len(text) <= maximum else f"{text[: maximum // 2]}...{text[1 - maximum // 2 :]}"


def _fastapi(error: RecordedError, depth: int) -> str | None:
    problems = error.state.get("_errors")
    if not isinstance(problems, list | tuple):
        return None
    message = f"{len(problems)} validation error{'' if len(problems) == 1 else 's'}:"
    return "\n".join([message, *(f"  {problem!r}" for problem in problems[:MAX_LINES])])


def _sqlalchemy(error: RecordedError, depth: int) -> str | None:
    args = error.args
    if len(args) < 6 or not error.type.startswith("sqlalchemy.exc."):
        return None
    if error.type == "sqlalchemy.exc.StatementError":
        message, statement, parameters, _, hidden, _, *multiparams = args
        lines = [_str(message, depth)]
    else:
        statement, parameters, orig, hidden, _, _, *multiparams = args
        nested = to_recorded_error(orig)
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
            lines.append(
                f"[parameters: {_parameters(parameters, multiparams[0] if multiparams else None)}]"
            )
    # SQLAlchemy appends a link to its documentation with its version, which is not recorded.
    return "\n".join(lines)


def _parameters(parameters: Any, multiparams: Any) -> str:
    """Format bound parameters like SQLAlchemy: few sets, and truncated long values."""
    if multiparams is None:
        return _truncate_value(parameters)
    if not multiparams or not isinstance(parameters, list | tuple):
        return _parameter_set(parameters)
    opened, closed = "[]" if isinstance(parameters, list) else "()"
    if len(parameters) <= _MAX_SETS:
        return f"{opened}{', '.join(map(_parameter_set, parameters))}{closed}"
    first = ", ".join(map(_parameter_set, parameters[: _MAX_SETS - 2]))
    last = ", ".join(map(_parameter_set, parameters[-2:]))
    notice = f"displaying {_MAX_SETS} of {len(parameters)} total bound parameter sets"
    return f"{opened}{first}  ... {notice} ...  {last}{closed}"


def _parameter_set(parameters: Any) -> str:
    if not isinstance(parameters, list | tuple | dict) or len(parameters) > _MAX_PARAMETERS:
        return _truncate_value(parameters)
    if isinstance(parameters, dict):
        return f"{{{', '.join(f'{k!r}: {_truncate_value(v)}' for k, v in parameters.items())}}}"
    values = ", ".join(map(_truncate_value, parameters))
    if isinstance(parameters, list):
        return f"[{values}]"
    return f"({values},)" if len(parameters) == 1 else f"({values})"


def _truncate_value(value: Any) -> str:
    text = repr(value)
    more = len(text) - _MAX_CHARACTERS
    if more <= 0:
        return text
    kept = _MAX_CHARACTERS // 2
    return f"{text[:kept]} ... ({more} characters truncated) ... {text[-kept:]}"


def _urllib3(error: RecordedError, depth: int) -> str | None:
    # The message starts with the pool, which is not pickled.
    if error.type == "urllib3.exceptions.MaxRetryError":
        _, url, reason = error.args
        message = f"Max retries exceeded with url: {url}"
        nested = _nested_error(reason)
        if nested is None:
            return message
        return f"{message} (Caused by {_last_name(nested.type)}({_message(nested, depth + 1)!r}))"
    if error.type == "urllib3.exceptions.NameResolutionError":
        host, _, reason = error.args
        return f"Failed to resolve {host!r} ({_str(reason, depth)})"
    if error.args[:1] == (None,):
        return ", ".join(_str(arg, depth) for arg in error.args[1:] if arg is not None)
    return None


def _google(error: RecordedError, depth: int) -> str | None:
    if error.type == "google.api_core.exceptions.RetryError":
        message, cause = error.args
        nested = to_recorded_error(cause)
        if nested is None:
            return None
        return f"{message}, last exception: {_message(nested, depth + 1)}"
    code = GOOGLE_CODES.get(_last_name(error.type))
    details = error.state.get("_details")
    message = f"{code} {_str(error.args[0], depth)}"
    return None if code is None else f"{message} {details!r}" if details else message


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
    status, message = (error.state.get(name) for name in ("status", "message"))
    if type(status) is int and type(message) is str:
        return f"{status}, message={message!r}"
    return None


def _elasticsearch(error: RecordedError, depth: int) -> str | None:
    meta = error.state.get("meta")
    if type(meta) is not Opaque:
        return None
    message = f"{meta.state['status']}, {error.state['message']!r}"
    body = error.state.get("body")
    error_field = body.get("error") if type(body) is dict else None
    causes = error_field.get("root_cause") if type(error_field) is dict else None
    if causes and "reason" in causes[0]:
        message += f", {causes[0]['reason']!r}"
    return f"{_last_name(error.type)}({message})"


def _stripe(error: RecordedError, depth: int) -> str:
    message, request = error.state["_message"] or "<empty message>", error.state.get("request_id")
    return f"Request {request}: {message}" if request is not None else _str(message, depth)


def _django(error: RecordedError, depth: int) -> str:
    message, _, values = error.args
    if not isinstance(message, str):
        return repr(message)
    if type(values) is dict and len(message) <= _MAX_CHARACTERS and len(values) <= MAX_ATTRIBUTES:
        for name, value in values.items():
            text = _truncate_value(value) if type(value) is not str else value[:_MAX_CHARACTERS]
            message = message.replace(f"%({name})s", text).replace(f"%({name})d", text)
    return repr([message])


def _arguments(error: RecordedError, depth: int) -> str:
    return f"{_last_name(error.type)}{error.args!r}"


_PHRASES = {status.phrase: status.value for status in http.HTTPStatus}


def _werkzeug(error: RecordedError, depth: int) -> str | None:
    phrase = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _last_name(error.type))
    code, message = _PHRASES.get(phrase), error.state.get("description")
    if code is None or not error.type.startswith("werkzeug.exceptions."):
        return None
    return f"{code} {phrase}: {_str(message, depth)}" if message else f"{code} {phrase}"


def _kafka(error: RecordedError, depth: int) -> str | None:
    if not error.type.startswith("kafka.errors."):
        return None
    message = _default_message(error, depth)
    return f"{_last_name(error.type)}: {message}" if error.args else _last_name(error.type)


def _builtin(base: type[BaseException]) -> Iterator[str]:
    for name, value in vars(builtins).items():
        if isinstance(value, type) and issubclass(value, base):
            yield f"builtins.{name}"


_Formatter = Callable[[RecordedError, int], str | None]

_FORMATTERS: dict[str, _Formatter] = {
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
"""Formatters by class."""
_PACKAGE_FORMATTERS: dict[str, _Formatter] = {
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
"""Formatters by package, for packages whose classes compose their messages alike."""
