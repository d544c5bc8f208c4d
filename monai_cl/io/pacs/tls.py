"""TLS of either protocol: whom to trust, and the certificate by which a server knows us, from the environment."""

import os
import socket
import ssl

AUTHORITY, CERTIFICATE, KEY = (f"MONAI_CL_PACS_{name}" for name in ("CA", "CERT", "KEY"))
_LOOK = 3.0  # seconds in which a server that refuses a certificate reports it


def own_certificate() -> tuple[str, str] | None:
    """Files of our certificate and its key, or ``None``; a certificate file may hold the key as well.

    Raises:
        ValueError: If a file is absent, or a key is given without a certificate.
    """
    certificate, key = os.environ.get(CERTIFICATE), os.environ.get(KEY)
    if key and not certificate:
        raise ValueError(f"{KEY} is set without {CERTIFICATE}; set both")
    if not certificate:
        return None
    for name, file in ((CERTIFICATE, certificate), (KEY, key or certificate)):
        if not os.path.isfile(file):
            raise ValueError(f"{name} must name a PEM file, which does not exist")
    return certificate, key or certificate


def context() -> ssl.SSLContext:
    """TLS with the certificate and the host name of the server checked, and our own certificate if we have one.

    Raises:
        ValueError: If a file that the environment names is absent or cannot be used.
    """
    authority = os.environ.get(AUTHORITY) or None
    if authority and not os.path.exists(authority):
        raise ValueError(f"{AUTHORITY} must name a file of certificates, which does not exist")
    try:
        result = ssl.create_default_context(cafile=authority)
    except ssl.SSLError:
        raise ValueError(f"{AUTHORITY} must name a PEM file of certificates") from None
    if own := own_certificate():
        try:
            result.load_cert_chain(*own, password=_no_password)
        except ssl.SSLError:
            raise ValueError(
                f"{CERTIFICATE} and {KEY} must be a certificate and its own key, both PEM, the key without a password"
            ) from None
    return result


def look(host: str, port: int, *, timeout: float) -> None:
    """Connect, and raise what is wrong with the connection; to be called after one has failed without a reason.

    Raises:
        OSError: If no connection is made, or :class:`ssl.SSLError` if TLS fails on either side.
    """
    with socket.create_connection((host, port), timeout=timeout) as plain:
        try:
            with context().wrap_socket(plain, server_hostname=host) as link:
                link.settimeout(min(timeout, _LOOK))
                link.recv(1)  # in TLS 1.3 a server looks at our certificate after we have looked at its own
        except TimeoutError:
            return
        except ConnectionError:
            raise ssl.SSLError("the other side ends it") from None


def _no_password() -> str:
    """Instead of a question at the terminal."""
    return ""
