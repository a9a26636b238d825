"""`python -m fewshot_ad` is `fewshot-ad`; torchrun starts modules this way."""

from fewshot_ad.cli import main

main()
