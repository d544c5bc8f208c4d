"""Planted names: scans that bear them wherever a file or a header can, and a search that opens every container."""

import base64
import gzip
import io
import json
import re
import unicodedata
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
from conftest import write_volume
from dicom_series import write_series

FILE = Path(__file__).parents[2] / "shared/cases/names.txt"
MADE_UP = """head_Erika_Musterfrau Cor_Erika_Musterfrau ErikaMusterfrau erika_musterfrau Musterfrau Wu_Lin Gao_Mei
    Dr.Erika.Musterfrau OMalley_Finn MacAllister_Ewan 佐藤花子 박지성 ليلى_حسن 6.4.1965 06-04-1965 1965-4-6 06Apr1965
    650406 1965_096 born1965 0151-733-91827 +49(761)55512 MRN-771203 PID60417 987-65-4320 ACC2021MR004411 SN90817
    e.musterfrau@klinik.example Clinic_Nowhere Großmann_Jörg Ærø_Søren""".split()  # noqa: SIM905
TAGS = {  # of the basic profile of confidentiality (PS3.15 E), those that name persons, places, devices and dates
    "PatientName": "Tagged^Theodora", "PatientID": "TAG-700123", "PatientBirthDate": "19570812",
    "OtherPatientIDs": "OTH-81277", "OtherPatientNames": "Vorname^Ottilie", "PatientBirthName": "Geborene^Agathe",
    "PatientMotherBirthName": "Muttername^Berta", "PatientAddress": "Lindenallee 77, Freudenstadt",
    "PatientTelephoneNumbers": "07441-998877", "PatientComments": "Nachbarin von Kunigunde",
    "AdditionalPatientHistory": "Sturz bei Adelheid", "MilitaryRank": "Oberfeldarzt", "Occupation": "Glasblaeserin",
    "AccessionNumber": "ACCN660991", "StudyID": "STUD90817", "StudyDate": "20180704", "SeriesDate": "20180705",
    "AcquisitionDate": "20180706", "ContentDate": "20180709", "StudyDescription": "Kopf fuer Dr Wendelin",
    "SeriesDescription": "t1 Wendelin", "ProtocolName": "Schaedel Wendelin", "ReferringPhysicianName": "Ueberweis^Egon",
    "PerformingPhysicianName": "Durchfuehr^Frida", "OperatorsName": "Bediener^Gisbert",
    "NameOfPhysiciansReadingStudy": "Befunder^Hilde", "RequestingPhysician": "Anforder^Ingo",
    "InstitutionName": "Klinikum Hintertupf", "InstitutionAddress": "Bergstrasse 4711", "StationName": "STATION9X",
    "InstitutionalDepartmentName": "Abteilung Nord-Ost", "DeviceSerialNumber": "DSN445566", "PlateID": "PLT3344",
    "ImageComments": "Frau Theodora unruhig", "RequestedProcedureDescription": "Ausschluss Zyste Roswitha",
    "AdmissionID": "ADM20211", "IssuerOfPatientID": "Issuer-Waldburg", "RequestAttributesSequence": [],
}  # fmt: skip
_OF_TAGS = """Theodora 700123 19570812 81277 Ottilie Agathe Berta Lindenallee 998877 Kunigunde Adelheid Oberfeldarzt
    Glasblaeserin 660991 90817 20180704 20180705 20180706 20180709 Wendelin Ueberweis Egon Durchfuehr Gisbert Befunder
    Anforder Hintertupf 4711 STATION9X 445566 PLT3344 Roswitha ADM20211 Waldburg""".split()  # noqa: SIM905


def planted_names() -> list[str]:
    """The lines of the list in ``../shared/cases`` where it is there, and further ones of their kinds."""
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.is_file() else []
    return [line.removesuffix(".nii.gz") for line in lines if line.strip()] + MADE_UP


def plant(root: Path, names: list[str]) -> Path:
    """A study whose files, folders, sections, fields, classes and headers bear the names; its ``dataset.json``."""
    sections: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "unlabelled": [], names[0]: []}
    order = ["training"] * 4 + ["validation"] * 2
    for number, name in enumerate(names):
        section = order[number] if number < len(order) else ("unlabelled" if number % 5 else names[0])
        image = f"{names[-1 - number]}/{name}.nii.gz" if number % 2 else f"imagesTr/{name}.nii.gz"
        write_volume(root / image, number)
        _mark(root / image, name)
        item: dict[str, Any] = {"image": image, "subject": name, "remark": f"of {name}", name: name, "code": [name]}
        if number < len(order):
            item["label"] = f"labelsTr/{name}.nii.gz"
            write_volume(root / item["label"], number, label=True)
        sections[section].append(item)
    content = {
        "name": names[1], "description": f"scans of {', '.join(names)}", "reference": names[2], "release": names[3],
        "labels": {"0": "background", "1": names[4], "2": names[5]}, "modality": {"0": "MR"}, names[6]: names[7],
        **sections,
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))
    return root / "dataset.json"


