"""Kernels of executed pages listen on this machine alone, and need not warn of it."""

c = get_config()  # noqa: F821 - IPython provides it
c.IPKernelApp.log_level = "ERROR"
