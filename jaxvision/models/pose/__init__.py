"""Networks that give each key point of one object a heat map."""
