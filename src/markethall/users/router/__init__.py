from fastapi import APIRouter

from markethall.users.router import accounts, tokens, user_management

router = APIRouter()
for module in (accounts, tokens, user_management):
    router.routes.extend(module.router.routes)
