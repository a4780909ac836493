"""The domain rules of users."""

import hmac
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markethall.shared.kernel.email_address import normalize_email
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.scopes import SCOPES_BY_ROLE
from markethall.users.contract import (
    BadRefreshToken,
    ChangeProfile,
    LastAdmin,
    Role,
    UserInactive,
)
from markethall.users.domain import (
    REFRESH_GRACE_PERIOD,
    SESSION_LIFETIME,
    RefreshToken,
    RotationResult,
    Session,
    User,
    UserIdentity,
    derive_username,
    to_email_lookup_key,
    to_lookup_key,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET_HASH = "$2b$04$" + "x" * 53


def user(**changes: object) -> User:
    made = User(new_id(), UserIdentity("ada", "ada@example.com"), SECRET_HASH, NOW)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def session(token: RefreshToken) -> Session:
    return Session.open(new_id(), new_id(), token, NOW)


# Names


@given(text=st.text(max_size=50))
def test_identity_key_is_idempotent(text: str) -> None:
    assert to_lookup_key(to_lookup_key(text)) == to_lookup_key(text)


@pytest.mark.parametrize(
    ("one", "same"),
    [("Ada", "aDA"), ("STRASSE", "straße"), ("caf\u00e9", "cafe\u0301"), ("ﬁne", "FINE")],
)
def test_confusable_usernames_share_key(one: str, same: str) -> None:
    assert to_lookup_key(one) == to_lookup_key(same)


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("ada@EXAMPLE.com", "ada@example.com"),
        ("Ada+tag@example.test", "Ada+tag@example.test"),
        ("ada@b\u00fccher.example", "ada@b\u00fccher.example"),
        ("ada@xn--bcher-kva.example", "ada@b\u00fccher.example"),
    ],
)
def test_email_is_normalised(typed: str, address: str) -> None:
    assert normalize_email(typed) == address


def test_login_accepts_punycode_domain() -> None:
    assert to_email_lookup_key("ADA@xn--bcher-kva.example") == to_email_lookup_key(
        "ada@B\u00dcCHER.example"
    )


def test_invalid_email_lookup_finds_nothing() -> None:
    assert to_email_lookup_key("No Address @@") == "no address @@"


@given(local=st.text(min_size=0, max_size=80))
def test_derived_username_is_valid(local: str) -> None:
    assert UserIdentity.parse(derive_username(f"{local}@example.com"), "ada@example.com")


# Profiles and roles


def test_password_hash_is_hidden() -> None:
    assert SECRET_HASH not in repr(user())


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"full_name": "x" * 201}, "/full_name"),
        ({"tags": ("t",) * 21}, "/tags"),
        ({"tags": ("t" * 51,)}, "/tags"),
    ],
)
def test_profile_fields_are_limited(change: dict[str, object], where: str) -> None:
    with pytest.raises(ValidationFailed) as error:
        user().update_profile(ChangeProfile.model_validate(change))

    assert error.value.details["errors"][0]["field"] == where


def test_patch_changes_given_fields_only() -> None:
    ada = user(full_name="Ada", tags=("a",))

    ada.update_profile(ChangeProfile(tags=()))

    assert (ada.full_name, ada.tags, ada.version) == ("Ada", (), 2)


def test_disabled_user_cannot_update_profile() -> None:
    with pytest.raises(UserInactive):
        user(is_active=False).update_profile(ChangeProfile(full_name="Eve"))


def test_last_admin_cannot_be_demoted() -> None:
    ada = user(roles=(Role.ADMIN,))
    ada.update_access((Role.CUSTOMER,), is_active=None)

    ada.check_admin_remains(was_admin=True, has_other_admins=True)
    ada.check_admin_remains(was_admin=False, has_other_admins=False)
    with pytest.raises(LastAdmin):
        ada.check_admin_remains(was_admin=True, has_other_admins=False)


def test_disabled_admin_does_not_count() -> None:
    assert user(roles=(Role.ADMIN,)).is_active_admin
    assert not user(roles=(Role.ADMIN,), is_active=False).is_active_admin


