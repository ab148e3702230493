"""What the studies share: options, tables, families of patterns, means over runs."""
