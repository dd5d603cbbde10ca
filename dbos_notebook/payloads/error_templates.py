"""What known error classes say, as templates: their own code, which composes it, never runs.

``{0}`` is an argument as ``str()`` writes it, ``{0!r}`` as ``repr()`` does, ``{name}`` a keyword
argument or an attribute. A template whose parts were not recorded is not used.
"""

from __future__ import annotations

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
