"""Fail when a test was skipped for a reason that is not allowed, or when none ran.

Usage: check_skips.py TESTS.XML ALLOWED, the second with one regular expression a line.
"""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree


def main(report: Path, allowed: Path) -> int:
    lines = allowed.read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = [
        (f"{case.get('classname')}.{case.get('name')}", skip.get("message", ""))
        for case in cases
        for skip in case.iter("skipped")
    ]
    refused = 0
    for test, reason in skipped:
        may_skip = any(re.search(pattern, reason) for pattern in patterns)
        refused += not may_skip
        verdict = "skipped" if may_skip else "skipped, which is not allowed"
        sys.stdout.write(f"{verdict}: {test}: {reason}\n")
    if len(cases) == len(skipped):
        sys.stdout.write("no test ran\n")
        return 1
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
