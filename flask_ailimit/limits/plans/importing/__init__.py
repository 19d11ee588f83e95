"""Reads the limits of LiteLLM, OpenAI and Anthropic, and writes them as a plan file."""
