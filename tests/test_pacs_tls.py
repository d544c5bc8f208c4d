"""Storing over TLS: an Orthanc whose DIMSE asks for certificates of both sides, and a web server that does."""

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import orthanc
import pytest
from dicom_series import write_series
from typer.testing import CliRunner

from monai_cl.cli import app
from monai_cl.io.pacs import tls
from monai_cl.io.pacs.dimse import DimseStore
from monai_cl.io.pacs.errors import PacsError
from monai_cl.io.pacs.push import push
from monai_cl.io.pacs.web import PASSWORD, TOKEN, USER, WebServer

pytest.importorskip("dicomweb_client", reason="needs the extra `dicomweb`")
pytest.importorskip("pynetdicom", reason="needs the extra `dicomweb`")
OPENSSL = shutil.which("openssl")
needs_orthanc = pytest.mark.skipif(not orthanc.installed(), reason=orthanc.WHY_NOT)
pytestmark = [
    pytest.mark.skipif(not OPENSSL, reason="needs openssl, which makes the certificates"),
    pytest.mark.usefixtures("_closed"),
]


class Pair(NamedTuple):
    """Files of a certificate and its key."""

    certificate: str
    key: str


class Made(NamedTuple):
    """An authority, certificates that it has signed, and one that nobody trusts."""

    authority: Pair
    server: Pair
    client: Pair
    stranger: Pair


