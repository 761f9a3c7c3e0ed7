"""Tests of tagllm."""
