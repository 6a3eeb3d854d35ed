"""Streaming GRPO: windows, rollouts, rewards, advantages, and the trainer around them."""
