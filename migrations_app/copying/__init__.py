"""
The copy engine: port to port, checkpointed, hashed, throttled, read back.

No Django.  `engine.py` copies and reads back, `digests.py` says what is hashed, `throttle.py` slows down,
`progress.py` counts.
"""
