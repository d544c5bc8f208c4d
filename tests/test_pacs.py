"""Series from a server and objects back to it: a real Orthanc, and servers that misbehave."""

import csv
import io
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import orthanc
import pydicom
import pytest
from dicom_series import PATIENT_ID, write_series
from typer.testing import CliRunner

from monai_cl.cli import app
from monai_cl.intake.scan import scan
from monai_cl.io.pacs.dimse import DimseStore
from monai_cl.io.pacs.errors import PacsError, patiently
from monai_cl.io.pacs.pull import MISSING, pull
from monai_cl.io.pacs.push import WebStore, push, reason_of
from monai_cl.io.pacs.web import PASSWORD, TOKEN, USER, WebServer
from monai_cl.io.segmentation.codes import segments_of
from monai_cl.io.segmentation.seg_object import Algorithm, save, segmentation_of
from monai_cl.privacy.ids import make_token
from monai_cl.privacy.lookup import look_up
from monai_cl.privacy.pseudonyms import read_key
from monai_cl.transforms import LoadVolume

pytest.importorskip("dicomweb_client", reason="needs the extra `dicomweb`")
pytest.importorskip("pynetdicom", reason="needs the extra `dicomweb`")
needs_orthanc = pytest.mark.skipif(not orthanc.installed(), reason=orthanc.WHY_NOT)
UIDS = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.9"}
ALL = {"PatientID": "*"}


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER, orthanc.USER)
    monkeypatch.setenv(PASSWORD, orthanc.PASSWORD)
    monkeypatch.delenv(TOKEN, raising=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[orthanc.Server]:
    with orthanc.running(tmp_path_factory.mktemp("orthanc")) as found:
        yield found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series of one study, one of another patient."""
    root = tmp_path_factory.mktemp("study")
    write_series(root / "t1", series="1.2.3.1", SeriesDescription="T1", **UIDS)
    write_series(root / "t2", series="1.2.3.2", SeriesDescription="T2", **UIDS)
    write_series(
        root / "other", series="1.2.4.1", StudyInstanceUID="1.2.4", PatientID="OTHER", FrameOfReferenceUID="1.2.8"
    )
    return root


@pytest.fixture(scope="module")
def filled(server: orthanc.Server, study: Path) -> orthanc.Server:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(USER, orthanc.USER)
        patch.setenv(PASSWORD, orthanc.PASSWORD)
        assert push(WebStore(WebServer(server.url)), [study]).stored == 18
    return server


def files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def seg_of(folder: Path, path: Path) -> Path:
    volume = LoadVolume()(folder)
    mask = np.ones(volume.shape[1:], np.uint8)
    made = segmentation_of(
        mask, volume.affine.numpy(), folder, segments_of({1: "brain"}), algorithm=Algorithm("test", "1")
    )
    save(made, path)
    return path


# --- a real server


@needs_orthanc
@pytest.mark.usefixtures("credentials")
def test_a_study_comes_in_is_scanned_and_its_mask_goes_back(filled: orthanc.Server, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs the extra `dicom-seg`")
    runner, clinic = CliRunner(), tmp_path / "clinic"
    said = runner.invoke(app, ["pull", filled.url, str(clinic), "--patient", PATIENT_ID])
    assert said.exit_code == 0, said.output
    assert "2 series of 1 studies, 12 instances got" in said.output
    assert len(files_below(clinic)) == 12
    found = scan(clinic, tmp_path / "study.json", pictures=False)
    assert sum(found.counts.values()) == 2
    assert PATIENT_ID not in (tmp_path / "study.json").read_text()
    seg = seg_of(clinic / "1.2.3/1.2.3.1", tmp_path / "seg.dcm")
    said = runner.invoke(app, ["push", filled.url, str(seg)])
    assert (said.exit_code, said.output.strip()) == (0, "1 stored")
    said = runner.invoke(app, ["push", filled.url, str(seg), str(seg)])
    assert (said.exit_code, said.output.strip()) == (0, "0 stored, 1 present before, 1 given twice")
    listed = {one["SeriesInstanceUID"]: one for one in WebServer(filled.url).series("1.2.3", {})}
    made = pydicom.dcmread(seg)
    assert listed[made.SeriesInstanceUID]["Modality"] == "SEG"
    assert {"1.2.3.1", "1.2.3.2"} < set(listed)
    back = WebServer(filled.url).instance("1.2.3", made.SeriesInstanceUID, made.SOPInstanceUID)
    assert back.PixelData == made.PixelData
    assert back.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.1"


@needs_orthanc
@pytest.mark.usefixtures("credentials")
def test_pulled_files_hold_the_pixels_of_the_originals(filled: orthanc.Server, study: Path, tmp_path: Path) -> None:
    pull(WebServer(filled.url), tmp_path / "in", filters={"SeriesInstanceUID": "1.2.4.1", "StudyInstanceUID": "1.2.4"})
    np.testing.assert_array_equal(LoadVolume()(tmp_path / "in/1.2.4/1.2.4.1"), LoadVolume()(study / "other"))


@needs_orthanc
@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("filters", "series"),
    [
        ({"PatientID": PATIENT_ID, "SeriesDescription": "T2"}, {"1.2.3.2"}),
        ({"StudyDate": "20190801-20190831", "Modality": "MR", "PatientID": "OTH*"}, {"1.2.4.1"}),
        ({"SeriesInstanceUID": "1.2.3.1"}, {"1.2.3.1"}),
    ],
)
def test_filters_choose(filled: orthanc.Server, tmp_path: Path, filters: dict[str, str], series: set[str]) -> None:
    pull(WebServer(filled.url), tmp_path / "in", filters=filters)
    assert {path.parent.name for path in files_below(tmp_path / "in")} == series


@needs_orthanc
@pytest.mark.usefixtures("credentials")
def test_a_pull_goes_on_where_it_ended(filled: orthanc.Server, tmp_path: Path) -> None:
    asked = {"filters": {"SeriesInstanceUID": "1.2.4.1"}}
    first = pull(WebServer(filled.url), tmp_path / "in", **asked)
    assert (first.got, first.there, first.complete) == (6, 0, True)
    files = files_below(tmp_path / "in")
    files[0].unlink()
    times = {path: path.stat().st_mtime_ns for path in files[1:]}
    second = pull(WebServer(filled.url), tmp_path / "in", **asked)
    assert (second.got, second.there, second.complete) == (1, 5, True)
    assert {path: path.stat().st_mtime_ns for path in files[1:]} == times
    with pytest.raises(ValueError, match=r"no study that fits the filters; nothing was written"):
        pull(WebServer(filled.url), tmp_path / "none", filters={"PatientID": "NOBODY"})
    assert not (tmp_path / "none").exists()


@needs_orthanc
@pytest.mark.usefixtures("credentials")
def test_a_mask_of_a_series_that_changed_is_not_stored(filled: orthanc.Server, study: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs the extra `dicom-seg`")
    folder = tmp_path / "t1"
    shutil.copytree(study / "t1", folder)
    dataset = pydicom.dcmread(next(folder.iterdir()))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    dataset.save_as(next(folder.iterdir()))
    seg = seg_of(folder, tmp_path / "seg.dcm")
    store = WebStore(WebServer(filled.url))
    found = push(store, [seg])
    assert not found.complete
    assert "its series has changed: it refers to 1 instances that the server does not have" in found.refused[0].reason
    assert not store.has(pydicom.dcmread(seg))
    assert push(store, [seg], incomplete=True).stored == 1


@needs_orthanc
def test_wrong_credentials_are_refused_without_being_told(
    filled: orthanc.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(USER, "mallory")
    monkeypatch.setenv(PASSWORD, "tr0ub4dor")
    with caplog.at_level(logging.DEBUG):
        said = CliRunner().invoke(app, ["pull", filled.url, str(tmp_path / "in"), "--patient", "*"])
    assert isinstance(said.exception, PacsError)
    assert "refuses the credentials (401); set MONAI_CL_PACS_USER" in str(said.exception)
    for text in (str(said.exception), said.output, caplog.text):
        assert "tr0ub4dor" not in text
        assert "mallory" not in text
        assert "bWFsbG9yeTp0cjB1YjRkb3I" not in text  # both in base 64
    assert not (tmp_path / "in" / MISSING).exists()


@needs_orthanc
@pytest.mark.usefixtures("credentials")
def test_nothing_of_the_credentials_is_logged_or_written(
    filled: orthanc.Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        pull(WebServer(filled.url), tmp_path / "in", filters={"SeriesInstanceUID": "1.2.4.1"})
    assert caplog.records
    assert orthanc.PASSWORD not in caplog.text
    assert orthanc.PASSWORD not in repr(WebServer(filled.url))
    assert not [path for path in files_below(tmp_path) if orthanc.PASSWORD.encode() in path.read_bytes()]


@needs_orthanc
@pytest.mark.usefixtures("credentials", "_closed")
def test_c_store_brings_objects_to_the_server(server: orthanc.Server, tmp_path: Path) -> None:
    write_series(tmp_path / "s", range(2), series="1.2.7.1", StudyInstanceUID="1.2.7")
    said = CliRunner().invoke(app, ["push", server.dimse, str(tmp_path / "s")])
    assert (said.exit_code, said.output.strip()) == (0, "2 stored"), said.exception
    assert len(WebServer(server.url).instances("1.2.7", "1.2.7.1")) == 2
    stranger = server.dimse.replace("ORTHANC", "SOMEBODY")
    found = push(DimseStore(stranger, retries=0), [tmp_path / "s"])
    assert found.stored == 0
    assert "refuses the connection: does it know our AE title MONAI_CL" in found.stopped


def test_a_refusal_is_seen_where_the_server_closes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pynetdicom = pytest.importorskip("pynetdicom", reason="needs the extra `dicomweb`")
    from pynetdicom.acse import ACSE

    write_series(tmp_path / "s", range(1), series="1.2.8.1", StudyInstanceUID="1.2.8")
    entity = pynetdicom.AE(ae_title="ITSELF")
    entity.require_called_aet = True
    entity.add_supported_context("1.2.840.10008.5.1.4.1.1.4")
    server = entity.start_server(("127.0.0.1", 0), block=False)
    request = ACSE.send_request

    def slowly(self: Any) -> None:
        request(self)
        if self.assoc.is_requestor:
            time.sleep(0.5)  # the refusal comes and the connection is closed before pynetdicom looks

    monkeypatch.setattr(ACSE, "send_request", slowly)
    try:
        result = push(DimseStore(f"dimse://OTHER@127.0.0.1:{server.server_address[1]}", retries=0), [tmp_path / "s"])
    finally:
        server.shutdown()
    assert result.stored == 0
    assert "refuses the connection: does it know our AE title MONAI_CL" in result.stopped


# --- servers that misbehave


class Misbehaving(ThreadingHTTPServer):
    """A server whose answers a test scripts: ``answer(path) -> (status, type, body)``; counts the requests."""

    answer: Callable[[str], tuple[int, str, bytes]]
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dicom-web"


class Handler(BaseHTTPRequestHandler):
    server: Misbehaving

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, kind, body = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Misbehaving]:
    monkeypatch.setattr("monai_cl.io.pacs.errors.time.sleep", lambda _: None)
    for name in (USER, PASSWORD, TOKEN):
        monkeypatch.delenv(name, raising=False)
    found = Misbehaving()
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def listing(**values: str) -> dict[str, Any]:
    tags = {"StudyInstanceUID": "0020000D", "SeriesInstanceUID": "0020000E", "SOPInstanceUID": "00080018"}
    tags |= {"NumberOfSeriesRelatedInstances": "00201209"}
    return {tags[name]: {"vr": "UI", "Value": [value]} for name, value in values.items()}


def answers(instances: list[str], files: dict[str, bytes], announced: int | str = 0) -> Callable[[str], Any]:
    """Answers of a server with one series: it lists these instances, and gives these files."""

    def answer(path: str) -> tuple[int, str, bytes]:
        parts = path.split("?")[0].split("/")
        if "offset=" in path and "offset=0" not in path:
            return 200, "application/dicom+json", b"[]"
        if parts[-1] == "studies":
            found = [listing(StudyInstanceUID="1.2.3")]
        elif parts[-1] == "series":
            found = [listing(SeriesInstanceUID="1.2.3.1", NumberOfSeriesRelatedInstances=str(announced))]
        elif parts[-1] == "instances":
            found = [listing(SOPInstanceUID=one) for one in instances]
        elif parts[-2] == "instances" and parts[-1] in files:
            return 200, "multipart/related; type=application/dicom; boundary=XX", part(files[parts[-1]]) + b"\r\n--XX--"
        elif parts[-2] == "series":
            body = b"".join(map(part, files.values())) + b"\r\n--XX--"
            return 200, "multipart/related; type=application/dicom; boundary=XX", body
        else:
            return 404, "text/plain", b"secret page"
        return 200, "application/dicom+json", json.dumps(found).encode()

    return answer


def part(content: bytes) -> bytes:
    return b"\r\n--XX\r\nContent-Type: application/dicom\r\n\r\n" + content


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a series by their instance."""
    files = write_series(tmp_path_factory.mktemp("one"), range(4), series="1.2.3.1", StudyInstanceUID="1.2.3")
    return {pydicom.dcmread(file).SOPInstanceUID: file.read_bytes() for file in files}


def reasons(folder: Path) -> list[str]:
    with open(folder / MISSING, newline="") as stream:
        return [row["reason"] for row in csv.DictReader(stream)]


def test_half_a_study_is_counted_and_listed(odd: Misbehaving, originals: dict[str, bytes], tmp_path: Path) -> None:
    given = dict(list(originals.items())[:3])
    odd.answer = answers(list(originals), given, announced=6)
    found = pull(WebServer(odd.url), tmp_path, filters=ALL)
    assert (found.got, len(found.missing), found.complete) == (3, 3, False)
    assert len(files_below(tmp_path)) == 3
    assert sum("announced as one of 6, and not listed" in reason for reason in reasons(tmp_path)) == 2
    assert sum("knows nothing of that (404)" in reason for reason in reasons(tmp_path)) == 1
    assert "3 could not be got, see not_pulled.csv" in found.summary()
    with pytest.warns(FutureWarning, match="`told` is now `summary`"):
        assert found.told() == found.summary()
    odd.answer = answers(list(originals), originals, announced="Mueller^Jane")  # later the server has all
    found = pull(WebServer(odd.url), tmp_path, filters=ALL)
    assert (found.got, found.there, found.complete) == (1, 3, True)
    assert not (tmp_path / MISSING).exists()


def test_a_file_that_the_server_no_longer_has_stays_and_is_counted(
    odd: Misbehaving, originals: dict[str, bytes], tmp_path: Path
) -> None:
    odd.answer = answers(list(originals), originals)
    assert pull(WebServer(odd.url), tmp_path, filters=ALL).gone == 0
    odd.answer = answers(list(originals)[1:], originals)  # the series has changed since
    found = pull(WebServer(odd.url), tmp_path, filters=ALL)
    assert (found.got, found.there, found.gone) == (0, 3, 1)
    assert "1 of before are no longer at the server, and stay here" in found.summary()
    assert len(files_below(tmp_path)) == 4


def test_an_instance_that_comes_twice_is_kept_once(
    odd: Misbehaving, originals: dict[str, bytes], tmp_path: Path
) -> None:
    odd.answer = answers([*originals, next(iter(originals))], originals)
    found = pull(WebServer(odd.url), tmp_path, filters=ALL)
    assert (found.got, found.twice, found.complete) == (4, 1, True)
    assert len(files_below(tmp_path)) == 4


def test_cut_and_exchanged_files_are_not_written(odd: Misbehaving, originals: dict[str, bytes], tmp_path: Path) -> None:
    names = list(originals)
    broken = dict(originals)
    broken[names[0]] = originals[names[0]][:-10]
    broken[names[1]] = originals[names[2]]
    broken[names[3]] = b"no DICOM"
    odd.answer = answers(names, broken)
    found = pull(WebServer(odd.url), tmp_path, filters=ALL)
    assert [path.stem for path in files_below(tmp_path)] == [names[2]]
    assert [path for path in tmp_path.rglob(".*") if path.is_file()] == []
    assert found.got == 1
    listed = " ".join(reasons(tmp_path))
    assert "the pixels are cut short" in listed
    assert "the server gave another instance" in listed
    assert "gave an answer that is no DICOMweb" in listed


def test_an_identifier_leads_nowhere_else(odd: Misbehaving, originals: dict[str, bytes], tmp_path: Path) -> None:
    odd.answer = answers([*originals, "../../1.2", "/etc/1"], originals)
    assert pull(WebServer(odd.url), tmp_path / "in", filters=ALL).got == 4
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_server_that_goes_away_ends_the_pull_with_a_list(
    odd: Misbehaving, originals: dict[str, bytes], tmp_path: Path
) -> None:
    whole = answers(list(originals), originals)
    odd.answer = lambda path: whole(path) if path.split("?")[0].endswith("s") else (503, "text/plain", b"")
    found = pull(WebServer(odd.url, retries=2), tmp_path, filters=ALL)
    assert "is busy or broken (503); try later (3 attempts)" in found.stopped
    assert (found.got, len(found.missing)) == (0, 4)
    assert files_below(tmp_path) == []
    asked = sum("1.2.3.1" in path and not path.split("?")[0].endswith("s") for path in odd.asked)
    assert asked == 3


@pytest.mark.parametrize(
    ("status", "message", "attempts"),
    [
        (401, r"refuses the credentials \(401\)", 1),
        (403, r"gives no right to that \(403\); ask whoever runs it", 1),
        (404, r"knows nothing of that \(404\); does the address end in the root of DICOMweb", 1),
        (500, r"is busy or broken \(500\); try later \(3 attempts\)", 3),
        (429, r"is busy or broken \(429\); try later \(3 attempts\)", 3),
        (418, r"refuses that \(418\)", 1),
    ],
)
def test_each_status_has_words_and_few_attempts(
    odd: Misbehaving, tmp_path: Path, status: int, message: str, attempts: int
) -> None:
    odd.answer = lambda _: (status, "text/plain", b"secret page")
    with pytest.raises(PacsError, match=message) as caught:
        pull(WebServer(odd.url, retries=2), tmp_path / "in", filters=ALL)
    assert "secret" not in str(caught.value)
    assert len(odd.asked) == attempts
    assert not (tmp_path / "in").exists()


def test_a_page_in_place_of_an_answer_is_told(odd: Misbehaving, tmp_path: Path) -> None:
    odd.answer = lambda _: (200, "text/html", b"<html>please log in</html>")
    with pytest.raises(PacsError, match=r"gave an answer that is no DICOMweb"):
        pull(WebServer(odd.url), tmp_path, filters=ALL)


def test_a_slow_server_is_not_waited_for_without_end(odd: Misbehaving, tmp_path: Path) -> None:
    over = threading.Event()

    def answer(_: str) -> tuple[int, str, bytes]:
        over.wait(10)
        return 200, "application/dicom+json", b"[]"

    odd.answer = answer
    with pytest.raises(PacsError, match=r"did not answer within 0.2 s; try later, or with a longer --timeout \(2 att"):
        pull(WebServer(odd.url, timeout=0.2, retries=1), tmp_path, filters=ALL)
    over.set()


@pytest.mark.usefixtures("_closed")
def test_no_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_cl.io.pacs.errors.time.sleep", lambda _: None)
    port = orthanc.free_port()
    with pytest.raises(PacsError, match=rf"no server answers at 127.0.0.1:{port}; is it running.*\(2 attempts\)"):
        pull(WebServer(f"http://127.0.0.1:{port}/dicom-web", retries=1), tmp_path, filters=ALL)
    write_series(tmp_path / "s", range(1))
    found = push(DimseStore(f"dimse://A@127.0.0.1:{port}", retries=1), [tmp_path / "s"])
    assert f"no server answers at 127.0.0.1:{port}" in found.stopped


def test_a_server_without_tls_is_not_spoken_to_in_clear(odd: Misbehaving, tmp_path: Path) -> None:
    odd.answer = lambda _: (200, "application/dicom+json", b"[]")
    with pytest.raises(PacsError, match=r"ends the TLS connection: it is without TLS, or asks for"):
        pull(WebServer(odd.url.replace("http:", "https:")), tmp_path, filters=ALL)


def test_credentials_are_for_https_and_for_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"an address must not hold credentials; put them into MONAI_CL") as caught:
        WebServer("https://bob:hunter2@pacs.example.org/dicom-web")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv(TOKEN, "abc")
    with pytest.raises(ValueError, match=r"credentials go to pacs.example.org by https alone"):
        WebServer("http://pacs.example.org/dicom-web")
    assert WebServer("http://localhost:8042/dicom-web").name == "localhost:8042"


