"""What stands beside the conveyor: the page of what was inspected."""

from fewshot_ad.line.report import MAX_PICTURES, Report, check_report

__all__ = ["MAX_PICTURES", "Report", "check_report"]
