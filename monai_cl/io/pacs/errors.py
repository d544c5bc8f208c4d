"""Errors of a server in words, without an address's secrets; which of them to try again, and how often."""

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_STOPS = (401, 429, 503)
_REFUSES = "refuses that ({status})"
_REASONS = {
    401: "refuses the credentials ({status}); set MONAI_CL_PACS_USER and MONAI_CL_PACS_PASSWORD, or "
    "MONAI_CL_PACS_TOKEN",
    403: "gives no right to that ({status}); ask whoever runs it",
    404: "knows nothing of that ({status}); does the address end in the root of DICOMweb, as https://HOST/dicom-web, "
    "and is it still there?",
    409: "refuses the object ({status})",
    413: "takes no objects that large ({status})",
}
_LONGEST_WAIT = 30.0  # seconds, whatever a server asks for
INSTALL = "talking to a PACS needs dicomweb-client and pynetdicom: pip install 'monai_cl[dicomweb]'"


class PacsError(RuntimeError):
    """Error of a request to a server; ``stops`` marks errors that end the whole transfer.

    Args:
        message: Value received and remedy, without credentials and without a person's data.
        stops: Whether to stop asking.
    """

    def __init__(self, message: str, *, stops: bool = False) -> None:
        super().__init__(message)
        self.stops = stops


def patiently(ask: Callable[[], Result], *, server: str, retries: int, timeout: float, wait: float = 1.0) -> Result:
    """Ask a server, a few more times where it is away or busy, waiting twice as long each time.

    Args:
        ask: Asks.
        server: Name of the server, for messages: host and port.
        retries: Further attempts, at most.
        timeout: Seconds that ``ask`` waits for an answer, for messages.
        wait: Seconds before the second attempt.

    Raises:
        PacsError: If it failed for good, or too often.
    """
    for attempt in range(retries + 1):
        try:
            return ask()
        except PacsError:
            raise
        except Exception as error:
            answer = in_words(error, server=server, timeout=timeout)
            if answer is None:
                raise
            message, again, stops = answer
            if not again or attempt == retries:
                tried = f" ({attempt + 1} attempts)" if attempt else ""
                raise PacsError(message + tried, stops=stops) from None
            time.sleep(min(max(wait * 2**attempt, _asked_wait(error)), _LONGEST_WAIT))
    raise AssertionError("unreachable")


def in_words(error: Exception, *, server: str, timeout: float) -> tuple[str, bool, bool] | None:
    """Message of an error of a connection, whether to try again, and whether to stop; ``None`` for other errors.

    The texts of libraries are left aside: they quote addresses, and headers with credentials.
    """
    from pydicom.errors import InvalidDicomError
    from requests import exceptions as web

    if isinstance(error, web.HTTPError) and error.response is not None:
        return _of_status(int(error.response.status_code), server)
    if isinstance(error, (web.SSLError, ssl.SSLError)):
        return _of_tls(error, server), False, True
    if isinstance(error, (web.Timeout, TimeoutError, socket.timeout)):
        return f"{server} did not answer within {timeout:g} s; try later, or with a longer --timeout", True, True
    if isinstance(error, web.ChunkedEncodingError):
        return f"{server} broke off in the middle of an answer", True, False
    if isinstance(error, ConnectionResetError):
        return f"{server} does not answer the request for a connection; is it busy, or does it ask for TLS?", True, True
    if isinstance(error, (web.ConnectionError, ConnectionError)):
        return f"no server answers at {server}; is it running, and are host and port right?", True, True
    if isinstance(error, (web.RequestException, OSError)) and not isinstance(error, web.InvalidJSONError):
        return f"{server} cannot be asked ({type(error).__name__})", False, True
    if isinstance(error, (ValueError, KeyError, TypeError, EOFError, AttributeError, InvalidDicomError)):
        return f"{server} gave an answer that is no DICOMweb ({type(error).__name__})", False, False
    return None


def _of_status(status: int, server: str) -> tuple[str, bool, bool]:
    reason = _REASONS.get(status, "is busy or broken ({status}); try later" if status in _AGAIN else _REFUSES)
    return f"{server} {reason.format(status=status)}", status in _AGAIN, status in _STOPS


def _of_tls(error: Exception, server: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            f"the TLS certificate of {server} is not trusted, or is for another host; give the file of its authority "
            "in MONAI_CL_PACS_CA (it is never left unchecked)"
        )
    return (
        f"{server} ends the TLS connection: it is without TLS, or asks for a certificate of ours that it knows; give "
        "its file in MONAI_CL_PACS_CERT and that of its key in MONAI_CL_PACS_KEY"
    )


def _asked_wait(error: Exception) -> float:
    """Seconds that a server asks to wait for."""
    response: Any = getattr(error, "response", None)
    try:
        return float(response.headers["Retry-After"])
    except (AttributeError, KeyError, ValueError, TypeError):
        return 0.0
