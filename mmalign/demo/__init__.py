"""Pages on which finished runs are tried out: start beside result, blind votes, scores of what is brought."""
