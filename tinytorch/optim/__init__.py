"""Optimisers, learning rate schedulers and gradient clipping, with PyTorch's options and results.

    >>> import tinytorch as tt
    >>> w = tt.tensor([1.0, 2.0], requires_grad=True)
    >>> opt = tt.optim.SGD([w], lr=0.1)
    >>> schedule = tt.optim.StepLR(opt, step_size=1, gamma=0.5)
    >>> (w * w).sum().backward()
    >>> opt.step(); schedule.step(); opt.zero_grad()
    >>> w, opt.lr
    (tensor([0.8, 1.6], requires_grad=True), 0.05)

Backward, clipping and `opt.step()` may stand in one compiled step; a scheduler stands outside of it:

    >>> @tt.compile
    ... def train(x):
    ...     opt.zero_grad()
    ...     loss = (w * w * x).sum()
    ...     loss.backward()
    ...     tt.optim.clip_grad_norm_([w], 1.0)
    ...     opt.step()
    ...     return loss
    >>> for _ in range(3):
    ...     loss = train(tt.tensor([1.0, 2.0]))
    ...     schedule.step()
    >>> train
    <compiled train: 1 programs>
"""

from . import lr_scheduler
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .clip import clip_grad_norm_, clip_grad_value_
from .combined import ChainedScheduler, SequentialLR
from .cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts, OneCycleLR, warmup_cosine
from .decay import ExponentialLR, LambdaLR, LinearLR, MultiStepLR, StepLR
from .lion import Lion
from .muon import Muon, orthogonalized
from .optimizer import Optimizer
from .plateau import ReduceLROnPlateau
from .rmsprop import RMSprop
from .schedule import LRScheduler
from .sgd import SGD

__all__ = [
    "SGD", "Adagrad", "Adam", "AdamW", "ChainedScheduler", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
    "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "Lion", "MultiStepLR", "Muon", "OneCycleLR", "Optimizer",
    "RMSprop", "ReduceLROnPlateau", "SequentialLR", "StepLR", "clip_grad_norm_", "clip_grad_value_", "lr_scheduler",
    "orthogonalized", "warmup_cosine",
]
