"""Traced stacks for other tools: each file here writes one of their formats."""
