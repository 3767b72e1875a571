"""
A list of steps, run forward or undone, with a journal that survives any crash.

No Django, no storage: `step.py` says what a step is, `journal.py` what is written down, `runner.py` what is done.
"""
