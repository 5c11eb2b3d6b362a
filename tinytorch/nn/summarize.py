"""What a module holds, as a table."""

__all__: list[str] = []
