"""
`python -P iscsi_luns.py iscsi://portal/target/0`: print the numbers of the LUNs that are disks, one on each line.

Run as a process of its own, because libiscsi may wait for ever.  `iscsi-ls` cannot be asked for one target: it logs in
to every one that the portal shows and gives up at the first that refuses, and most arrays have several.  CHAP user and
secret are taken from the environment, by libiscsi itself.

Source: libiscsi 1.19, `iscsi.h`, `scsi-lowlevel.h` and `utils/iscsi-ls.c`.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_char, c_char_p, c_int, c_uint16, c_uint32, c_void_p

LIBRARY = "libiscsi.so.7"

_INITIATOR = b"iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls"
_NORMAL_SESSION = 2
_NO_DIGEST_OR_CRC32C = 1
_GOOD, _ALL_LUNS, _ENOUGH_BYTES = 0, 2, 16 * 1024
_CONNECTED, _DIRECT_ACCESS = 0, 0


class _Url(ctypes.Structure):
    _fields_ = (
        ("portal", c_char * 256),
        ("target", c_char * 256),
        ("user", c_char * 256),
        ("secret", c_char * 256),
        ("lun", c_int),
    )


class _Task(ctypes.Structure):
    _fields_ = (("status", c_int),)


class _Luns(ctypes.Structure):
    _fields_ = (("count", c_uint32), ("numbers", c_uint16 * (_ENOUGH_BYTES // 8)))


class _Inquiry(ctypes.Structure):
    _fields_ = (("qualifier", c_int), ("device_type", c_int))


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise SystemExit(f"{LIBRARY} cannot be used: {error}") from None
    for name, result, *arguments in (
        ("iscsi_create_context", c_void_p, c_char_p),
        ("iscsi_parse_full_url", POINTER(_Url), c_void_p, c_char_p),
        ("iscsi_get_error", c_char_p, c_void_p),
        ("iscsi_set_targetname", c_int, c_void_p, c_char_p),
        ("iscsi_set_session_type", c_int, c_void_p, c_int),
        ("iscsi_set_header_digest", c_int, c_void_p, c_int),
        ("iscsi_set_initiator_username_pwd", c_int, c_void_p, c_char_p, c_char_p),
        ("iscsi_connect_sync", c_int, c_void_p, c_char_p),
        ("iscsi_login_sync", c_int, c_void_p),
        ("iscsi_reportluns_sync", POINTER(_Task), c_void_p, c_int, c_int),
        ("iscsi_inquiry_sync", POINTER(_Task), c_void_p, c_int, c_int, c_int, c_int),
        ("scsi_datain_unmarshall", c_void_p, POINTER(_Task)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class _Session:
    """A login to one target.  Ends with the process."""

    def __init__(self, url: str) -> None:
        self._library = _library()
        self._context = self._library.iscsi_create_context(_INITIATOR)
        parsed = self._library.iscsi_parse_full_url(self._context, url.encode())
        if not parsed:
            self._give_up("The address cannot be read")
        there = parsed.contents
        self._library.iscsi_set_targetname(self._context, there.target)
        self._library.iscsi_set_session_type(self._context, _NORMAL_SESSION)
        self._library.iscsi_set_header_digest(self._context, _NO_DIGEST_OR_CRC32C)
        if there.user:
            self._library.iscsi_set_initiator_username_pwd(self._context, there.user, there.secret)
        if self._library.iscsi_connect_sync(self._context, there.portal):
            self._give_up("iscsi_connect failed")
        if self._library.iscsi_login_sync(self._context):
            self._give_up("iscsi_login failed")

    def _give_up(self, what: str) -> None:
        said = self._library.iscsi_get_error(self._context) or b""
        raise SystemExit(f"{what}. {said.decode(errors='replace')}")

    def _answer(self, task: object, what: str, kind: type[ctypes.Structure]) -> ctypes.Structure:
        if not task or task.contents.status != _GOOD:  # type: ignore[attr-defined]
            self._give_up(f"{what} failed")
        address = self._library.scsi_datain_unmarshall(task)
        if not address:
            self._give_up(f"{what}: the answer cannot be read")
        return kind.from_address(address)

    def luns(self) -> list[int]:
        """Return the numbers of all LUNs, as libiscsi and QEMU take them: with the bits of the addressing method."""
        # Some targets report a unit attention to the first command of a session.
        for _ in range(3):
            task = self._library.iscsi_reportluns_sync(self._context, _ALL_LUNS, _ENOUGH_BYTES)
            if task and task.contents.status == _GOOD:
                break
        found = self._answer(task, "REPORT LUNS", _Luns)
        return list(found.numbers[: found.count])

    def is_disk(self, number: int) -> bool:
        task = self._library.iscsi_inquiry_sync(self._context, number, 0, 0, 64)
        found = self._answer(task, f"INQUIRY of LUN {number}", _Inquiry)
        return (found.qualifier, found.device_type) == (_CONNECTED, _DIRECT_ACCESS)


if __name__ == "__main__":
    session = _Session(sys.argv[1])
    sys.stdout.writelines(f"{number}\n" for number in session.luns() if session.is_disk(number))
