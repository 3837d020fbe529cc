"""A first program: three steps, of which the second takes its time, so that one can kill it."""

import time

from stepwell import App, Context

app = App("hello")


def greet(name: str) -> str:
    return f"Hello, {name}!"


def decorate(text: str) -> str:
    time.sleep(4)  # slow work: kill -9 the process now
    return f"*** {text} ***"


def sign(text: str) -> str:
    return f"{text}\n    Stepwell"


@app.agent
async def hello(ctx: Context, name: str) -> str:
    """Greet somebody, one remembered step at a time."""
    greeting = await ctx.step(greet, name)  # done once, then remembered
    card = await ctx.step(decorate, greeting)
    return await ctx.step(sign, card)
