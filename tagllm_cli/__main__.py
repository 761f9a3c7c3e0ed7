"""`python -m tagllm_cli` is `tagllm`."""

from tagllm_cli.cli import main

main()
