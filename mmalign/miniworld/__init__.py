"""A small world whose truth is known; `pipelines/miniworld` trains the models of it that `assets` holds.

* ``scenes``: things, scenes and their rendering to 64x64 images.
* ``language``: captions of scenes, their exact meaning (clauses), parsing and symbolic truth.
* ``compositions``: which attribute combinations are never shown in training.
* ``grammar``: sampling of requests, of scenes that fulfil them, and of captions that are almost right.
* ``splits``: deterministic train and held-out requests, and the prompt files made from them.
* ``verifier``: reads an image back without knowing the scene, and says which clauses hold.
* ``assets``: where the embedded models and prompt files lie.

Nothing here imports torch until a function needs it.
"""