def plant_dicom(root: Path, names: list[str]) -> None:
    """Series in folders and files of these names, with marked headers, one of them cut short, some in one folder."""
    for number, name in enumerate(names):
        folder = root / ("several" if number % 4 == 3 else f"{name}/{names[-1 - number]}")
        tags = {**TAGS, "PatientName": f"{name}^Theodora"} if number % 2 else TAGS
        tags = {key: value for key, value in tags.items() if key != "RequestAttributesSequence"}
        for file in write_series(folder, Columns=16, Rows=18, SpecificCharacterSet="ISO_IR 192", **tags):
            file.rename(file.with_name(f"{name}{file.name}"))
    broken = root / names[0] / f"{names[1]}.dcm"
    broken.write_bytes(next(path for path in root.rglob("*") if path.is_file()).read_bytes()[:-9])


def needles(names: Iterable[str], *, tags: bool = True) -> list[str]:
    """What must not be found: each name, its parts that tell somebody, and what the headers hold."""
    found = set(names) | set(_OF_TAGS if tags else ())
    for name in names:
        found |= {word for word in re.findall(r"[^\W\d_]{5,}", name) if word.casefold() not in _WORDS}
        found |= set(re.findall(r"\d{5,}", name))
    return sorted(found)


_WORDS = {"brain", "clinic", "example", "elsewhere", "nowhere"}  # that stand beside the names, and elsewhere
_PAYLOAD = re.compile(rb"data:[a-z/+-]+;base64,([A-Za-z0-9+/=]+)")


def found_in(data: bytes, wanted: Iterable[str]) -> set[str]:
    """Which of the names are in some bytes, in any usual spelling."""
    data = _PAYLOAD.sub(b"", data)  # what it holds is searched by itself
    try:
        texts = [data.decode("utf-8")]
    except UnicodeDecodeError:
        texts = [data.decode("utf-8", "replace"), data.decode("latin-1")]
    if b"\0" in data:
        texts.append(data.decode("utf-16-le", "replace"))
    if b"%" in data:
        texts.append(urllib.parse.unquote(texts[0]))
    if b"\\u" in data:
        texts.append(re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), texts[0]))
    folded = [unicodedata.normalize("NFC", text).casefold() for text in texts]
    return {name for name in wanted if any(_stands_in(name, text) for text in folded)}


def _stands_in(name: str, text: str) -> bool:
    forms = {unicodedata.normalize("NFC", name).casefold()}
    forms |= {form.replace("_", other) for form in tuple(forms) for other in (" ", "-", "^")}
    for form in forms:
        if form not in text:
            continue
        if not form.isdigit() or re.search(rf"(?<![0-9a-z.]){form}(?![0-9a-z])", text):  # not in a hash or a fraction
            return True
    return False


def search(folder: Path, wanted: Iterable[str], *, aside: Iterable[Path] = ()) -> dict[str, set[str]]:
    """Names found below a folder: in names of files, and in what these hold, however packed."""
    wanted, hits = list(wanted), {}
    for path in sorted(folder.rglob("*")):
        if any(path.is_relative_to(one) for one in aside):
            continue
        found = found_in(str(path.relative_to(folder)).encode("utf-8", "surrogateescape"), wanted)
        for data in _unpacked(path.read_bytes()) if path.is_file() else ():
            found |= found_in(data, wanted)
        if found:
            hits[str(path.relative_to(folder))] = found
    return hits


def _unpacked(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The bytes, and those of archives, compressed streams, chunks of pictures, and data in pages, at any depth."""
    yield data
    if depth > 4:
        return
    inner: list[bytes] = []
    if data[:2] == b"\x1f\x8b":
        inner.append(gzip.decompress(data))
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inner += [name.encode() for name in archive.namelist()] + [
                archive.read(name) for name in archive.namelist()
            ]
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        inner += _chunks(data)
    inner += [base64.b64decode(match[1]) for match in _PAYLOAD.finditer(data)]
    for part in inner:
        yield from _unpacked(part, depth + 1)


def _chunks(png: bytes) -> Iterator[bytes]:
    place = 8
    while place < len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        kind, body = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        yield body
        if kind in (b"zTXt", b"iTXt"):
            for start in range(len(body)):
                if body[start : start + 1] == b"\x78":
                    try:
                        yield zlib.decompress(body[start:])
                        break
                    except zlib.error:
                        continue
        place += 12 + length


def _mark(path: Path, name: str) -> None:
    image = nib.load(path)
    image = nib.Nifti1Image(image.get_fdata(dtype="float32"), image.affine)
    image.header["descrip"], image.header["aux_file"] = name.encode()[:79], name.encode()[:23]
    nib.save(image, path)
