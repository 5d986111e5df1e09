"""What surrounds every call of a reward: batches, failed rows, time limits, the cache, metrics, processes, mixes."""
