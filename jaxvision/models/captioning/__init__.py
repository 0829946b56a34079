"""Networks that describe an image in words: one file a paper."""
