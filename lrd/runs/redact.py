"""Keeps secrets out of what is kept: the values of environment variables whose names say that they hold one."""

import json
import os
import re

NAMES = re.compile(r".*_TOKEN|.*_KEY|.*PASSWORD.*|.*SECRET.*", re.IGNORECASE | re.DOTALL)
SHORTEST = 6  # characters; a shorter value stands in ordinary text by chance


def secrets() -> dict[str, str]:
    """Value → variable, the longest first. A value of several lines (a private key) counts line by line."""
    lines = {
        line: name
        for name, value in os.environ.items()
        if NAMES.fullmatch(name)
        for line in map(str.strip, value.splitlines())
        if len(line) >= SHORTEST
    }
    return dict(sorted(lines.items(), key=lambda item: -len(item[0])))


def redact(text: str) -> str:
    """The text with each secret replaced by `<its variable>`, as it stands and as JSON writes it."""
    for value, name in secrets().items():
        for form in {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}:
            text = text.replace(form, f"<{name}>")
    return text
