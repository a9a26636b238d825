"""The station: a catalog, a journal, and a web application around them."""

from fewshot_ad.line.station.serving import ServingStation, check_settings
from fewshot_ad.line.station.station import Station, UnrecordedError

__all__ = ["ServingStation", "Station", "UnrecordedError", "check_settings"]
