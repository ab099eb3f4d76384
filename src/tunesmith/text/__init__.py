"""Floor 1: tables, tokenizers, packed batches, metrics. Knows text and token ids, never ``torch.nn``."""
