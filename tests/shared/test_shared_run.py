"""Shared runs: concurrent callers get the result of one run."""

import asyncio

import pytest

from markethall.shared.kernel.shared_run import SharedRun


class Work:
    """Counts its runs; each ends when `release` is set."""

    def __init__(self) -> None:
        self.run_count = 0
        self.release = asyncio.Event()
        self.error: Exception | None = None

    async def run(self) -> int:
        self.run_count += 1
        await self.release.wait()
        if self.error:
            raise self.error
        return self.run_count


async def test_concurrent_callers_share_a_run() -> None:
    work, shared = Work(), SharedRun[int]()

    callers = asyncio.gather(*(shared.get(work.run) for _ in range(3)))
    work.release.set()

    assert await callers == [1, 1, 1]
    assert await shared.get(work.run) == 2


async def test_result_is_reused_for_the_given_time() -> None:
    work, shared = Work(), SharedRun[int](reuse_seconds=3600)
    work.release.set()

    assert [await shared.get(work.run) for _ in range(2)] == [1, 1]


async def test_failed_run_is_not_reused() -> None:
    work, shared = Work(), SharedRun[int](reuse_seconds=3600)
    work.release.set()
    work.error = ValueError("first")

    with pytest.raises(ValueError, match="first"):
        await shared.get(work.run)
    work.error = None

    assert await shared.get(work.run) == 2


async def test_run_continues_when_its_first_caller_is_cancelled() -> None:
    work, shared = Work(), SharedRun[int]()
    first, second = (asyncio.create_task(shared.get(work.run)) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    work.release.set()

    assert await second == 1
    assert first.cancelled()
