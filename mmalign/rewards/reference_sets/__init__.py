"""The sets that set rewards compare with: exemplars embedded, or statistics kept in a file."""
