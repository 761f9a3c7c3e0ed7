"""Concept cards by calibration: an LLM drafts them, the multimodal model validates them on images, a human may decide.

    find -> draft -> check the form -> compare with the model's reading -> round-trip check -> validation -> card file
      ^                                                                                                        |
      +-------------------------- next round, while cards change, up to --rounds ------------------------------+

Every response is kept as evidence beside the card file, and the card file is written after every label, so that an
interrupted run continues. Source: concept alignment in TagLLM (Xie et al., arXiv 2602.20972).
"""

from tagllm_cli.pipeline.concepts.run import write_concepts
from tagllm_cli.pipeline.concepts.settings import ConceptSettings, Model
from tagllm_cli.pipeline.concepts.summary import ConceptSummary

__all__ = ["ConceptSettings", "ConceptSummary", "Model", "write_concepts"]
