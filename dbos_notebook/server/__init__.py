"""Programs built on the library: the command line and the servers that it starts."""
