"""The frozen models that rewards share: towers, codecs, judges, heads, and how what they take is prepared."""
