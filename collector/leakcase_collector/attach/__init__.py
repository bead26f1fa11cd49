"""What may only be done while the target stands still: the allocator's own words, and a core."""
