"""Test that each purpose has its own key, so that no signature is valid for two purposes."""

from collections import Counter
from pathlib import Path

import markethall
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import read_settings
from markethall.shared.kernel.key_derivation import KeyPurpose, derive_key
from markethall.shared.security.access_tokens import load_private_key

SOURCE = Path(markethall.__file__).parent
PURPOSES = {
    "cursor",
    "rate limit",
    "sandbox webhook",
    "refresh token",
    "login failure",
    "registration",
}


def test_every_derived_key_is_different(tmp_path: Path) -> None:
    secrets = load_or_create_secrets(
        read_settings(data_dir=tmp_path, redis_url="redis://redis", event_transport="dual")
    )
    private_keys = [
        load_private_key(pem).private_bytes_raw()
        for pem in (secrets.access_token_private_key, secrets.service_token_private_key)
    ]

    masters = [secrets.secret_key, *private_keys]
    keys = masters + [derive_key(secret, purpose) for secret in masters for purpose in KeyPurpose]

    assert {purpose.value for purpose in KeyPurpose} == PURPOSES
    assert len(set(keys)) == len(masters) * (1 + len(PURPOSES))
    assert {len(key) for key in keys if key not in masters} == {32}


def test_each_purpose_is_used_in_one_module() -> None:
    uses = Counter(
        purpose
        for path in SOURCE.rglob("*.py")
        if path.name != "key_derivation.py"
        for purpose in KeyPurpose
        if f"KeyPurpose.{purpose.name}" in path.read_text()
    )

    assert uses == dict.fromkeys(KeyPurpose, 1)
