"""What a model call may come to, set aside before it is made."""

from decimal import Decimal

from codetape.decider.commands import CallModel, Command
from codetape.domain.budget import Limit, Reservation
from codetape.domain.money import pico, picodollars
from codetape.domain.usage import Usage
from codetape.errors import BudgetSpent
from codetape.eventlog.session_state import SessionState
from codetape.runtime.effects import Effects
from codetape.runtime.pricing import plain


def reservation(
    command: Command, session: SessionState, effects: Effects, limits: tuple[Limit, ...], *, share: str = "1"
) -> Reservation | None:
    """Return what a call may come to, at most, at a ``share`` of its price; None for what needs no budget.

    Raises BudgetSpent where the session's time is over: that holds for builds and executions too.
    """
    config, spent = session.the_config, session.spent
    if config.max_seconds is not None and spent.ms >= config.max_seconds * 1000:
        raise BudgetSpent(
            f"The budget of the session, {config.max_seconds} s of work, is spent: {spent.ms / 1000:.1f} s."
        )
    if not isinstance(command, CallModel) or effects.model.free(command.request):
        return None
    own = Limit("session", config.max_tokens, pico(config.max_cost) if config.max_cost else None)
    binding = tuple(limit for limit in (own, *limits) if (limit.tokens, limit.cost) != (None, None))
    request = command.request
    most = Usage(input=request.reserved_input, output=request.max_output_tokens)
    rate = effects.prices.rate((request.model,), effects.model.billing, most, effects.clock.now())
    cost = picodollars(plain(rate.cost(most) * Decimal(share))) if rate else None
    return Reservation(most.total_input + most.total_output, cost, binding)
