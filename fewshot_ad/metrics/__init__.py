"""Metrics of image scores, of decisions and of anomaly maps; numpy and OpenCV only."""

from fewshot_ad.metrics.agreement import decision_flips, relative_difference
from fewshot_ad.metrics.distributions import population_stability_index
from fewshot_ad.metrics.pixel import PixelFigures, PixelMetrics, bootstrap_au_pro
from fewshot_ad.metrics.ranking import (
    AtThreshold,
    F1Max,
    Interval,
    at_threshold,
    aupr,
    auroc,
    bootstrap,
    escape_rate,
    f1_max,
    false_reject_rate,
    forgetting,
    forgetting_by_task,
    iou,
    mcc_max,
)
from fewshot_ad.metrics.rates import (
    FalseRejectLaw,
    Rate,
    binomial_interval,
    conformal_rank,
    conformal_threshold,
    false_reject_law,
    needed_for,
)
from fewshot_ad.metrics.region_overlap import SaturatedRegion, au_pro, au_spro, pro, spro
from fewshot_ad.metrics.thresholds import LabeledThreshold, threshold_of_labeled

__all__ = [
    "AtThreshold",
    "F1Max",
    "FalseRejectLaw",
    "Interval",
    "LabeledThreshold",
    "PixelFigures",
    "PixelMetrics",
    "Rate",
    "SaturatedRegion",
    "at_threshold",
    "au_pro",
    "au_spro",
    "aupr",
    "auroc",
    "binomial_interval",
    "bootstrap",
    "bootstrap_au_pro",
    "conformal_rank",
    "conformal_threshold",
    "decision_flips",
    "escape_rate",
    "f1_max",
    "false_reject_law",
    "false_reject_rate",
    "forgetting",
    "forgetting_by_task",
    "iou",
    "mcc_max",
    "needed_for",
    "population_stability_index",
    "pro",
    "relative_difference",
    "spro",
    "threshold_of_labeled",
]
