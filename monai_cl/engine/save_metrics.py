"""Tables of metrics written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ignite.engine import Engine
from monai.handlers import MetricsSaver

from monai_cl._files import atomic_write


class SaveMetrics(MetricsSaver):
    """MONAI's ``MetricsSaver``, whose files are the old ones or the new ones, never a part.

    Example:
        >>> SaveMetrics("out", metrics="val_mean_dice").save_dir
        'out'
    """

    save_dir: str | os.PathLike[str]

    def __call__(self, engine: Engine) -> None:
        """Write the tables of an epoch."""
        folder = Path(self.save_dir)
        with tempfile.TemporaryDirectory() as scratch:
            self.save_dir = scratch
            try:
                super().__call__(engine)
            finally:
                self.save_dir = folder
            for table in sorted(Path(scratch).iterdir()):
                folder.mkdir(parents=True, exist_ok=True)
                with atomic_write(folder / table.name) as temporary:
                    temporary.write_bytes(table.read_bytes())
