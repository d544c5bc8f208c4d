"""The one error with which an input is refused as a volume."""


class UnusableImageError(ValueError):
    """An input that cannot be read as one 3-D volume.

    Args:
        reason: Short category, the same for every input of that kind.
        detail: What came and what to do about it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)
