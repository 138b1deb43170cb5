"""graph-cut: cut the graph of similar patches by its spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tomebench.reduction.choices import Bounds, Combine, HeadsChoice, Metric, metric_channels
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch

if TYPE_CHECKING:
    from torch import Tensor

    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class GraphCut(Method):
    """Normalised spectral cut: k-means on the eigenvectors of the graph of similar patches, into r fewer groups.

    The weight of an edge is max(cosine, 0), so W, with ones on its diagonal; D = diag(W1). Of I - D^-1/2 W D^-1/2 the
    eigenvectors with the smallest eigenvalues are taken, and their rows are divided by their length. They are as many
    as there are groups, k = T - r, or with the option ``eigenvectors`` so many at most (0: k). With k near T the last
    of them tell little about similarity: on the demo model the groups are worse than random ones, and those of 16 and
    64 eigenvectors better (``tomebench sweep --model digits_vit --data digits --limit 200 --budget none --r 0,8
    --method graph-cut,random-merge --option graph-cut.eigenvectors=0,16,64``). A merged token counts as one patch; the
    mean of a group is weighted by size, and attention counts sizes.

    Nobody published this for tokens, so what the sources leave open is decided here. K-means starts from the k patches
    that are least like any patch before them (their largest product with the row of an earlier patch is smallest, ties
    going to the lower index): where groups are well apart, from the first patch of each. A group keeps the patch that
    it started from, so that none is empty.

    Neither the signs of eigenvectors nor which basis of equal eigenvalues was found matter. Only where the last
    eigenvalue taken and the next nearly coincide can another machine cut in another place. It is compiled whole, but
    ``eigh`` waits for the device, which no CUDA graph can capture.
    """

    source = "Ng, Jordan and Weiss, On Spectral Clustering: Analysis and an Algorithm, NIPS 2001"
    cap = staticmethod(all_but_one_patch)

    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    combine: Combine = "weighted"
    iterations: Annotated[int, Bounds(1, 100)] = 5
    eigenvectors: Annotated[int, Bounds(0, 9999)] = 0

    def choose(self, ctx: Context) -> MergePlan:
        """Cut the graph of the patches; a group takes the place of the patch that it started from."""
        from tomebench.reduction.clusters import lloyd, plan_of_clusters
        from tomebench.reduction.metric import comparable, metric_of

        metric = comparable(metric_of(ctx, self.metric, self.heads)[:, ctx.prefix :], "cosine")
        groups = metric.shape[1] - ctx.r
        rows = spectral_rows(metric, self._width(groups))
        onto = lloyd(rows, _least_like_earlier(rows, groups), self.iterations)
        return plan_of_clusters(onto, ctx.r, ctx.prefix, self.combine)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the similarities, the eigenvectors, the first centres, and of distances and means in each iteration.

        Eigenvectors count 9/2 N³ MACs: the symmetric QR algorithm takes 9 N³ operations (Golub and Van Loan, Matrix
        Computations, section 8.3). A library may take fewer, and need far longer for them than for a product.
        """
        groups, width = n - r, self._width(n - r)
        clustering = n**2 * width + (2 * self.iterations + 1) * n * groups * width
        return float(n**2 * metric_channels(self.metric, self.heads, block) + 4.5 * n**3 + clustering)

    def _width(self, groups: int) -> int:
        """Eigenvectors that are taken."""
        return min(self.eigenvectors or groups, groups)


def spectral_rows(metric: Tensor, k: int) -> Tensor:
    """Rows of the k smallest eigenvectors of the normalised graph Laplacian, of length 1: [B, T, d] -> [B, T, k].

    Args:
        metric: rows of length 1, fp32 or wider.
        k: eigenvectors, from 1 to T.
    """
    import torch

    from tomebench.reduction.metric import comparable, similarity

    weight = similarity(metric, metric, "cosine").clamp_min(0).nan_to_num()  # eigh raises an error on NaN
    weight.diagonal(dim1=1, dim2=2).fill_(1)
    scale = weight.sum(dim=2).rsqrt()
    # The smallest eigenvalues of I - A are the largest of A, which come last. Only the lower triangle of A is read.
    vectors = torch.linalg.eigh(weight * scale.unsqueeze(1) * scale.unsqueeze(2)).eigenvectors
    return comparable(vectors[:, :, metric.shape[1] - k :], "cosine")


def _least_like_earlier(rows: Tensor, count: int) -> Tensor:
    """The ``count`` rows that are least like any row before them, int64 ascending: [B, T, d] -> [B, count]."""
    import torch

    from tomebench.reduction.metric import similarity

    later = torch.ones(rows.shape[1], rows.shape[1], dtype=torch.bool, device=rows.device).triu()
    likeness = similarity(rows, rows, "cosine").masked_fill(later, -torch.inf).amax(dim=2)
    return likeness.argsort(dim=1, stable=True)[:, :count].sort(dim=1).values
