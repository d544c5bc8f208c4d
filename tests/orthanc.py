"""A real Orthanc on loopback for the tests, with a password and DICOMweb."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ORTHANC = shutil.which("Orthanc")
PLUGINS = sorted(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb*")) if ORTHANC else []
WHY_NOT = "needs Orthanc with DICOMweb: apt-get install orthanc orthanc-dicomweb"
USER, PASSWORD = "alice", "correct-horse-staple"


def installed() -> bool:
    return bool(ORTHANC and PLUGINS)


@dataclass(frozen=True)
class Server:
    """Addresses of a running Orthanc."""

    url: str
    dimse: str


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(folder: Path, **more: Any) -> Iterator[Server]:
    """Start an Orthanc whose files lie in a folder, with more options of its own, and stop it by its own process."""
    http, dicom = free_port(), free_port()
    config = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomCheckCalledAet": True,
        "Plugins": [str(PLUGINS[0])],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "db").mkdir()
    (folder / "orthanc.json").write_text(json.dumps(config))
    with open(folder / "orthanc.log", "w") as log:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{http}/dicom-web/studies", process)
        yield Server(f"http://127.0.0.1:{http}/dicom-web", f"dimse://ORTHANC@127.0.0.1:{dicom}")
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return  # it asks for the password: it is there
        except OSError:
            assert process.poll() is None, "Orthanc has ended"
            time.sleep(0.2)
    raise TimeoutError("Orthanc did not start")
