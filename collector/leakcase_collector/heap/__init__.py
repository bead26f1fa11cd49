"""What is inside a target's heap, read from outside and without stopping it."""
