# SPDX-License-Identifier: Apache-2.0
"""`python -m vqcodec`: the command line."""

from vqcodec.cli import main

if __name__ == "__main__":
    main(prog_name="vqcodec")