def test_a_netrc_is_left_alone(odd: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    seen = []
    monkeypatch.setattr(Handler, "do_GET", _recording(Handler.do_GET, seen))
    odd.answer = lambda _: (200, "application/dicom+json", b"[]")
    with pytest.raises(ValueError, match=r"no study that fits"):
        pull(WebServer(odd.url), tmp_path, filters=ALL)
    assert seen == [None]


def _recording(usual: Callable[[Handler], None], seen: list[str | None]) -> Callable[[Handler], None]:
    def do(self: Handler) -> None:
        seen.append(self.headers.get("Authorization"))
        usual(self)

    return do


def test_a_server_that_refuses_an_object_is_told_with_its_reason(
    odd: Misbehaving, originals: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.dcm").write_bytes(next(iter(originals.values())))
    body = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [292]}}]}}'
    empty = (200, "application/dicom+json", b"[]")
    odd.answer = lambda path: empty if "?" in path else (200, "application/dicom+json", body)
    found = push(WebStore(WebServer(odd.url)), [tmp_path / "a.dcm"])
    assert found.stored == 0
    assert "refuses the object: it gives no right to store (0124H)" in found.refused[0].reason
    odd.answer = lambda path: empty if "?" in path else (403, "text/plain", b"")
    assert "gives no right to that (403)" in push(WebStore(WebServer(odd.url)), [tmp_path]).refused[0].reason


