"""Every lifecycle step as a Prefect task."""

from tasks._log import tell_in_sentences

tell_in_sentences()
