"""Learning rate schedulers, under PyTorch's names: `optim.lr_scheduler.StepLR`, which is `optim.StepLR`.

    >>> import tinytorch as tt
    >>> opt = tt.optim.SGD([tt.ones(2, requires_grad=True)], lr=0.1)
    >>> schedule = tt.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=100)
    >>> opt.step(); schedule.step()  # after each epoch, outside of a compiled step
    >>> [round(rate, 6) for rate in schedule.get_last_lr()]
    [0.099975]
"""

from .combined import ChainedScheduler, SequentialLR
from .cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts, OneCycleLR, warmup_cosine
from .decay import ExponentialLR, LambdaLR, LinearLR, MultiStepLR, StepLR
from .plateau import ReduceLROnPlateau
from .schedule import LRScheduler

__all__ = [
    "ChainedScheduler", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR", "LRScheduler", "LambdaLR",
    "LinearLR", "MultiStepLR", "OneCycleLR", "ReduceLROnPlateau", "SequentialLR", "StepLR", "warmup_cosine",
]
