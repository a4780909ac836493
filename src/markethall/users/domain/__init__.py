"""The rules of accounts, guests and sessions."""

from markethall.users.domain.login_failures import FREE_LOGIN_FAILURES as FREE_LOGIN_FAILURES
from markethall.users.domain.login_failures import (
    LOGIN_FAILURES_RETENTION as LOGIN_FAILURES_RETENTION,
)
from markethall.users.domain.login_failures import MAX_LOGIN_DELAY as MAX_LOGIN_DELAY
from markethall.users.domain.login_failures import MAX_UNKNOWN_ACCOUNTS as MAX_UNKNOWN_ACCOUNTS
from markethall.users.domain.login_failures import LoginFailures as LoginFailures
from markethall.users.domain.login_failures import login_delay as login_delay
from markethall.users.domain.session import MAX_EXCHANGED_TOKENS as MAX_EXCHANGED_TOKENS
from markethall.users.domain.session import REFRESH_GRACE_PERIOD as REFRESH_GRACE_PERIOD
from markethall.users.domain.session import SESSION_LIFETIME as SESSION_LIFETIME
from markethall.users.domain.session import Digest as Digest
from markethall.users.domain.session import ExchangedToken as ExchangedToken
from markethall.users.domain.session import RefreshToken as RefreshToken
from markethall.users.domain.session import RotationResult as RotationResult
from markethall.users.domain.session import Session as Session
from markethall.users.domain.user import MAX_FULL_NAME_LENGTH as MAX_FULL_NAME_LENGTH
from markethall.users.domain.user import MAX_TAG_LENGTH as MAX_TAG_LENGTH
from markethall.users.domain.user import MAX_TAGS as MAX_TAGS
from markethall.users.domain.user import USERNAME_PATTERN as USERNAME_PATTERN
from markethall.users.domain.user import Guest as Guest
from markethall.users.domain.user import User as User
from markethall.users.domain.user import UserIdentity as UserIdentity
from markethall.users.domain.user import check_password as check_password
from markethall.users.domain.user import derive_username as derive_username
from markethall.users.domain.user import parse_role as parse_role
from markethall.users.domain.user import to_email_lookup_key as to_email_lookup_key
from markethall.users.domain.user import to_login_key as to_login_key
