"""The command line, tito."""