def test_role_scope_table() -> None:
    assert {role.value for role in Role} == SCOPES_BY_ROLE.keys()


# Sessions


def test_refresh_token_round_trips() -> None:
    token = RefreshToken.generate()

    assert RefreshToken.parse(token.encoded) == token
    assert len(token.secret) * 8 == 256
    assert token.encoded not in repr(token)


def test_session_stores_only_hashes() -> None:
    token = RefreshToken.generate()

    stored_values = asdict(session(token)).values()

    assert token.family not in stored_values
    assert token.secret not in stored_values
    assert repr(token.token_hash)[:20] not in repr(session(token))


@given(text=st.text(max_size=100))
def test_random_text_is_no_token(text: str) -> None:
    with pytest.raises(BadRefreshToken):
        RefreshToken.parse(text)


def digest(text: str) -> bytes:
    return hmac.digest(b"key", text.encode(), "sha256")


def test_successor_depends_on_token_and_key() -> None:
    token = RefreshToken.generate()
    other_secret = replace(token, secret=bytes(32))

    successor = token.successor(digest)

    assert successor == token.successor(digest) == RefreshToken.parse(successor.encoded)
    assert successor.family == token.family
    secrets = {
        token.secret,
        successor.secret,
        successor.successor(digest).secret,
        other_secret.successor(digest).secret,
        token.successor(lambda text: digest(f"other key {text}")).secret,
    }
    assert len(secrets) == 5


def test_rotation_replaces_token() -> None:
    first = RefreshToken.generate()
    fresh = first.successor(digest)
    signed_in = session(first)

    assert signed_in.rotate(first, fresh, NOW) is RotationResult.ROTATED

    assert signed_in.token_hash == fresh.token_hash
    assert signed_in.previous_hash == first.token_hash
    assert signed_in.family_hash == fresh.family_hash


@pytest.mark.parametrize(
    ("later", "trade"),
    [
        (REFRESH_GRACE_PERIOD, RotationResult.ROTATED),
        (REFRESH_GRACE_PERIOD + timedelta(microseconds=1), RotationResult.REUSED),
    ],
)
def test_previous_token_is_valid_during_grace_period_only(
    later: timedelta, trade: RotationResult
) -> None:
    first = RefreshToken.generate()
    signed_in = session(first)
    signed_in.rotate(first, first.successor(digest), NOW)

    assert signed_in.rotate(first, first.successor(digest), NOW + later) is trade
    assert (signed_in.revoked_at is not None) is (trade is RotationResult.REUSED)


def test_forged_secret_revokes_session() -> None:
    token = RefreshToken.generate()
    signed_in = session(token)

    trade = signed_in.rotate(replace(token, secret=bytes(32)), RefreshToken.generate(), NOW)

    assert trade is RotationResult.REUSED
    assert signed_in.rotate(token, RefreshToken.generate(), NOW) is RotationResult.REJECTED


def test_session_expires() -> None:
    token = RefreshToken.generate()
    signed_in = session(token)

    assert signed_in.expires_at == NOW + SESSION_LIFETIME
    assert (
        signed_in.rotate(token, RefreshToken.generate(), signed_in.expires_at)
        is RotationResult.REJECTED
    )


@given(st.lists(st.integers(0, 5), max_size=12))
def test_at_most_one_token_is_current(order: list[int]) -> None:
    """Exchange current and old tokens in any order, each time after the grace period."""
    tokens = [RefreshToken.generate()]
    signed_in = session(tokens[0])
    now = NOW

    for age in order:
        now += 2 * REFRESH_GRACE_PERIOD
        presented = tokens[max(0, len(tokens) - 1 - age)]
        fresh = presented.successor(digest)
        current = presented is tokens[-1]
        alive = signed_in.revoked_at is None
        done = signed_in.rotate(presented, fresh, now) is RotationResult.ROTATED
        assert done == (current and alive)
        if done:
            tokens.append(fresh)
