"""Layers that convolve."""

__all__: list[str] = []
