"""Every lifecycle step as a Prefect task."""
