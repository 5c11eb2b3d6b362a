"""Run a graph at the speed of the machine."""

assert __name__ == "tinytorch.runtime", f"import this package as tinytorch.runtime, not as {__name__}"