def _make(folder: Path, name: str, *further: str, by: Pair | None = None) -> Pair:
    pair = Pair(str(folder / f"{name}.crt"), str(folder / f"{name}.key"))
    signed = ["-CA", by.certificate, "-CAkey", by.key] if by else []
    subprocess.run(
        [
            str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", pair.key, "-out", pair.certificate, "-subj", f"/CN={name}", "-days", "2", *signed, *further,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return pair


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("certificates")
    leaf = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1")
    authority = _make(folder, "authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return Made(
        authority,
        _make(folder, "server", *leaf, by=authority),
        _make(folder, "client", *leaf, by=authority),
        _make(folder, "stranger"),
    )


@pytest.fixture(autouse=True)
def known(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of somebody whom the server knows, and who knows the server."""
    monkeypatch.setattr("monai_cl.io.pacs.errors.time.sleep", lambda _: None)
    monkeypatch.setenv(tls.AUTHORITY, made.authority.certificate)
    monkeypatch.setenv(tls.CERTIFICATE, made.client.certificate)
    monkeypatch.setenv(tls.KEY, made.client.key)
    monkeypatch.setenv(USER, orthanc.USER)
    monkeypatch.setenv(PASSWORD, orthanc.PASSWORD)
    monkeypatch.delenv(TOKEN, raising=False)


@pytest.fixture(scope="module")
def server(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[orthanc.Server]:
    """An Orthanc that takes DIMSE over TLS alone, from those whose certificate the authority has signed."""
    options = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": made.server.certificate,
        "DicomTlsPrivateKey": made.server.key,
        "DicomTlsTrustedCertificates": made.authority.certificate,
        "DicomTlsRemoteCertificateRequired": True,
    }
    with orthanc.running(tmp_path_factory.mktemp("orthanc"), **options) as found:
        yield found


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[orthanc.Server]:
    with orthanc.running(tmp_path_factory.mktemp("clear")) as found:
        yield found


def secure(server: orthanc.Server, host: str = "127.0.0.1") -> str:
    return server.dimse.replace("dimse://", "dimses://").replace("127.0.0.1", host)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_series(tmp_path / "s", range(2), series="1.2.7.1", StudyInstanceUID="1.2.7")
    return tmp_path / "s"


@needs_orthanc
def test_objects_come_to_the_server_over_tls(server: orthanc.Server, files: Path) -> None:
    said = CliRunner().invoke(app, ["push", secure(server), str(files)])
    assert (said.exit_code, said.output.strip()) == (0, "2 stored"), said.exception
    assert len(WebServer(server.url).instances("1.2.7", "1.2.7.1")) == 2


@needs_orthanc
def test_a_server_whose_authority_is_unknown_gets_nothing(
    server: orthanc.Server, made: Made, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for authority in (made.stranger.certificate, ""):  # another one, and those of the system
        monkeypatch.setenv(tls.AUTHORITY, authority)
        found = push(DimseStore(secure(server), retries=0), [files])
        assert found.stored == 0
        assert "is not trusted, or is for another host" in found.stopped
        assert "MONAI_CL_PACS_CA" in found.stopped


@needs_orthanc
def test_a_certificate_of_another_host_is_refused(server: orthanc.Server, files: Path) -> None:
    found = push(DimseStore(secure(server, "localhost"), retries=0), [files])
    assert (found.stored, "is for another host" in found.stopped) == (0, True), found.stopped


@needs_orthanc
@pytest.mark.parametrize("whose", ["none", "stranger"])
def test_a_server_that_does_not_know_us_says_what_to_set(
    whose: str, server: orthanc.Server, made: Made, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tls.CERTIFICATE, "" if whose == "none" else made.stranger.certificate)
    monkeypatch.setenv(tls.KEY, "" if whose == "none" else made.stranger.key)
    found = push(DimseStore(secure(server), retries=0), [files])
    assert found.stored == 0
    assert "asks for a certificate of ours" in found.stopped, found.stopped
    assert "MONAI_CL_PACS_CERT" in found.stopped


@needs_orthanc
def test_a_server_without_tls_is_not_stored_to_in_clear(clear: orthanc.Server, files: Path) -> None:
    found = push(DimseStore(secure(clear), retries=0, timeout=5), [files])
    assert (found.stored, "without TLS, or asks for" in found.stopped) == (0, True), found.stopped


@needs_orthanc
def test_a_server_of_tls_alone_is_told_from_an_absent_one(server: orthanc.Server, files: Path) -> None:
    found = push(DimseStore(server.dimse, retries=0, timeout=5), [files])
    assert (found.stored, "does it ask for TLS" in found.stopped) == (0, True), found.stopped


# --- our own certificate at a web server


class Answering(BaseHTTPRequestHandler):
    """Lists nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: Any) -> None:
        pass


class Quiet(HTTPServer):
    """Serves one connection after the other, and is silent about those that fail."""

    def handle_error(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(made: Made) -> Iterator[str]:
    found = Quiet(("127.0.0.1", 0), Answering)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made.authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 the refusal comes after the handshake, at times too late
    context.load_cert_chain(*made.server)
    found.socket = context.wrap_socket(found.socket, server_side=True)
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield f"https://127.0.0.1:{found.server_port}/dicom-web"
    found.shutdown()
    thread.join()
    found.server_close()


def test_a_web_server_that_asks_for_a_certificate_gets_ours(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WebServer(web).studies({}) == []
    monkeypatch.delenv(tls.CERTIFICATE)
    monkeypatch.delenv(tls.KEY)
    with pytest.raises(PacsError, match=r"asks for a certificate of ours.*MONAI_CL_PACS_CERT"):
        WebServer(web, retries=0).studies({})


# --- what the environment names


def test_a_certificate_and_its_key_may_lie_in_one_file(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "both.pem"
    both.write_text("".join(Path(file).read_text() for file in made.client))
    monkeypatch.setenv(tls.CERTIFICATE, str(both))
    monkeypatch.delenv(tls.KEY)
    assert tls.own_certificate() == (str(both), str(both))
    assert tls.context().check_hostname


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({tls.CERTIFICATE: ""}, r"MONAI_CL_PACS_KEY is set without MONAI_CL_PACS_CERT"),
        ({tls.CERTIFICATE: "absent.pem"}, r"MONAI_CL_PACS_CERT must name a PEM file"),
        ({tls.KEY: "absent.pem"}, r"MONAI_CL_PACS_KEY must name a PEM file"),
        ({tls.KEY: "stranger"}, r"must be a certificate and its own key, both PEM"),
        ({tls.AUTHORITY: "absent.pem"}, r"MONAI_CL_PACS_CA must name a file of certificates, which does not exist"),
        ({tls.AUTHORITY: __file__}, r"MONAI_CL_PACS_CA must name a PEM file"),
    ],
)
def test_what_the_environment_names_must_be_there_and_fit(
    values: dict[str, str], message: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, made.stranger.key if value == "stranger" else value)
    with pytest.raises(ValueError, match=message):
        tls.context()
