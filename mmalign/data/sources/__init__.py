"""Where prompts, preferences and scenes come from, one file a source."""
