"""What to say of an error that another library or Python raised: short of memory or files, broken, or unforeseen."""

from __future__ import annotations

import errno
import re

from fewshot_ad.errors import FewshotADError, sentence

# As Linux, Python, OpenCV, OpenVINO, FAISS and torch say it. OpenVINO's reader of ONNX is a library that it leaves out
# without a word where it cannot be loaded; threads are memory, too.
_MEMORY = re.compile(
    r"bad_alloc|failed to map segment|can(no|')t allocate memory|unable to allocate|failed to allocate|CUDA out of"
    r" memory|resource temporarily unavailable|can't start new thread|Available frontends: (?!.*\bonnx\b)",
    re.IGNORECASE,
)
_FILES = re.compile("too many open files", re.IGNORECASE)


def explanation(error: BaseException) -> str:
    """One message: what is short or broken, and what to do; the message of an error of this package is its own.

    An error of this package that only passes on that memory or files are short says what helps against that.
    """
    text = str(error)
    if _MEMORY.search(text) or isinstance(error, MemoryError) or _number(error) == errno.ENOMEM:
        return (
            f"expected enough memory for this command, got too little ({_line(error, _MEMORY)}). Close other programs, "
            "or raise the limit of this process (ulimit -v) or container; fewer --threads and smaller images need "
            "less. If there is enough, `fewshot-ad doctor` says what else is wrong."
        )
    if "ulimit -n" not in text and (_FILES.search(text) or _number(error) in (errno.EMFILE, errno.ENFILE)):
        return (
            f"expected to open one more file, got too many that are open ({_line(error, _FILES)}). Close some, or "
            "raise the limit (ulimit -n)."
        )
    if isinstance(error, (FewshotADError, ValueError)):
        return text
    if isinstance(error, ImportError):
        return (
            f"expected an installation that is whole, got a module that cannot be imported ({_line(error)}). Reinstall "
            "it: pip install --force-reinstall fewshot-ad. `fewshot-ad doctor` says what is broken."
        )
    return f"{type(error).__name__}: {sentence(error)} Set FEWSHOT_AD_DEBUG=1 to see where."


def _number(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _line(error: BaseException, pattern: re.Pattern[str] = re.compile("")) -> str:
    """The line of a long message that says it, or the kind of an error without any."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in lines if pattern.search(line)), lines[0] if lines else "")
    return found.rstrip(". ") or type(error).__name__
