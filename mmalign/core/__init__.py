"""The nouns and verbs everything else speaks: types, protocols, registry, run files, errors, random streams, files."""
