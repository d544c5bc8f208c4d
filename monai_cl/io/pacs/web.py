"""A DICOMweb server: credentials from the environment alone, TLS checked."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from monai_cl.io.pacs.errors import INSTALL, Result, patiently
from monai_cl.io.pacs.tls import AUTHORITY, own_certificate
from monai_cl.io.threads import without_warnings

USER, PASSWORD, TOKEN = (f"MONAI_CL_PACS_{name}" for name in ("USER", "PASSWORD", "TOKEN"))
_HERE = ("localhost", "127.0.0.1", "::1")
_ANY_SYNTAX = (("application/dicom", "*"),)  # as the server keeps it: nothing is decoded and encoded again
_PAGE = 500


@dataclass(frozen=True)
class WebServer:
    """A DICOMweb server.

    Args:
        url: Root of DICOMweb, such as ``https://pacs.example.org/dicom-web``, without credentials.
        timeout: Seconds to wait for an answer, and between parts of one.
        retries: Further attempts where it is away or busy.
    """

    url: str
    timeout: float = 30.0
    retries: int = 3

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.username or parts.password or "@" in parts.netloc:
            raise ValueError(f"an address must not hold credentials; put them into {USER} and {PASSWORD}, or {TOKEN}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("the address of a DICOMweb server must be as https://HOST:PORT/dicom-web")
        secret = any(os.environ.get(name) for name in (USER, PASSWORD, TOKEN))
        if parts.scheme == "http" and parts.hostname not in _HERE and secret:
            raise ValueError(f"credentials go to {parts.hostname} by https alone; give its https address")

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.url).netloc

    def studies(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        """Studies that a search finds, each by keyword."""
        return self._search("search_for_studies", search_filters=filters)

    def series(self, study: str, filters: dict[str, str]) -> list[dict[str, Any]]:
        """Series of a study that a search finds."""
        return self._search("search_for_series", study_instance_uid=study, search_filters=filters)

    def instances(self, study: str, series: str) -> list[str]:
        """Identifiers of the instances of a series, as often as the server lists them."""
        result = self._search("search_for_instances", study_instance_uid=study, series_instance_uid=series)
        return [str(one["SOPInstanceUID"]) for one in result if one.get("SOPInstanceUID")]

    def instances_of_series(self, study: str, series: str) -> Iterator[Any]:
        """Data sets of a series, one after the other as they arrive; an error may come in between."""
        client = self._client
        result = self._ask(lambda: client.iter_series(study, series, media_types=_ANY_SYNTAX))
        while True:
            try:  # a stream is not asked for again: what did not come is asked for singly
                one = patiently(lambda: next(result), server=self.name, retries=0, timeout=self.timeout)
            except StopIteration:
                return
            yield one

    def instance(self, study: str, series: str, instance: str) -> Any:
        """Data set of an instance."""
        client = self._client
        return self._ask(lambda: client.retrieve_instance(study, series, instance, media_types=_ANY_SYNTAX))

    def store(self, dataset: Any) -> Any:
        """Store an instance, whole or not at all, and give the server's answer."""
        client = self._client
        return self._ask(lambda: client.store_instances([dataset]))

    def _search(self, verb: str, **arguments: Any) -> list[dict[str, Any]]:
        """All pages of a search."""
        client = self._client
        result: list[dict[str, Any]] = []
        while True:
            ask = _asking(getattr(client, verb), limit=_PAGE, offset=len(result), **arguments)
            page = self._ask(ask)
            result += [_plain(one) for one in page]
            if len(page) < _PAGE:
                return result

    def _ask(self, ask: Callable[[], Result]) -> Result:
        with without_warnings(log="retrying"):  # which logs each attempt, and ours are in the error
            return patiently(ask, server=self.name, retries=self.retries, timeout=self.timeout)

    @cached_property
    def _client(self) -> Any:
        """A client that keeps its connection."""
        try:
            from dicomweb_client.api import DICOMwebClient
        except ModuleNotFoundError:
            raise ModuleNotFoundError(INSTALL) from None
        client = DICOMwebClient(self.url.rstrip("/"), session=_session(self.url), timeout=self.timeout)
        client.set_http_retry_params(retry=False)  # here it is bounded in time, too
        return client


def _asking(verb: Callable[..., Result], **arguments: Any) -> Callable[[], Result]:
    return lambda: verb(**arguments)


def _session(url: str) -> Any:
    """A session that takes credentials from our variables alone: no `.netrc`, nothing from the address."""
    import requests

    class Session(requests.Session):
        def request(self, method: str, url: str, *arguments: Any, **named: Any) -> Any:
            """Send wildcards as they are: some servers match before they decode."""
            root, mark, query = url.partition("?")
            query = query.replace("%2A", "*").replace("%3F", "?")
            answer = super().request(method, f"{root}{mark}{query}", *arguments, **named)
            if not answer.ok:
                answer.close()  # nobody reads a page of errors, and it would keep the connection
            return answer

    session = Session()
    session.proxies = requests.utils.get_environ_proxies(url)
    session.trust_env = False
    session.verify = os.environ.get(AUTHORITY) or os.environ.get("REQUESTS_CA_BUNDLE") or True
    if not isinstance(session.verify, bool) and not os.path.exists(session.verify):
        raise ValueError(f"{AUTHORITY} or REQUESTS_CA_BUNDLE must name a file of certificates, which does not exist")
    session.cert = own_certificate()
    if token := os.environ.get(TOKEN):
        session.headers["Authorization"] = f"Bearer {token}"
    elif user := os.environ.get(USER):
        session.auth = (user, os.environ.get(PASSWORD, ""))
    return session


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    """Values of a DICOM JSON object by keyword, the first of each."""
    from pydicom.datadict import keyword_for_tag

    values = {tag: element.get("Value") or [None] for tag, element in one.items()}
    return {keyword_for_tag(tag) or tag: value[0] for tag, value in values.items()}
