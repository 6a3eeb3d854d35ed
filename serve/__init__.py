"""A model on a live stream: the session, and what stands around it."""
