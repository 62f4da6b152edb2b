#!/usr/bin/env python3
"""Prints those of the paths on standard input that a .dockerignore leaves in: the last pattern that fits a path, or a folder
above it, decides. Patterns are names of files and folders, and `*` alone.

usage: context.py DOCKERIGNORE < paths
"""

import pathlib
import sys


def fits(pattern, path):
    return pattern == "*" or path == pattern or path.startswith(pattern + "/")


def main():
    patterns = [line for line in pathlib.Path(sys.argv[1]).read_text().splitlines() if line]
    for path in sys.stdin.read().splitlines():
        left_out = False
        for pattern in patterns:
            if fits(pattern.removeprefix("!"), path):
                left_out = not pattern.startswith("!")
        if not left_out:
            print(path)


if __name__ == "__main__":
    main()
