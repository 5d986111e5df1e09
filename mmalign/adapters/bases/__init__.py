"""What families extend: the base of every adapter, those of diffusers pipelines, and those of language models."""
