"""
A throwaway virtual machine for what needs a kernel of its own: device-mapper, NFS mounts, failing disks.

QEMU emulates it, so neither KVM nor modules of the host's kernel are needed.  It runs Debian's cloud kernel on the root
file system of this machine: read-only, below a layer in memory.  Nothing that the guest writes reaches the host,
but what it writes to the servers of `tests/vm/storage.py`.
"""
