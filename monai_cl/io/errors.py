"""The one error with which an input is refused as a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_cl.privacy.quoting import Quoting

if TYPE_CHECKING:  # slices of DICOM are refused with it
    from monai_cl.io.dicom.slices import Person


class UnusableImageError(ValueError):
    """An input that cannot be read as one 3-D volume.

    Args:
        reason: Short category, the same for every input of that kind.
        detail: Value received, and the remedy; names of files and texts of headers in it are to be quotes of a
            :class:`~monai_cl.privacy.quoting.Quoting`.
        person: Words of the header that name a person, where it could be read.
    """

    def __init__(self, reason: str, detail: str = "", person: Person | None = None) -> None:
        self.reason = reason
        self.detail = detail if isinstance(detail, Quoting) else Quoting(detail)
        self.person = person
        self.message = Quoting("{}: {}", Quoting(reason), self.detail) if detail else Quoting(reason)
        super().__init__(self.message)