def test_damaged_files_are_counted_and_not_sent(odd: Misbehaving, originals: dict[str, bytes], tmp_path: Path) -> None:
    content = next(iter(originals.values()))
    (tmp_path / "cut.dcm").write_bytes(content[:-10])
    (tmp_path / "torn.dcm").write_bytes(content[:400])
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.NumberOfFrames = 1234567
    dataset.save_as(tmp_path / "odd.dcm")
    (tmp_path / "odd.dcm").write_bytes((tmp_path / "odd.dcm").read_bytes().replace(b"1234567 ", b"Mueller "))
    odd.answer = lambda _: (200, "application/dicom+json", b"[]")
    found = push(WebStore(WebServer(odd.url)), [tmp_path])
    assert (found.stored, len(found.refused)) == (0, 3)
    assert not any("Mueller" in one.reason for one in found.refused)
    assert odd.asked == []
    for old, new in (("cut", "Mueller"), ("torn", "case_1"), ("odd", "ct-0123456789abcdef_seg")):
        (tmp_path / f"{old}.dcm").rename(tmp_path / f"{new}.dcm")
    said = CliRunner().invoke(app, ["push", odd.url, str(tmp_path)])
    assert said.exit_code == 1
    hidden = make_token(read_key(), "file", str(tmp_path / "Mueller.dcm"))
    lines = said.output.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [hidden, "case_1.dcm", "ct-0123456789abcdef_seg.dcm"]
    assert look_up(hidden) == [(hidden, str(tmp_path / "Mueller.dcm"))]
    with pytest.raises(ValueError, match=r"no DICOM file in .*; write masks with --format dicom_seg"):
        push(WebStore(WebServer(odd.url)), [Path(__file__)])
    with pytest.raises(FileNotFoundError, match=r"no file or folder at"):
        push(WebStore(WebServer(odd.url)), [tmp_path / "absent"])


