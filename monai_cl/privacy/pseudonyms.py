"""Key behind pseudonyms; only its holder can link a pseudonym to a patient.

A pseudonym is an HMAC-SHA256 of a patient's identity under a secret key: the same patient has the same pseudonym in
every study made with that key, and nobody can try out names against a datalist. The key lies outside the studies, in
the configuration folder of the user, readable by that user alone. It is never written into a datalist, only a
fingerprint of it, by which one sees that two datalists share a key.
"""

import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

KEY_VARIABLE = "MONAI_CL_KEY"
_LENGTH = 32


@dataclass(frozen=True)
class Key:
    """A secret key.

    Args:
        secret: At least 16 bytes.
    """

    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that name the key and give nothing of it away."""
        return self.digest("fingerprint", "", length=8)

    def digest(self, purpose: str, text: str, *, length: int = 12) -> str:
        """Hexadecimal keyed hash of a text.

        Args:
            purpose: Purpose of the hash: the same text under another purpose gives another hash.
            text: Hashed text.
            length: Number of digits.

        Example:
            >>> Key(b"0" * 32).digest("patient", "id:7") == Key(b"1" * 32).digest("patient", "id:7")
            False
        """
        whole = f"{purpose}\0{text}"
        try:
            message = whole.encode("utf-8", "surrogateescape")  # bytes of a file name that is not UTF-8
        except UnicodeEncodeError:  # halves of a pair of UTF-16, as JSON may hold
            message = whole.encode("utf-8", "surrogatepass")
        return hmac.new(self.secret, message, sha256).hexdigest()[:length]

    def subject(self, patient: str) -> str:
        """The pseudonym of a patient."""
        return f"sub-{self.digest('patient', patient)}"


def new_key() -> Key:
    """A fresh random key."""
    return Key(secrets.token_bytes(_LENGTH))


def key_path(path: str | os.PathLike[str] | None = None) -> Path:
    """Place of the key: ``path``, else ``MONAI_CL_KEY``, else the configuration folder of the user."""
    if path or (path := os.environ.get(KEY_VARIABLE)):
        return Path(path).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "monai_cl" / "pseudonym.key"


def read_key(path: str | os.PathLike[str] | None = None) -> Key:
    """Read the key that a scan has made.

    Raises:
        FileNotFoundError: If none exists.
        ValueError: If the file is no key, or others than its owner may read it.
    """
    place = key_path(path)
    if place.exists() and not place.is_file():  # a pipe would be waited for
        raise ValueError(f"{_shown(place)} is no key of pseudonyms: it is no file; give another place as --key")
    try:
        text = place.read_text(encoding="ascii").strip()
        mode = place.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no key of pseudonyms at {_shown(place)}; give the key the study was scanned with: --key or {KEY_VARIABLE}"
        ) from None
    except UnicodeDecodeError:
        text, mode = "", 0
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) < 16:
        raise ValueError(f"{_shown(place)} is no key of pseudonyms: it must hold 32 or more hexadecimal digits")
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"{_shown(place)} can be read by others than its owner; chmod 600 it")
    return Key(secret)


def find_or_make_key(path: str | os.PathLike[str] | None = None, *, outside: Path | None = None) -> Key:
    """Read the key, or create one.

    Args:
        path: Where it lies; see :func:`key_path`.
        outside: The scanned folder, which must not hold the key: who gets the scans must not get it with them.

    Raises:
        ValueError: If the key would lie in ``outside``, or is damaged.
        OSError: If it cannot be written.
    """
    place = key_path(path)
    if outside is not None and place.resolve().is_relative_to(outside.resolve()):
        raise ValueError("the key of pseudonyms must lie outside the scanned folder; give another place as --key")
    if not place.exists():
        _make(place)
    return read_key(place)


def _make(place: Path) -> None:
    """Write a new key whole, or leave that of a process that was quicker: nobody ever reads a part of one."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = place.with_name(f".{secrets.token_hex(8)}.{place.name}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(_LENGTH) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, place)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            if not place.exists():
                os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


def _shown(place: Path) -> str:
    return place.name
