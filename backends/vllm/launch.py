"""Starts vLLM's command line, which listens on a unix socket itself.

    launch.py serve MODEL --uds PATH …

Its processes import this file once more, under another name.
"""

import sys

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    sys.argv[0] = "vllm"
    sys.exit(main())
