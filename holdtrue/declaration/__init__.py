"""The YAML file as frozen, typed models."""
