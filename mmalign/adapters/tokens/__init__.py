"""What language models share: texts as tokens, prompts read once for many rows, and the network with its last layer."""
