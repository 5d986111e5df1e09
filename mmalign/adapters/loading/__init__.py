"""What adapters share: options, opening, which weights train, schedules, conditions, texts."""
