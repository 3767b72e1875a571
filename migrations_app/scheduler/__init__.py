"""
The scheduler: may this volume go there, and which destination is best?

Pure functions over plain values: no ORM, no I/O, no state.  `verdicts.py` has the entry points.
"""
