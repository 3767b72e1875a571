"""The copying threads' memory, and how zeros are found in it."""

from __future__ import annotations

import ctypes
import mmap
import threading

from backends.drivers.types import KIB, MIB

#: The smallest run of zeros that is found: what file systems allocate.
_UNIT = 4 * KIB
#: Looked at as a whole first.
_CHUNK = 64 * KIB

# Keeps the interpreter lock: on data `memcmp` returns at the first bytes, sooner than the lock is given back.
_memcmp = ctypes.PyDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
# These give it back: they are for long ranges.
_libc = ctypes.CDLL(None)
_long_memcmp = _libc.memcmp
_long_memcmp.argtypes = _memcmp.argtypes
_memset = _libc.memset
_memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
_ZEROS = bytes(_CHUNK)
_zeros_address = ctypes.cast(ctypes.c_char_p(_ZEROS), ctypes.c_void_p).value


class Buffers(threading.local):
    """Some page-aligned memory for each thread: direct I/O needs the alignment."""

    def __init__(self, size_bytes: int = MIB) -> None:
        self.memory = mmap.mmap(-1, size_bytes)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.view = memoryview(self.memory)

    def clear(self, start: int, end: int) -> None:
        if end > start:
            _memset(self.address + start, 0, end - start)


def is_zero(address: int, length: int) -> bool:
    """Tell whether *length* bytes (at most 64 KiB) of memory are zeros."""
    return _memcmp(address, _zeros_address, length) == 0


def _is_all_zero(address: int, length: int) -> bool:
    """Tell whether a long range of memory is zeros; quick when it begins with anything else."""
    # Equal to itself one step further on, and zero in the first step.
    return is_zero(address, _UNIT) and _long_memcmp(address, address + _UNIT, length - _UNIT) == 0


def data_runs(address: int, start: int, end: int) -> list[tuple[int, int]]:
    """
    Return the (start, end) of what is not zeros between *start* and *end*, both relative to *address*.

    Looks at 64 KiB at a time, and closer where one begins or ends with zeros: runs of 64 KiB of zeros are always found,
    shorter ones mostly, and what is left out is always zeros.
    """
    if end - start > _CHUNK and _is_all_zero(address + start, end - start):
        return []
    runs: list[tuple[int, int]] = []
    position = start
    while position < end:
        stop = min((position // _CHUNK + 1) * _CHUNK, end)
        if is_zero(address + position, stop - position):
            pass
        elif _has_zero_edge(address, position, stop):
            for at in range(position, stop, _UNIT):
                if not is_zero(address + at, min(_UNIT, stop - at)):
                    _append(runs, at, min(at + _UNIT, stop))
        else:
            _append(runs, position, stop)
        position = stop
    return runs


def _has_zero_edge(address: int, start: int, end: int) -> bool:
    if end - start <= _UNIT:
        return False
    return is_zero(address + start, _UNIT) or is_zero(address + end - _UNIT, _UNIT)


def _append(runs: list[tuple[int, int]], start: int, end: int) -> None:
    if runs and runs[-1][1] == start:
        runs[-1] = (runs[-1][0], end)
    else:
        runs.append((start, end))
