"""Sources of streams: real clips, annotations, and a rendered world with exact labels."""
