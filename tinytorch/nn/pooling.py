"""Layers that pool."""

__all__: list[str] = []
