"""Plans as Prefect flows: for deployments, schedules and events, and wherever a Prefect API is known."""
