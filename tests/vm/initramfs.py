"""The guest's kernel, from Debian's package, and the smallest initramfs that reaches the shared root."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FLAVOUR = "cloud-amd64"
_MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "overlay", "virtiofs")
_HERE = Path(__file__).parent
_DIRECTORIES = ("bin", "m", "proc", "sys", "dev", "ro", "rw", "new", "run")
# Behind a signed module: the signature, 12 bytes about it (the last four are its length), and this line.
_SIGNED = b"~Module signature appended~\n"


class NoMachine(Exception):
    """The machine cannot be had here; the text names the command that failed."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    folder: Path
    release: str

    @property
    def image(self) -> Path:
        return self.folder / f"boot/vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.folder / f"lib/modules/{self.release}"


def tool(name: str) -> str:
    """Return the path of a program; those of the administrator are not on every user's PATH."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise NoMachine(f"`{name}` is not on this machine")
    return path


def run(*command: str | Path, cwd: Path | None = None, seconds: int = 300) -> str:
    """Return what the command printed."""
    line = " ".join(map(str, command))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoMachine(f"`{line}` could not be run: {error}") from error
    if done.returncode:
        raise NoMachine(f"`{line}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def get_kernel(cache: Path) -> Kernel:
    """Return the kernel in *cache*, fetched and unpacked (not installed) when it is not there yet."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoMachine(f"`mkdir {cache}` failed: {error.strerror}") from error
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = cache / _FLAVOUR
        if not (folder / "ready").exists():
            try:
                _fetch_kernel(folder)
            except NoMachine:
                # The package lists may be missing, or name a kernel that is not to be had any more.
                run("apt-get", "-q", "update")
                _fetch_kernel(folder)
        (release,) = os.listdir(folder / "lib/modules")
        return Kernel(folder, release)


def _fetch_kernel(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    depends = run("apt-cache", "depends", f"linux-image-{_FLAVOUR}")
    found = re.search(r"Depends: (linux-image-\d\S*)", depends)
    if found is None:
        raise NoMachine(f"`apt-cache depends linux-image-{_FLAVOUR}` names no kernel")
    run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", found[1], cwd=folder)
    (package,) = folder.glob("*.deb")
    run("dpkg", "-x", package, folder)
    package.unlink()
    (release,) = os.listdir(folder / "lib/modules")
    run(tool("depmod"), "-b", folder, release)
    (folder / "ready").touch()


def write_initramfs(path: Path, kernel: Kernel, settings: Mapping[str, str], command: str) -> None:
    """Write the initramfs that mounts the shared root and runs *command*, a line for the shell, in it."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for directory in _DIRECTORIES:
            (root / directory).mkdir()
        shutil.copy(tool("busybox"), root / "bin/busybox")
        order = [_add_module(source, root / "m") for source in _modules_in_order(kernel)]
        (root / "m/order").write_text("".join(f"{module}\n" for module in order))
        for script in ("init", "start"):
            shutil.copy(_HERE / f"guest-{script}.sh", root / script)
            (root / script).chmod(0o755)
        (root / "settings").write_text("".join(f"{k}='{v}'\n" for k, v in settings.items()))
        (root / "command").write_text(command + "\n")
        path.write_bytes(_cpio(root))


def _modules_in_order(kernel: Kernel) -> list[Path]:
    """Return the modules that the guest needs to find its root, what they need first."""
    result: dict[Path, None] = {}
    for module in _MODULES:
        lines = run(
            tool("modprobe"), "-n", "-d", kernel.folder, "-S", kernel.release, "--show-depends", module
        )
        for line in lines.splitlines():
            if line.startswith("insmod "):
                result[Path(line.split()[1])] = None
    return list(result)


def _add_module(source: Path, folder: Path) -> str:
    content = source.read_bytes()
    if content.endswith(_SIGNED):
        # Checking a signature takes long under emulation.
        information_end = len(content) - len(_SIGNED)
        length = int.from_bytes(content[information_end - 4 : information_end], "big")
        content = content[: information_end - 12 - length]
    (folder / source.name).write_bytes(content)
    return source.name


def _cpio(root: Path) -> bytes:
    """Return the tree as an archive of the format `newc`, all of it root's."""
    archive = bytearray()
    for number, path in enumerate(sorted(root.rglob("*")), 1):
        content = path.read_bytes() if path.is_file() else b""
        _add_entry(archive, number, str(path.relative_to(root)), path.stat().st_mode, content)
    _add_entry(archive, 0, "TRAILER!!!", 0, b"")
    return bytes(archive)


def _add_entry(archive: bytearray, number: int, name: str, mode: int, content: bytes) -> None:
    fields: Sequence[int] = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    archive += bytes(-len(archive) % 4) + content
    archive += bytes(-len(archive) % 4)
