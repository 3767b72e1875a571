"""
Storage of other hosts: the driver contract over rows of the database, volumes over the storage network.

`driver_for` is all that the rest of the application needs.  The asking side is `driver.py`, `asking.py` and `port.py`;
the answering side, which runs as a child of each host's worker, is `attendant.py`, `answering.py` and `exporting.py`.
"""
