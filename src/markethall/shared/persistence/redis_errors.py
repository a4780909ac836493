"""The errors of Redis, without an import of redis-py."""


class RedisUnavailable(Exception):
    """Redis has rejected a command, or has not answered in time.

    Callers handle this error, so that an API client never gets it.
    """


class ErrorReply(Exception):
    """Redis has answered a command with an error."""


class ScriptNotCached(ErrorReply):
    """Redis does not know the script of an EVALSHA."""
