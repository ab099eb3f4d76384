"""Decoding: token by token with a cache, or scores of given continuations. Token ids only, no text."""
