"""Who allocates what stays: entry points, windows of tracing, and later looks at what they left."""
