"""Positional encodings as functions."""

__all__: list[str] = []
