"""`python -m tagllm_cli` is `tagllm`."""

from tagllm_cli.cli.app import main

main()
