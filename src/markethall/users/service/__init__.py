from markethall.users.service.accounts import AccountService as AccountService
from markethall.users.service.guest_claims import GuestClaims as GuestClaims
from markethall.users.service.guests import GuestService as GuestService
from markethall.users.service.internal import InternalUserService as InternalUserService
from markethall.users.service.jobs import SessionPurgeJob as SessionPurgeJob
from markethall.users.service.password_check import PasswordCheck as PasswordCheck
from markethall.users.service.sessions import SessionService as SessionService
from markethall.users.service.token_pairs import TokenPairs as TokenPairs
