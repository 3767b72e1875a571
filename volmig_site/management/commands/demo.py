"""`manage.py demo`: everything set up, one migration run, the site left running."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any, NoReturn

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from backends.models import Volume
from migrations_app import process_tree
from migrations_app.scheduler.human import bytes_text
from volmig_site import demo

_MIGRATED = "files"
_START_SECONDS = 30
_STOP_SECONDS = 7
_MOST_RESTARTS = 20


class Command(BaseCommand):
    """Set up a demonstration and run it."""

    help = (
        "Set up a demonstration in the state directory (VOLMIG_STATE_DIR): database, administrator, "
        "directory backends, volumes with real file systems. Then start the web server and the worker, migrate "
        "one volume from the command line, check it, and leave the site running until Ctrl-C. Safe to repeat."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--port", type=int, default=8000, help="Port of the site; a free one when it is taken."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.children: list[subprocess.Popen[bytes]] = []
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        try:
            self._run(options["port"])
        except KeyboardInterrupt:
            self._say("\nStopping.")
        except demo.DemoFailed as error:
            raise CommandError(str(error)) from None
        finally:
            self._stop_children()
        self._say(f"Everything has stopped. The demo's data is kept in {settings.VOLMIG_STATE_DIR}.")

    # -- the demonstration ---------------------------------------------------------------------------------

    def _run(self, port: int) -> None:
        self._say("Setting up the database, the backends and the volumes ...")
        call_command("migrate", verbosity=0)
        password = demo.create_administrator()
        demo.register_backends()
        demo.create_volumes()
        port = _free_port(port)
        self._start("volmig_worker")
        self._start_web(port)
        self._migrate()
        self._invite(port, password)
        self._watch()

    def _start_web(self, port: int) -> None:
        self._spawn(
            [
                *(sys.executable, "-m", "gunicorn", "volmig_site.wsgi", "--bind", f"127.0.0.1:{port}"),
                *("--worker-class", "gthread", "--threads", "8", "--log-level", "warning"),
            ]
        )
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/login/", timeout=5):
                    return
            except (urllib.error.URLError, OSError) as error:
                if time.monotonic() > end or self.children[-1].poll() is not None:
                    raise demo.DemoFailed(f"The web server did not start: {error}") from None
                time.sleep(0.2)

    def _migrate(self) -> None:
        volume = Volume.objects.select_related("pool__backend").get(name=_MIGRATED)
        destination = "hdd" if volume.pool.backend.name == "ssd" else "ssd"
        before = demo.contents(demo.volume_path(volume))
        # On one file system the driver would move it in an instant; the copy is what is worth watching.
        command = [
            *("migrate_volume", _MIGRATED, "--to", f"{settings.VOLMIG_HOST}@{destination}"),
            *("--force-host-copy", "--wait"),
        ]
        self._say(f"\n$ .venv/bin/python manage.py {' '.join(command)}")
        status = subprocess.run([sys.executable, sys.argv[0], *command], check=False).returncode
        if status != 0:
            raise demo.DemoFailed(f"The migration ended with status {status}; see above.")
        self._check(volume, before)

    def _check(self, volume: Volume, before: demo.Contents) -> None:
        path = demo.volume_path(volume)
        after = demo.contents(path)
        errors = demo.file_system_errors(path)
        if errors or after.digest != before.digest or after.files != before.files:
            raise demo.DemoFailed(f"The volume is not what it was! {errors}")
        self._say(
            f"Checked: e2fsck finds no fault, all {len(after.files)} files have the same SHA-256, the volume "
            f"takes {bytes_text(after.allocated_bytes)} (before: {bytes_text(before.allocated_bytes)})."
        )

    def _invite(self, port: int, password: str | None) -> None:
        login = (
            f"password: {password}   (shown only now)"
            if password
            else "password as shown at the first start; a new one: "
            f".venv/bin/python manage.py changepassword {demo.ADMIN}"
        )
        self._say(f"\nThe site runs at http://127.0.0.1:{port}/\n  user: {demo.ADMIN}\n  {login}")
        self._say("Choose a volume and 'Migrate to backend'. Ctrl-C stops everything.")

    # -- processes -------------------------------------------------------------------------------------------

    def _start(self, command: str) -> None:
        self._spawn([sys.executable, sys.argv[0], command])

    def _spawn(self, command: list[str]) -> None:
        # Sessions of their own: Ctrl-C reaches only this process, which stops them in order.
        self.children.append(
            subprocess.Popen(
                command,
                start_new_session=True,
                preexec_fn=process_tree.die_with_parent,
                cwd=settings.BASE_DIR,
            )
        )

    def _watch(self) -> None:
        """Start again what dies, as a service manager would."""
        restarts = 0
        while True:
            for child in [c for c in self.children if c.poll() is not None]:
                restarts += 1
                what = f"'{' '.join(map(str, child.args))}' ended with status {child.returncode}"
                if restarts > _MOST_RESTARTS:
                    raise demo.DemoFailed(f"{what}, for the {restarts}th time.")
                self._say(f"{what}; it is started again.")
                self.children.remove(child)
                self._spawn(list(child.args))
            time.sleep(0.5)

    def _stop_children(self) -> None:
        for child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_SECONDS)
            if child.poll() is None:
                child.kill()

    def _interrupt(self, signum: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _free_port(wanted: int) -> int:
    """Return *wanted* if nobody listens there, otherwise a free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return probe.getsockname()[1]
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise demo.DemoFailed(f"Port {port} cannot be used: {error}") from None
    raise demo.DemoFailed("No free port was found.")
