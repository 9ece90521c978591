"""Language models: loading them, reading prefixes with a cache, log-probabilities without a block of logits."""
