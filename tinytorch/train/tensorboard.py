"""Write what a run logs for TensorBoard, where `tensorboardX` or PyTorch's own writer is installed.

    trainer = Trainer(..., callbacks=[TensorBoard("runs/mlp")])
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinytorch.ir.errors import OpError

from .callbacks import Callback

if TYPE_CHECKING:
    from .trainer import Trainer

WRITERS = ("tensorboardX", "torch.utils.tensorboard")


class TensorBoard(Callback):
    """Each number of each row of the log, as a scalar of that name.

    Args:
        directory: where TensorBoard looks: `tensorboard --logdir`.
    Raises:
        OpError: no writer is installed.

    >>> issubclass(TensorBoard, Callback)
    True
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory, self.written = str(directory), 0
        self.writer_class = _writer_class()
        self.writer: Any = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Open the file; after a restart, what TensorBoard has from later steps is hidden."""
        self.writer = self.writer_class(self.directory, purge_step=trainer.step + 1 if trainer.step else None)
        self.written = len(trainer.history)

    def on_step_end(self, trainer: Trainer) -> None:
        """Write new rows."""
        for row in trainer.history[self.written:]:
            for name, value in row.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.writer.add_scalar(name, value, row["step"])
        self.written = len(trainer.history)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Write the last rows, and close the file."""
        self.on_step_end(trainer)
        self.writer.close()


def _writer_class() -> Any:
    for name in WRITERS:
        try:
            return importlib.import_module(name).SummaryWriter
        except ImportError:
            continue
    raise OpError(f"TensorBoard: no writer is installed, expected {' or '.join(WRITERS)}: pip install tensorboardX")
