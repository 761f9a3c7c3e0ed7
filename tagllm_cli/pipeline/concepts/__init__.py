"""Concept cards by calibration: an LLM drafts them, the multimodal model tries them on pictures, a person may decide.

    find -> draft -> validate -> compare with the model's reading -> blind naming -> try-out -> card file
      ^                                                                                            |
      +------------------- next round, while cards change, up to --rounds ------------------------+

Every answer is kept as evidence beside the card file, and the card file is written after every label, so an interrupted
run goes on where it was. Source: concept alignment in TagLLM (Xie et al., arXiv 2602.20972).
"""

from tagllm_cli.pipeline.concepts.run import write_concepts
from tagllm_cli.pipeline.concepts.settings import ConceptSettings, Model
from tagllm_cli.pipeline.concepts.summary import ConceptSummary

__all__ = ["ConceptSettings", "ConceptSummary", "Model", "write_concepts"]
