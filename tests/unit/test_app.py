"""Declaring agents: what cannot work is refused where it is declared."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import App, Context, InvalidDefinition


async def agent(ctx: Context) -> None: ...


@pytest.mark.parametrize("retry", [3, "three", True])
def test_a_retry_that_is_no_retry_is_refused_with_what_to_write(retry: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"agent 'agent': retry=.* is not a Retry") as refused:
        App("app").agent(retry=retry)(agent)
    assert refused.value.code == "definition.retry"
    assert refused.value.hint is not None
