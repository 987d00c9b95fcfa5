"""Start a Ray head without what nobody here uses: python -m holdtrue.stack._head start --head."""

import sys

# Groups of commands that Ray does without; to import them takes two thirds of the time until it
# starts.
_LEFT_OUT = ("ray.serve.scripts", "ray.util.state.state_cli", "ray.dashboard.modules.job.cli")


def main() -> None:
    """Run a command of Ray's own, as `ray` does, but start no server for clients of `ray://`."""
    sys.modules.update(dict.fromkeys(_LEFT_OUT))  # type: ignore[arg-type]  # None: not there
    from ray.scripts import scripts

    # It is started wherever it can be, takes a second of the processor, and is one more port.
    vars(scripts)["get_ray_client_dependency_error"] = _not_wanted
    scripts.main()  # type: ignore[no-untyped-call]


def _not_wanted() -> ImportError:
    return ImportError("not wanted")


if __name__ == "__main__":
    main()
