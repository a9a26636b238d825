"""Writing to disk so that nothing is lost: old or new as a whole, and never in place of something else."""

from fewshot_ad.storage.files import rename_to_free, replacing, write_atomically
from fewshot_ad.storage.folders import replace_folder
from fewshot_ad.storage.locks import lock
from fewshot_ad.storage.outputs import check_folder, check_name, check_output, write_failure
from fewshot_ad.storage.temporary import sweep, temporary_folder

__all__ = [
    "check_folder",
    "check_name",
    "check_output",
    "lock",
    "rename_to_free",
    "replace_folder",
    "replacing",
    "sweep",
    "temporary_folder",
    "write_atomically",
    "write_failure",
]
