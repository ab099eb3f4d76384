"""Floor 1: what a transformer is made of. Knows tensors and layouts, never text or files."""
