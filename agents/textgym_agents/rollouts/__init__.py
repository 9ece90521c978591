"""Playing whole episodes: decoding, sampling, who writes the tokens, and the buffer they end up in."""
