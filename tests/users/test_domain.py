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
from markethall.shared.kernel.lookup_key import to_lookup_key
from markethall.shared.kernel.scopes import SCOPES_BY_ROLE
from markethall.users.contract import ChangeProfile, Role, UserInactive
from markethall.users.contract.errors import BadRefreshToken, LastAdmin
from markethall.users.domain.session import (
    MAX_EXCHANGED_TOKENS,
    REFRESH_GRACE_PERIOD,
    SESSION_LIFETIME,
    RefreshToken,
    RotationResult,
    Session,
)
from markethall.users.domain.user import User, UserIdentity, derive_username, to_email_lookup_key

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


def test_token_of_a_generation_depends_on_family_and_key() -> None:
    token, other_family = RefreshToken.generate(), RefreshToken.generate()

    first = token.of_generation(1, digest)

    assert first == token.of_generation(1, digest) == RefreshToken.parse(first.encoded)
    assert first == first.of_generation(1, digest)
    assert first.family == token.family
    secrets = {
        token.secret,
        first.secret,
        token.of_generation(2, digest).secret,
        other_family.of_generation(1, digest).secret,
        token.of_generation(1, lambda text: digest(f"other key {text}")).secret,
    }
    assert len(secrets) == 5


def exchange(signed_in: Session, presented: RefreshToken, now: datetime = NOW) -> RefreshToken:
    """Exchange the token, and return the current token of the session."""
    assert signed_in.rotate(presented, digest, now) is RotationResult.ROTATED
    return signed_in.current_token(presented, digest)


def test_rotation_replaces_token() -> None:
    first = RefreshToken.generate()
    signed_in = session(first)

    fresh = exchange(signed_in, first)

    assert fresh == first.of_generation(1, digest)
    assert signed_in.token_hash == fresh.token_hash
    assert signed_in.exchanged == ((first.token_hash, NOW),)
    assert signed_in.family_hash == fresh.family_hash


@pytest.mark.parametrize(
    ("later", "trade"),
    [
        (REFRESH_GRACE_PERIOD, RotationResult.ROTATED),
        (REFRESH_GRACE_PERIOD + timedelta(microseconds=1), RotationResult.REUSED),
    ],
)
def test_exchanged_token_is_valid_during_grace_period_only(
    later: timedelta, trade: RotationResult
) -> None:
    first = RefreshToken.generate()
    signed_in = session(first)
    exchange(signed_in, first)

    assert signed_in.rotate(first, digest, NOW + later) is trade
    assert (signed_in.revoked_at is not None) is (trade is RotationResult.REUSED)


def test_all_tokens_exchanged_during_the_grace_period_get_the_current_one() -> None:
    tokens = [RefreshToken.generate()]
    signed_in = session(tokens[0])
    for seconds in range(5):
        tokens.append(exchange(signed_in, tokens[-1], NOW + timedelta(seconds=seconds)))
    current, now = tokens.pop(), NOW + timedelta(seconds=9)

    assert {exchange(signed_in, token, now) for token in tokens} == {current}
    assert signed_in.revoked_at is None


def test_each_token_has_its_own_grace_period() -> None:
    """An exchange of a later token does not extend the grace period of an earlier token."""
    first = RefreshToken.generate()
    signed_in = session(first)
    second = exchange(signed_in, first)
    third = exchange(signed_in, second, NOW + timedelta(seconds=6))
    later = NOW + timedelta(seconds=12)

    assert exchange(signed_in, second, later) == third
    assert signed_in.rotate(first, digest, later) is RotationResult.REUSED
    assert signed_in.rotate(third, digest, later) is RotationResult.REJECTED


def test_number_of_exchanged_tokens_is_bounded() -> None:
    token = first = RefreshToken.generate()
    signed_in = session(first)
    for _ in range(MAX_EXCHANGED_TOKENS + 1):
        token = exchange(signed_in, token)

    assert len(signed_in.exchanged) == MAX_EXCHANGED_TOKENS
    assert signed_in.rotate(first, digest, NOW) is RotationResult.REUSED


def test_changed_signing_key_ends_no_session() -> None:
    first = RefreshToken.generate()
    signed_in = session(first)
    second = exchange(signed_in, first)

    def changed(text: str) -> bytes:
        return digest(f"other key {text}")

    assert signed_in.rotate(first, changed, NOW) is RotationResult.REJECTED
    assert signed_in.rotate(second, changed, NOW) is RotationResult.ROTATED


def test_forged_secret_revokes_session() -> None:
    token = RefreshToken.generate()
    signed_in = session(token)

    trade = signed_in.rotate(replace(token, secret=bytes(32)), digest, NOW)

    assert trade is RotationResult.REUSED
    assert signed_in.rotate(token, digest, NOW) is RotationResult.REJECTED


def test_session_expires() -> None:
    token = RefreshToken.generate()
    signed_in = session(token)

    assert signed_in.expires_at == NOW + SESSION_LIFETIME
    assert signed_in.rotate(token, digest, signed_in.expires_at) is RotationResult.REJECTED


@given(st.lists(st.integers(0, 5), max_size=12))
def test_at_most_one_token_is_current(order: list[int]) -> None:
    """Exchange current and old tokens in any order, each time after the grace period."""
    tokens = [RefreshToken.generate()]
    signed_in = session(tokens[0])
    now = NOW

    for age in order:
        now += 2 * REFRESH_GRACE_PERIOD
        presented = tokens[max(0, len(tokens) - 1 - age)]
        current = presented is tokens[-1]
        alive = signed_in.revoked_at is None
        done = signed_in.rotate(presented, digest, now) is RotationResult.ROTATED
        assert done == (current and alive)
        if done:
            tokens.append(signed_in.current_token(presented, digest))
