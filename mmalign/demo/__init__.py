"""A page on which a finished run is tried out: what it began as beside what it learned."""
