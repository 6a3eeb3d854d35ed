"""A renderer of streams with exact ground truth, deterministic from a seed."""
