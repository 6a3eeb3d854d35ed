"""Cases that are played as live streams to any system, and how it is judged on them."""
