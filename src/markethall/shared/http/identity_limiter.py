"""A rate limit for identities that only the route knows, such as an e-mail address in the body."""

from markethall.shared.http.rate_limits import RateLimit, build_hit_counter
from markethall.shared.kernel.errors import TooManyRequests
from markethall.shared.persistence.redis_client import RedisClient


class IdentityLimiter:
    """Applies one limit, in addition to those of the gateway."""

    def __init__(self, limit: RateLimit, mode: str, redis: RedisClient, secret: bytes) -> None:
        """`mode`: see RateLimiter. Counts in Redis if Redis is configured."""
        self._limit = limit
        self._counter = None if mode == "off" else build_hit_counter(redis, secret)

    async def check(self, identity: str) -> None:
        """Count a hit of this identity. Raises TooManyRequests."""
        if self._counter is None:
            return
        result = await self._counter.hit(self._limit, identity)
        if not result.allowed:
            raise TooManyRequests(policy=self._limit.name, retry_after=result.retry_after)
