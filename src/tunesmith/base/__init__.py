"""Floor 0: configuration, choices, files, errors, random streams. Knows no ``torch.nn``."""