@pytest.mark.parametrize(
    ("status", "words"),
    [(0xA700, "out of space"), (0xA9FF, "for damaged"), (0xC123, "cannot understand"), (1, "no re")],
)
def test_reasons_of_the_standard_have_words(status: int, words: str) -> None:
    assert words in reason_of(status, "pacs")


@pytest.mark.parametrize("address", ["ftp://x/y", "https://", "nowhere", "https://a/b?c=d"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"must be as https://HOST:PORT/dicom-web"):
        WebServer(address)


@pytest.mark.parametrize("address", ["dimse://host:104", "dimse://A@host", "dimse://A:b@host:1", "dimse://" + 17 * "A"])
def test_other_addresses_of_dimse_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"must be as dimse://AE_TITLE@HOST:PORT"):
        DimseStore(address)


def test_filters_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"filters must be among PatientID, .*, got Patient"):
        pull(WebServer("https://a/b"), tmp_path, filters={"Patient": "1"})
    said = CliRunner().invoke(app, ["pull", "https://a/b", str(tmp_path)])
    assert "choose the series to pull, by --patient" in str(said.exception)


def test_other_errors_come_out_as_they_are() -> None:
    def ask() -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        patiently(ask, server="a", retries=3, timeout=1)


def test_help_says_whose_files_these_are() -> None:
    said = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["pull", "--help"]).output
    assert "must stay in the clinic" in said
    assert "MONAI_CL_PACS_PASSWORD" in said
    assert os.environ.get(PASSWORD) is None
