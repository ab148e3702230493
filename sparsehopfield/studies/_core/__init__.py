"""Parts that the studies share: options, tables, command line, families of patterns, means over runs."""
