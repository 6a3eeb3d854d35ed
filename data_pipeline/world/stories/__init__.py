"""What happens in a stream, and what is said about it: one module a family."""
