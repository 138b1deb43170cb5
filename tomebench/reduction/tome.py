"""ToMe: bipartite soft matching on attention keys.

Source: Bolya et al., Token Merging: Your ViT But Faster, arXiv 2210.09461, section 3. Written from the formulas.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from tomebench.reduction.plan import MergePlan, identity_plan
from tomebench.reduction.registry import Context


@torch.no_grad()
def bipartite_soft_matching(metric: Tensor, r: int, prefix: int) -> MergePlan:
    """Match every second token to its most similar neighbour in the other half and merge the r closest pairs.

    Tokens 0, 2, 4, ... form set A and tokens 1, 3, 5, ... set B, counted with the prefix. Every A token proposes its
    most cosine-similar B token; the r best proposals are merged. Ties go to the lower index. The output keeps the
    prefix first and in order, then the rest of A, then B. Costs N²/4 · d multiply-accumulates per image.

    Args:
        metric: what similarity is measured on, [B, N, d]: the keys averaged over heads.
        r: tokens to remove, in [0, (N - prefix) // 2].
        prefix: leading tokens (class, distillation, registers) that never move and are never merged into.

    Raises:
        ValueError: r out of range.
    """
    batch, n, _ = metric.shape
    if not 0 <= r <= max(n - prefix, 0) // 2:
        raise ValueError(f"r={r} is outside [0, {max(n - prefix, 0) // 2}] for {n} tokens of which {prefix} are prefix")
    if r == 0:
        return identity_plan(batch, n, metric.device)
    device = metric.device
    # The prefix takes no part, and the halves keep the parity they have when it is counted.
    even = torch.arange(prefix + prefix % 2, n, 2, device=device)
    odd = torch.arange(prefix + 1 - prefix % 2, n, 2, device=device)

    # In fp32, under autocast too: half-precision scores pick another partner for one token in seven.
    kind = device.type
    with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
        unit = F.normalize(metric.float(), dim=-1)
        scores = unit[:, even] @ unit[:, odd].transpose(1, 2)
    best, partner = scores.max(dim=-1)
    order = best.argsort(dim=-1, descending=True, stable=True)
    moved, rest = order[:, :r], order[:, r:].sort(dim=-1).values

    lead = torch.arange(prefix, device=device).expand(batch, prefix)
    kept = torch.cat([lead, even[rest], odd.expand(batch, -1)], dim=1)
    into = partner.gather(1, moved) + (prefix + even.numel() - r)
    return MergePlan(kept, even[moved], into, n)


def tome(ctx: Context) -> MergePlan:
    """Plan one layer by bipartite soft matching with the paper's default options."""
    return bipartite_soft_matching(ctx.metric, ctx.r, ctx.prefix)
