"""Programs around the library: the command line and what it starts."""
