"""Where PyTorch keeps gradient clipping: `nn.utils.clip_grad_norm_`. It is defined in `tinytorch.optim.clip`.

    >>> import tinytorch as tt
    >>> layer = tt.nn.Linear(3, 2)
    >>> layer(tt.ones(4, 3)).sum().backward()
    >>> norm = tt.nn.utils.clip_grad_norm_(layer.parameters(), max_norm=1.0)
    >>> norm.shape
    ()
"""

from tinytorch.optim.clip import clip_grad_norm_, clip_grad_value_

__all__ = ["clip_grad_norm_", "clip_grad_value_"]
