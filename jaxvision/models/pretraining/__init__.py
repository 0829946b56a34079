"""What self-supervised learning puts on a backbone."""
