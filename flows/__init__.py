"""Plans as Prefect flows: for deployments, schedules, events, and `apply` beside a server."""
