"""Rewards as a server: `mmalign serve`. The reward `remote` asks it, and anything that writes JSON can.

batching.py   one thread per reward, which scores what several requests ask as one batch
probe.py      the row that is scored to see whether a reward works
served.py     the rewards of a server, and what it says of each
app.py        the addresses /spec, /health and /score, the token, the limits
"""
