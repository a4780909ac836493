"""The rules about people and sessions, without any storage."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markethall.shared.auth import SCOPES_OF_ROLE
from markethall.shared.errors import Invalid
from markethall.shared.ids import new_id
from markethall.users.contract import (
    BadRefreshToken,
    ChangeProfile,
    LastAdmin,
    Role,
    UserInactive,
)
from markethall.users.domain import (
    GRACE,
    SESSION_LIFETIME,
    Names,
    RefreshToken,
    Session,
    Trade,
    User,
    email_address,
    key_of,
    login_key,
    username_from,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET_HASH = "$2b$04$" + "x" * 53


def user(**changes: object) -> User:
    made = User(new_id(), Names("ada", "ada@example.com"), SECRET_HASH, NOW)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def session(token: RefreshToken) -> Session:
    return Session.opened(new_id(), new_id(), token, NOW)


# Names


@given(text=st.text(max_size=50))
def test_a_key_is_the_key_of_itself(text: str) -> None:
    assert key_of(key_of(text)) == key_of(text)


@pytest.mark.parametrize(
    ("one", "same"),
    [("Ada", "aDA"), ("STRASSE", "straße"), ("caf\u00e9", "cafe\u0301"), ("ﬁne", "FINE")],
)
def test_names_that_look_alike_are_one(one: str, same: str) -> None:
    assert key_of(one) == key_of(same)


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("ada@EXAMPLE.com", "ada@example.com"),
        ("Ada+tag@example.test", "Ada+tag@example.test"),
        ("ada@b\u00fccher.example", "ada@b\u00fccher.example"),
        ("ada@xn--bcher-kva.example", "ada@b\u00fccher.example"),
    ],
)
def test_an_address_has_one_written_form(typed: str, address: str) -> None:
    assert email_address(typed) == address


def test_who_signs_in_with_the_ascii_form_of_the_domain_is_found() -> None:
    assert login_key("ADA@xn--bcher-kva.example") == login_key("ada@B\u00dcCHER.example")


def test_what_is_no_address_can_still_be_looked_up_in_vain() -> None:
    assert login_key("No Address @@") == "no address @@"


@given(local=st.text(min_size=0, max_size=80))
def test_a_name_made_from_any_address_is_a_name(local: str) -> None:
    assert Names.checked(username_from(f"{local}@example.com"), "ada@example.com")


# People


def test_nobody_sees_the_hash_of_a_password() -> None:
    assert SECRET_HASH not in repr(user())


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"full_name": "x" * 201}, "/full_name"),
        ({"tags": ("t",) * 21}, "/tags"),
        ({"tags": ("t" * 51,)}, "/tags"),
    ],
)
def test_a_profile_has_its_limits(change: dict[str, object], where: str) -> None:
    with pytest.raises(Invalid) as refusal:
        user().describe(ChangeProfile.model_validate(change))

    assert refusal.value.details["errors"][0]["field"] == where


def test_only_what_was_given_is_changed() -> None:
    ada = user(full_name="Ada", tags=("a",))

    ada.describe(ChangeProfile(tags=()))

    assert (ada.full_name, ada.tags, ada.version) == ("Ada", (), 2)


def test_the_disabled_describe_nothing() -> None:
    with pytest.raises(UserInactive):
        user(is_active=False).describe(ChangeProfile(full_name="Eve"))


def test_an_admin_may_leave_only_when_another_stays() -> None:
    ada = user(roles=(Role.ADMIN,))
    ada.appoint((Role.CUSTOMER,), active=None)

    ada.check_admin_left(was_admin=True, others=True)
    ada.check_admin_left(was_admin=False, others=False)
    with pytest.raises(LastAdmin):
        ada.check_admin_left(was_admin=True, others=False)


def test_a_disabled_admin_is_none() -> None:
    assert user(roles=(Role.ADMIN,)).is_admin
    assert not user(roles=(Role.ADMIN,), is_active=False).is_admin


def test_every_role_has_its_scopes_and_no_other_has() -> None:
    assert {role.value for role in Role} == SCOPES_OF_ROLE.keys()


# Sessions


def test_a_refresh_token_is_read_as_it_was_written() -> None:
    token = RefreshToken.new()

    assert RefreshToken.parse(token.text) == token
    assert len(token.proof) * 8 == 256
    assert token.text not in repr(token)


def test_a_session_knows_only_hashes() -> None:
    token = RefreshToken.new()

    kept = asdict(session(token)).values()

    assert token.family not in kept
    assert token.proof not in kept
    assert repr(token.hash)[:20] not in repr(session(token))


@given(text=st.text(max_size=100))
def test_no_text_is_taken_for_a_token_by_chance(text: str) -> None:
    with pytest.raises(BadRefreshToken):
        RefreshToken.parse(text)


def test_a_trade_puts_the_fresh_token_in_place() -> None:
    first = RefreshToken.new()
    fresh = RefreshToken.new(first.family)
    signed_in = session(first)

    assert signed_in.trade(first, fresh, NOW) is Trade.DONE

    assert signed_in.token_hash == fresh.hash
    assert signed_in.previous_hash == first.hash
    assert signed_in.family_hash == fresh.family_hash


@pytest.mark.parametrize(
    ("later", "trade"),
    [
        (GRACE, Trade.DONE),
        (GRACE + timedelta(microseconds=1), Trade.REUSED),
    ],
)
def test_the_last_token_is_good_for_the_grace_and_no_longer(later: timedelta, trade: Trade) -> None:
    first = RefreshToken.new()
    signed_in = session(first)
    signed_in.trade(first, RefreshToken.new(first.family), NOW)

    assert signed_in.trade(first, RefreshToken.new(first.family), NOW + later) is trade
    assert (signed_in.revoked_at is not None) is (trade is Trade.REUSED)


def test_a_forged_proof_ends_the_session() -> None:
    token = RefreshToken.new()
    signed_in = session(token)

    trade = signed_in.trade(RefreshToken.new(token.family), RefreshToken.new(), NOW)

    assert trade is Trade.REUSED
    assert signed_in.trade(token, RefreshToken.new(), NOW) is Trade.REFUSED


def test_a_session_is_over_at_its_end() -> None:
    token = RefreshToken.new()
    signed_in = session(token)

    assert signed_in.expires_at == NOW + SESSION_LIFETIME
    assert signed_in.trade(token, RefreshToken.new(), signed_in.expires_at) is Trade.REFUSED


@given(st.lists(st.integers(0, 5), max_size=12))
def test_however_tokens_are_presented_at_most_one_is_current(order: list[int]) -> None:
    """Any sequence of old and new tokens, long after one another."""
    tokens = [RefreshToken.new()]
    signed_in = session(tokens[0])
    now = NOW

    for age in order:
        now += 2 * GRACE
        presented = tokens[max(0, len(tokens) - 1 - age)]
        fresh = RefreshToken.new(tokens[0].family)
        current = presented is tokens[-1]
        alive = signed_in.revoked_at is None
        done = signed_in.trade(presented, fresh, now) is Trade.DONE
        assert done == (current and alive)
        if done:
            tokens.append(fresh)
