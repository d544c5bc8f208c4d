"""The one error with which an input is refused as a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slices of DICOM are refused with it
    from monai_cl.io.dicom.slices import Person


class UnusableImageError(ValueError):
    """An input that cannot be read as one 3-D volume.

    Args:
        reason: Short category, the same for every input of that kind.
        detail: Value received, and the remedy.
        person: Words of the header that name a person, where it could be read.
    """

    def __init__(self, reason: str, detail: str = "", person: Person | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.person = person
        super().__init__(f"{reason}: {detail}" if detail else reason)
