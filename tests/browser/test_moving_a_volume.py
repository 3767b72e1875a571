"""What a person does in the browser, from logging in to the end of a migration."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from backends.drivers.types import MIB
from backends.models import Backend, Volume
from migrations_app import services, worker
from migrations_app.models import VolumeMigration
from tests.conftest import object_path

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PASSWORD = "a-long-password-1"


@pytest.fixture
def volumes(
    live_server: object, make_backend: Callable[..., Backend], make_volume: Callable[..., Volume]
) -> list[Volume]:
    get_user_model().objects.create_superuser("admin", password=PASSWORD)
    ssd, _, _ = make_backend("ssd"), make_backend("hdd"), make_backend("off", is_enabled=False)
    return [make_volume(ssd, f"vol-{number}", 24 * MIB) for number in range(2)]


@pytest.fixture
def stopped_worker() -> Iterator[threading.Event]:
    """Return an event: when it is set, a thread works on every migration until the test ends."""
    starts, ends = threading.Event(), threading.Event()

    def work() -> None:
        starts.wait()
        while not ends.wait(0.2):
            for pk in VolumeMigration.objects.values_list("pk", flat=True):
                worker.advance(uuid.UUID(str(pk)))
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield starts
    ends.set()
    starts.set()
    thread.join()


def log_in(page: object, live_server: object) -> None:
    page.goto(f"{live_server.url}/")
    page.fill("#id_username", "admin")
    page.fill("#id_password", PASSWORD)
    page.click("[type=submit]")


def overflow(page: object) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (420, "dark")])
def test_move_a_volume_and_watch_it(
    volumes: list[Volume],
    live_server: object,
    open_page: Callable[..., object],
    stopped_worker: threading.Event,
    width: int,
    scheme: str,
) -> None:
    page = open_page(width, scheme)
    log_in(page, live_server)
    assert "Three steps to the first move" in page.inner_text("main")
    page.goto(f"{live_server.url}/admin/backends/volume/")
    assert overflow(page) <= 0
    page.check(f'input[value="{volumes[0].pk}"]')
    page.select_option("select[name=action]", "migrate_to_backend")
    page.click("button[name=index]")
    assert "testhost@off is disabled" in page.inner_text("#migrate-form").replace("#main", "")
    assert page.locator("input[type=radio][name^=destination]").count() == 1
    page.check("input[type=radio][name^=destination]")
    page.check("input[name=force_host_copy]")
    assert overflow(page) <= 0
    page.click("button[name=review]")
    assert "vol-0 (24.0 MiB) is copied from testhost@ssd#main to testhost@hdd#main" in page.inner_text(
        ".will"
    )
    page.click("button[name=start]")
    page.wait_for_url("**/volumemigration/*/change/")
    assert "queued" in page.inner_text(".route-head")
    stopped_worker.set()
    page.wait_for_selector(".route-head .chip.is-green", timeout=60_000)
    assert "retained" in page.inner_text(".route-head")
    assert page.locator(".timeline .is-done").count() == 6
    assert "equal to the source" in page.inner_text("main")
    assert "Moved; the source is kept" in page.title()
    assert overflow(page) <= 0
    assert page.complaints == []


def test_the_page_says_when_the_server_is_away_and_goes_on_when_it_is_back(
    volumes: list[Volume], live_server: object, open_page: Callable[..., object], request_move: object
) -> None:
    migration = request_move(volumes[0])
    page = open_page()
    log_in(page, live_server)
    page.goto(f"{live_server.url}/admin/migrations_app/volumemigration/{migration.pk}/change/")
    page.route("**/live/", lambda route: route.abort())
    page.wait_for_selector("#live-notice:visible")
    assert "Connection lost, retrying" in page.inner_text("#live-notice")
    page.unroute("**/live/")
    page.wait_for_selector("#live-notice", state="hidden")


@pytest.fixture
def request_move() -> Callable[[Volume], VolumeMigration]:
    """Return a function that asks for the migration of a volume that no worker takes."""
    return lambda volume: services.request_migration(volume, "testhost@hdd", services.Actor("tester"))


def test_without_scripts_everything_still_works(
    volumes: list[Volume],
    live_server: object,
    open_page: Callable[..., object],
    stopped_worker: threading.Event,
) -> None:
    page = open_page(java_script_enabled=False)
    log_in(page, live_server)
    page.goto(f"{live_server.url}/admin/backends/volume/migrate/?volume={volumes[1].pk}")
    page.click("button[name=review]")
    page.click("button[name=start]")
    assert 'http-equiv="refresh"' in page.content()
    stopped_worker.set()
    page.wait_for_selector(".route-head .chip.is-green", timeout=60_000)


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (420, "dark")])
def test_the_doctor_mends_what_is_safe(
    volumes: list[Volume], live_server: object, open_page: Callable[..., object], width: int, scheme: str
) -> None:
    directory = object_path(volumes[0]).parent
    leftovers = [directory / f"volmig-validate-60000000-abcdef-a{number}.raw" for number in range(3)]
    for path in [*leftovers, directory / "somebodys-disk.raw"]:
        path.write_bytes(bytes(4096))
    page = open_page(width, scheme)
    log_in(page, live_server)
    page.click("#overview-health a")
    assert "Objects without a record" in page.inner_text("main")
    assert overflow(page) <= 0
    page.locator("button[name=finding]").first.click()
    page.wait_for_selector(".messagelist .success")
    assert "was left by an interrupted validation. Delete it." in page.inner_text(".messagelist")
    assert sum(path.exists() for path in leftovers) == 2
    page.click("button[name=all]")
    page.wait_for_selector("button[name=all]", state="detached")
    assert [path.name for path in directory.glob("*.raw") if "volume" not in path.name] == [
        "somebodys-disk.raw"
    ]
    assert overflow(page) <= 0
    (directory / "somebodys-disk.raw").unlink()
    page.click("text=Look again")
    assert "Rows and storage agree" in page.inner_text("main")
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_narrow_window(
    volumes: list[Volume],
    live_server: object,
    open_page: Callable[..., object],
    request_move: object,
    scheme: str,
) -> None:
    migration = request_move(volumes[0])
    page = open_page(420, scheme)
    log_in(page, live_server)
    storage, one = "backends/volume/", "migrations_app/volumemigration/"
    for path in (
        "",
        *("backends/backend/", "backends/backend/add/", "backends/backend/add/?driver=directory"),
        *("backends/pool/", f"backends/pool/{volumes[0].pool_id}/change/", "backends/volumetype/add/"),
        *(
            storage,
            f"{storage}add/",
            f"{storage}{volumes[0].pk}/change/",
            f"{storage}{volumes[1].pk}/attach/",
        ),
        *(f"{storage}migrate/?volume={volumes[0].pk}&volume={volumes[1].pk}", one),
        *(f"{one}{migration.pk}/change/", f"{one}{migration.pk}/cancel/", f"{one}{migration.pk}/report/"),
        *("doctor/", f"{one}?kept=any"),
        *(f"{storage}{volumes[1].pk}/{verb}/" for verb in ("extend", "snapshot", "delete")),
    ):
        page.goto(f"{live_server.url}/admin/{path}")
        assert overflow(page) <= 0, path
    assert page.complaints == []
