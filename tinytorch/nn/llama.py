"""A Llama-style decoder."""

__all__: list[str] = []
