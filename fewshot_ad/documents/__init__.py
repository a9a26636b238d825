"""YAML and JSON that users give: read within bounds, checked field by field, with errors that name file and line."""

from fewshot_ad.documents.fields import Entry, Problem, check, check_dataclass, nearest, raise_problems, words
from fewshot_ad.documents.json_text import parse_json
from fewshot_ad.documents.reading import MAX_BYTES, MAX_DEPTH, Document, read_text
from fewshot_ad.documents.yaml_text import parse_yaml, read_yaml

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "Document",
    "Entry",
    "Problem",
    "check",
    "check_dataclass",
    "nearest",
    "parse_json",
    "parse_yaml",
    "raise_problems",
    "read_text",
    "read_yaml",
    "words",
]
