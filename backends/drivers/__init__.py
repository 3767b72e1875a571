"""
Storage drivers: plain Python, no Django.

Start with `base.py` (the contract), then `directory.py` (the smallest real driver).
"""
