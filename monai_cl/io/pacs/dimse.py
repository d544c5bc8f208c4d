"""Storing by C-STORE, for a PACS without DICOMweb."""

import socket
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from monai_cl.io.pacs.errors import INSTALL, PacsError, patiently
from monai_cl.io.pacs.push import reason_of
from monai_cl.io.pacs.tls import context, look

_SCHEMES = ("dimse", "dimses")


@dataclass(frozen=True)
class DimseStore:
    """A PACS that takes objects by C-STORE.

    It cannot be asked for what it has: an object that the server holds is sent again, which servers take for the same.

    Args:
        url: ``dimse://AE_TITLE@HOST:PORT``, or ``dimses://...`` for TLS, which checks certificate and host.
        title: Our own AE title, which many servers must know.
        timeout: Seconds to wait for an answer.
        retries: Further attempts where it is away.
    """

    url: str
    title: str = "MONAI_CL"
    timeout: float = 30.0
    retries: int = 3

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        whole = parts.scheme in _SCHEMES and parts.username and parts.hostname and parts.port
        if not whole or parts.password or len(str(parts.username)) > 16:
            raise ValueError("the address of a C-STORE server must be as dimse://AE_TITLE@HOST:PORT")
        if not 1 <= len(self.title) <= 16:
            raise ValueError(f"an AE title must have 1 to 16 characters, got {len(self.title)}")

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}"

    def has(self, dataset: Any) -> None:
        """Return nothing: the server cannot be asked."""

    def lacks(self, dataset: Any) -> int:
        """Return nothing: the server cannot be asked."""
        return 0

    def put(self, dataset: Any) -> str:
        """Store an object; gives the reason why not."""
        return patiently(lambda: self._put(dataset), server=self.name, retries=self.retries, timeout=self.timeout)

    def _put(self, dataset: Any) -> str:
        link, refused = self._associate(dataset)
        try:
            if refused:
                raise PacsError(
                    f"{self.name} refuses the connection: does it know our AE title {self.title} (--title), and is "
                    f"{urlsplit(self.url).username} its own?",
                    stops=True,
                )
            if not link.is_established:
                if link.acceptor.primitive is not None and not link.accepted_contexts:
                    return f"{self.name} does not store this kind of object in this encoding"
                self._raise_reason()
            status = link.send_c_store(dataset)
        finally:
            if link.is_established:
                link.release()
        if not status:
            raise TimeoutError
        code = int(status.Status)
        return "" if code == 0 or code & 0xF000 == 0xB000 else reason_of(code, self.name)

    def _associate(self, dataset: Any) -> tuple[Any, bool]:
        """Association for an object in its encoding, which need not be established, and whether the server refused."""
        try:
            from pynetdicom import AE, evt
            from pynetdicom.pdu import A_ASSOCIATE_RJ
        except ModuleNotFoundError:
            raise ModuleNotFoundError(INSTALL) from None
        parts = urlsplit(self.url)
        entity = AE(ae_title=self.title)
        entity.connection_timeout = entity.acse_timeout = self.timeout
        entity.dimse_timeout = entity.network_timeout = self.timeout
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        # A server may refuse and close before pynetdicom looks at the connection, which then calls it never made.
        answers: list[type] = []
        link = entity.associate(
            parts.hostname,
            parts.port,
            ae_title=parts.username,
            tls_args=(context(), str(parts.hostname)) if parts.scheme == "dimses" else None,
            evt_handlers=[(evt.EVT_PDU_RECV, lambda event: answers.append(type(event.pdu)))],
        )
        return link, link.is_rejected or A_ASSOCIATE_RJ in answers

    def _raise_reason(self) -> NoReturn:
        """Raise why no association came about, which pynetdicom writes to its log alone."""
        parts = urlsplit(self.url)
        host, port = str(parts.hostname), int(parts.port or 0)
        if parts.scheme == "dimses":
            look(host, port, timeout=self.timeout)
        else:
            socket.create_connection((host, port), timeout=self.timeout).close()
        raise ConnectionResetError
