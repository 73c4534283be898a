"""P1 and P2: what the blocks cost over the plain backbone, and what bf16 gains."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.timing import Ratio, compare
from bgpanet.compute import choose_compute
from bgpanet.losses import DualTailedLoss
from bgpanet.models import build_model

SIZE = 224


def measure() -> Iterator[tuple[str, Ratio | str]]:
    """(goal, what was measured or why it could not be)."""
    compute = choose_compute("auto")
    compute.activate()
    device, precision = compute.device, compute.precision
    batch = 128 if device.type == "cuda" else 2
    yield "P1", compare(
        f"training step of bgpanet, {precision}, batch {batch}", _step("bgpanet", batch, precision == "bf16"),
        f"of swin_b, {precision}", _step("swin_b", batch, precision == "bf16"),
    )  # fmt: skip
    yield "P1 at inference", compare(
        f"forward of bgpanet, {precision}, batch {batch}", _forward("bgpanet", batch, precision == "bf16"),
        f"of swin_b, {precision}", _forward("swin_b", batch, precision == "bf16"),
    )  # fmt: skip
    if precision != "bf16":
        yield "P2", "this CPU has no bf16 instructions (avx512_bf16)"
        return
    for name, make in (("training step", _step), ("forward", _forward)):
        yield f"P2, {name}", compare(
            f"{name} of bgpanet, fp32, batch {batch}", make("bgpanet", batch, False),
            "in bf16", make("bgpanet", batch, True),
        )  # fmt: skip


def _step(name: str, batch: int, bf16: bool) -> Callable[[], object]:
    device = choose_compute("auto").device
    model = build_model(name, 7).to(device)
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=1e-4), DualTailedLoss(1000).to(device)
    images, labels = torch.randn(batch, 3, SIZE, SIZE, device=device), torch.arange(batch, device=device) % 7

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(images)
        value = loss(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        value.item()  # waits for a GPU

    return step


def _forward(name: str, batch: int, bf16: bool) -> Callable[[], object]:
    device = choose_compute("auto").device
    model: nn.Module = build_model(name, 7).to(device).eval()
    images = torch.randn(batch, 3, SIZE, SIZE, device=device)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            model(images).sum().item()

    return forward
