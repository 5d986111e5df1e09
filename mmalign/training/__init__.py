"""One readable loop and what it stands on: session, update, checkpoints, start-up checks, meters."""
