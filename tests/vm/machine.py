"""Boot the machine, run one command in it, and return its status."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tests.vm.initramfs import NoMachine, get_kernel, tool, write_initramfs

CACHE = Path(os.environ.get("VOLMIG_VM_CACHE", "/var/cache/volmig-vm"))
_KERNEL_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr norandmaps random.trust_cpu=on no_timer_check "
    "tsc=reliable audit=0 selinux=0 apparmor=0 rcupdate.rcu_expedited=1 cryptomgr.notests init_on_alloc=0 rodata=off"
)
# In Debian 12 a part of QEMU, later a package of its own.
_VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")


# What lies on the disks: no zeros anywhere, so that nothing looks right by chance.
_JUNK = b"old data of another volume! " * 40_000


class Lost(Exception):
    """A machine ended, or was ended, before its command did."""


def run_in_guest(
    command: str,
    *,
    disks: Sequence[int],
    limit_seconds: int,
    output: BinaryIO | None = None,
    memory_mib: int = 1280,
    cpus: int = 1,
    environment: Mapping[str, str] | None = None,
    beside: AbstractContextManager[tuple[Mapping[str, str], int | None]] | None = None,
) -> int:
    """
    Run the line *command* as root in the guest, in this directory, with its output to *output*; return its status.

    Args:
        disks: Sizes in bytes of disks full of old data: /dev/vda, /dev/vdb, …
        output: This process's own, if not given.
        environment: More variables for the command.
        beside: What the command needs beside the machine; yields variables that tell of it, and a process: the guest
            reaches what that process reaches, by the same addresses.  Without it, there is no network.

    Raises:
        NoMachine: There is no machine.
        Lost: The command had begun, and the machine has not come to its end, or not in time.
    """
    kernel = get_kernel(CACHE)
    with tempfile.TemporaryDirectory(prefix="volmig-vm-") as name, ExitStack() as stack:
        folder = Path(name)
        arguments = _arguments(folder, memory_mib, cpus)
        told, process = ({}, None) if beside is None else stack.enter_context(beside)
        if process is not None:
            arguments = [tool("nsenter"), f"--net=/proc/{process}/ns/net", *arguments]
            # The machine is not started from the network: its card needs no code for that.
            arguments += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
        settings = {
            "RELEASE": kernel.release,
            "MODULES": str(kernel.modules),
            "FOLDER": str(Path.cwd()),
            "NETWORK": "" if process is None else "yes",
        }
        variables = {**(environment or {}), **told}
        exports = [f"export {variable}={shlex.quote(value)}" for variable, value in variables.items()]
        write_initramfs(folder / "initrd", kernel, settings, "\n".join([*exports, command]))
        arguments += [
            "-kernel",
            str(kernel.image),
            "-initrd",
            str(folder / "initrd"),
            "-append",
            _KERNEL_LINE,
        ]
        for number, size in enumerate(disks):
            arguments += _disk(folder / f"disk{number}", number, size)
        stack.enter_context(_shared_root(folder))
        return _boot(arguments, folder, limit_seconds, output or sys.stdout.buffer)


def _arguments(folder: Path, memory_mib: int, cpus: int) -> list[str]:
    return [
        *(tool("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-M", "pc,usb=off,vmport=off", "-cpu", "max", "-smp", str(cpus), "-accel", "tcg,thread=multi"),
        *("-m", str(memory_mib)),
        *(
            "-object",
            f"memory-backend-memfd,id=mem,size={memory_mib}M,share=on",
            "-machine",
            "memory-backend=mem",
        ),
        *("-serial", f"file:{folder}/console", "-device", "virtio-serial-pci"),
        *("-chardev", "file,id=out,path=/dev/stdout,append=on"),
        *("-device", "virtserialport,chardev=out,name=out,nr=1"),
        *("-chardev", f"file,id=st,path={folder}/status"),
        *("-device", "virtserialport,chardev=st,name=st,nr=2"),
        *("-chardev", f"socket,id=root,path={folder}/root.sock"),
        *("-device", "vhost-user-fs-pci,chardev=root,tag=hostroot,queue-size=1024"),
    ]


def _disk(path: Path, number: int, size_bytes: int) -> list[str]:
    with path.open("wb") as file:
        while (missing := size_bytes - file.tell()) > 0:
            file.write(_JUNK[:missing])
    drive = f"if=none,id=d{number},file={path},format=raw,cache=unsafe,discard=unmap"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive=d{number},serial=disk{number}"]


@contextmanager
def _shared_root(folder: Path) -> Iterator[None]:
    """Serve this machine's root to the guest, read-only."""
    server = next((path for path in _VIRTIOFSD if os.access(path, os.X_OK)), None)
    if server is None:
        raise NoMachine(f"`{_VIRTIOFSD[0]}` is not on this machine")
    point, sock, log = folder / "root", folder / "root.sock", folder / "virtiofsd.log"
    point.mkdir()
    # In a mount namespace of its own, so that nothing has to be unmounted; a bind mount, because only that can be
    # read-only while the root is not.
    script = (
        f"mount --bind / {point} && mount -o remount,bind,ro {point} && exec {server} --socket-path={sock} "
        f"-o source={point} -o cache=always -o sandbox=chroot -o log_level=warn -f"
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [tool("unshare"), "-m", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        ends_at = time.monotonic() + 20
        while not sock.exists():
            if process.poll() is not None or time.monotonic() > ends_at:
                raise NoMachine(f"`virtiofsd` did not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _boot(arguments: Sequence[str], folder: Path, limit_seconds: int, output: BinaryIO) -> int:
    # A pipe, because QEMU's chardev needs a file that it can open again by name.
    has_spoken = threading.Event()
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        relay = threading.Thread(target=_relay, args=(machine, output, has_spoken), daemon=True)
        relay.start()
        try:
            machine.wait(limit_seconds)
            problem = "ended early"
        except subprocess.TimeoutExpired:
            problem = f"has not ended within {limit_seconds} seconds"
        finally:
            machine.kill()
            relay.join(10)
    with suppress(FileNotFoundError, ValueError, IndexError):
        return int((folder / "status").read_text().split("status=")[1])
    console = (folder / "console").read_text(errors="replace")[-1500:]
    raise (Lost if has_spoken.is_set() else NoMachine)(f"the machine {problem}: {console}")


def _relay(machine: subprocess.Popen[bytes], output: BinaryIO, has_spoken: threading.Event) -> None:
    assert machine.stdout is not None, "it was asked for"
    while piece := os.read(machine.stdout.fileno(), 65536):
        has_spoken.set()
        output.write(piece.replace(b"\r\n", b"\n"))
        output.flush()
