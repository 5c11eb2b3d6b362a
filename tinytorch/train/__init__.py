"""Train models: a `Trainer` with metrics, callbacks and checkpoints that resume bit for bit, and gates to reach.

    trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), metrics=[Accuracy()], directory="run")
    trainer.fit(train_loader, epochs=5, validation=test_loader)        # resume=True goes on where a run stopped
    Report("mlp", seed, seconds, [Gate("test accuracy", trainer.evaluate(test_loader)["accuracy"], at_least=0.98)])
"""

from .callbacks import Callback, EarlyStopping, LambdaCallback
from .checkpoint import CheckpointError, Checkpoints
from .distill import Distillation
from .ema import ExponentialMovingAverage
from .gate import Gate, Report
from .log import draw_curves
from .metrics import (
    Accuracy,
    ConfusionMatrix,
    Mean,
    Metric,
    Perplexity,
    TopKAccuracy,
    accuracy,
    confusion_matrix,
    perplexity,
    top_k_accuracy,
)
from .nonfinite import NonFiniteError
from .precision import GradScaler
from .tensorboard import TensorBoard
from .trainer import Result, Trainer

__all__ = [
    "Accuracy", "Callback", "CheckpointError", "Checkpoints", "ConfusionMatrix", "Distillation", "EarlyStopping",
    "ExponentialMovingAverage", "Gate", "GradScaler", "LambdaCallback", "Mean", "Metric", "NonFiniteError",
    "Perplexity", "Report", "Result", "TensorBoard", "TopKAccuracy", "Trainer", "accuracy", "confusion_matrix",
    "draw_curves", "perplexity", "top_k_accuracy",
]
