"""Agents: models that are asked, and tools that answer cheaply before one is asked."""
