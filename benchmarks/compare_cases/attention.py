"""Where a rollout's time goes: the share of attention, from torch's profiler, in a rollout that is not timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

ATTENTION = (
    "aten::_scaled_dot_product_flash_attention_for_cpu",  # prompts
    "aten::_scaled_dot_product_attention_math",
    "aten::baddbmm",  # one query a row; its softmax does not count, because sampling has one too
    "aten::bmm",
)
COPIES = ("aten::cat", "aten::copy_", "aten::index", "aten::index_select", "aten::index_copy_", "aten::clone")


def attention_share(step: Callable[[], object]) -> dict[str, Any]:
    """Shares of the profiled CPU time, each operation by itself (so that nothing counts twice).

    Profiling slows small operations down more than large ones, so the shares are a guide, not a measurement.
    """
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    times = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    total = sum(times.values())
    top = sorted(times, key=lambda key: -times[key])[:8]
    return {
        "attention_share": sum(times.get(name, 0.0) for name in ATTENTION) / total,
        "copies_share": sum(times.get(name, 0.0) for name in COPIES) / total,
        "largest": {name: times[name] / total for name in top},
    }
