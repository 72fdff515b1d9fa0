import pytest

from dreambooth3d.errors import InputError
from serve import keys
from serve.access import Access, Caller, Mode
from serve.errors import ApiError
from serve.keys import KeyTable
from serve.settings import ServeSettings
from tests.serve.conftest import Clock


@pytest.fixture
def table(settings: ServeSettings, clock: Clock) -> KeyTable:
    return KeyTable(settings.database_url, clock=clock)


def admit(table: KeyTable, text: str, *, clock: Clock, mode: Mode = "keys") -> Caller:
    return Access(mode, table, clock=clock).admit("GET", {"authorization": f"Bearer {text}"})


def test_a_key_names_its_owner_until_it_expires_or_is_revoked(
    table: KeyTable, clock: Clock
) -> None:
    key, text = table.add("ana", days=1, max_live=3, per_minute=60)
    assert text not in repr(table.all())
    assert admit(table, text, clock=clock) == Caller(owner="ana", max_live=3)
    clock.now += 86_400
    with pytest.raises(ApiError, match="got an expired one") as expired:
        admit(table, text, clock=clock)
    assert (expired.value.status, expired.value.headers["WWW-Authenticate"]) == (401, "Bearer")
    clock.now -= 86_400
    table.revoke(key.id)
    with pytest.raises(ApiError, match="an unknown or revoked one"):
        admit(table, text, clock=clock)
    with pytest.raises(InputError, match="keys list"):
        table.revoke("nothing")


@pytest.mark.parametrize("header", [{}, {"authorization": "Basic x"}, {"authorization": "Bearer"}])
def test_no_key_is_refused(table: KeyTable, header: dict[str, str]) -> None:
    with pytest.raises(ApiError, match="got none") as refused:
        Access("keys", table).admit("GET", header)
    assert refused.value.reply.error.code == "missing_key"


def test_a_key_may_ask_at_its_rate(table: KeyTable, clock: Clock) -> None:
    _, text = table.add("ana", days=None, max_live=1, per_minute=12)
    access = Access("keys", table, clock=clock)
    header = {"authorization": f"Bearer {text}"}
    for _ in range(2):
        access.admit("GET", header)
    with pytest.raises(ApiError, match="at most 12 requests a minute and 2 at once") as refused:
        access.admit("GET", header)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "5")
    clock.now += 5
    access.admit("GET", header)


def test_foreign_pages_and_names_cannot_use_an_open_loopback(table: KeyTable) -> None:
    access = Access("loopback", table)
    local = {"host": "127.0.0.1:8000"}
    assert access.admit("POST", local | {"origin": "http://127.0.0.1:8000"}) == Caller()
    for headers in (local | {"origin": "https://evil.example"}, {"host": "evil.example:8000"}):
        with pytest.raises(ApiError) as refused:
            access.admit("POST", headers)
        assert refused.value.status == 403


def test_the_command_makes_lists_and_revokes(
    settings: ServeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--database", settings.database_url]
    keys.main([*where, "add", "ana", "--days", "2", "--max-live", "5"])
    text = capsys.readouterr().out.strip()
    keys.main([*where, "list"])
    shown = capsys.readouterr().out
    assert "ana valid, 5 live jobs" in shown
    assert text not in shown
    keys.main([*where, "revoke", shown.split()[0]])
    keys.main([*where, "list"])
    assert "ana revoked" in capsys.readouterr().out
    with pytest.raises(InputError, match="max_live must be at least 1"):
        keys.main([*where, "add", "ana", "--max-live", "0"])
    with pytest.raises(InputError, match="--days must be above 0, got -1"):
        keys.main([*where, "add", "ana", "--days", "-1"])
    with pytest.raises(InputError, match="a key's owner must be"):
        keys.main([*where, "add", ""])
