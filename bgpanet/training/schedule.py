"""The learning rate as one closed-form function of the step."""

import math


def learning_rate(step: int, total_steps: int, warmup_steps: int, peak: float, minimum: float) -> float:
    """The rate of optimizer step `step` (from 0) of `total_steps`.

    With W warm-up steps: peak * (step + 1) / W for step < W; then
    minimum + (peak - minimum) * (1 + cos(pi * u)) / 2 with u = (step - W + 1) / (T - W), which is exactly `minimum` on
    the last step. Needs no state, so a resumed run goes on at its rate.

    Raises:
        ValueError: unless 0 <= step < total_steps and 0 <= warmup_steps < total_steps.
    """
    if not (0 <= step < total_steps and 0 <= warmup_steps < total_steps):
        raise ValueError(f"step {step} of {total_steps} with {warmup_steps} warm-up steps")
    if step < warmup_steps:
        return peak * ((step + 1) / warmup_steps)
    if step == total_steps - 1:
        return minimum
    progress = (step - warmup_steps + 1) / (total_steps - warmup_steps)
    return minimum + (peak - minimum) * (1 + math.cos(math.pi * progress)) / 2
