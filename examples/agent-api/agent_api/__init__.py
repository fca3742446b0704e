"""A small LLM agent as a service: what the pipeline in this repository ships."""
