"""Floor 3: the loop, its optimiser, precision and checkpoints. Knows neither objective nor method."""
