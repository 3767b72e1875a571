"""
Ports: how the copy engine sees one opened volume.

A driver opens a volume as a port on its own host.  The life of a port is one `with` block; it never outlives the
step that opened it, because a connection does not survive its process.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self


class ExtentKind(enum.Enum):
    """DATA must be read; HOLE reads as zeros and takes no room."""

    DATA = "data"
    HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of one kind."""

    offset: int
    length: int
    kind: ExtentKind

    @property
    def end(self) -> int:
        return self.offset + self.length


class Port(abc.ABC):
    """
    One opened volume.

    `read_into`, `write` and `zero` may be called from several threads at once, on ranges that do not overlap.
    """

    #: Size of the volume.
    size_bytes: int
    #: Offsets and lengths that are multiples of this are fastest; others work too.
    block_size_bytes: int
    #: Every byte that was never written reads as zero, also right after the volume was made.
    reads_zero_when_new: bool = False
    #: While this port is open nobody else can open the volume for writing.
    is_exclusive: bool = False
    #: `zero` keeps the room of what it zeroes: the volume was made with all its room, and is to stay so.
    keeps_allocation: bool = False
    #: Number of the local disk, or part of a disk, that is read and written by this process; `None` for none.
    device: int | None = None

    @abc.abstractmethod
    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """
        Yield the extents from *offset* on, in order, without gaps, exactly *length* bytes together.

        A port that cannot tell yields one DATA extent.

        Raises:
            ConnectionLost, CorruptData.

        Safe to repeat: yes.
        """

    @abc.abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> None:
        """
        Fill *buffer* with the bytes from *offset* on; all of it lies inside the volume.

        Raises:
            ConnectionLost: Nothing is known to be wrong with the volume.
            CorruptData: The backend reports a bad block, or less data than there should be.

        Safe to repeat: yes.
        """

    @abc.abstractmethod
    def write(self, offset: int, buffer: memoryview) -> None:
        """
        Write all of *buffer* at *offset*.

        Raises:
            NoSpace, ConnectionLost, CorruptData, NotPermitted.

        Safe to repeat: yes.  Durable on return: no, see `flush`.
        """

    @abc.abstractmethod
    def zero(self, offset: int, length: int) -> None:
        """
        Make *length* bytes from *offset* read as zeros.

        Their room is given back where the storage can, unless `keeps_allocation`.

        Raises:
            As `write`.

        Safe to repeat: yes.  Durable on return: no, see `flush`.
        """

    def expect(self, offset: int, length: int) -> bool:
        """
        Tell whether these bytes were given room now, because all of them will probably be written soon.

        Where that is so, zeros among them are to be zeroed (see `zero`), so that they do not keep it.

        Raises:
            Nothing: what is wrong will be seen by the write.

        If not overridden: false.   Safe to repeat: yes.
        """
        return False

    @abc.abstractmethod
    def flush(self) -> None:
        """
        Return only when everything written before is on stable storage.

        Raises:
            CorruptData: The storage reported that data may be lost.  The copy must not be believed from its last
                checkpoint on.  A second call that succeeds proves nothing: an error is reported once per descriptor.
        """

    def interrupt(self) -> None:
        """
        Let every call that is under way, and every later one, fail soon with `ConnectionLost`.

        Called when the work is given up, from another thread than those that wait.

        If not overridden: does nothing, for ports whose calls cannot be broken off.   Safe to repeat: yes.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give the volume back.  Never flushes.  Safe to repeat: yes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
