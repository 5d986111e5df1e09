"""Which weights of a network train: a LoRA, all of them or none; and the reference, which they started from."""
