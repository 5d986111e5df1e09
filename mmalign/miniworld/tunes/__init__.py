"""The world of tunes: two seconds of music by one instrument, described by captions whose truth can be checked.

* ``tune``: the six attributes of a tune, and the notes that a player makes of them.
* ``instruments``, ``rendering``: how each timbre sounds; tunes as sound.
* ``language``: captions, their exact meaning (clauses), parsing and truth.
* ``compositions``: which attribute combinations are never heard in training.
* ``grammar``: sampling of requests, of tunes that fulfil them, and of captions that are almost right.
* ``splits``: deterministic train and held-out requests, and the prompt files made from them.
* ``styles``: two kinds of tunes that sets of exemplars are drawn from.
* ``clips``: batches of truth clips, as training and test data.
* ``listening``, ``verifier``: read a clip back without knowing the tune, and say which clauses hold.
* ``mel``: the log-mel spectrogram that generators work on, and the way back to sound without a network.
"""
