"""One reader under atheris: `guided.py NAME SECONDS`; libFuzzer's words are on standard error."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["soundpost.device", "tomllib", "tomllib._parser", "json"]):
    from targets import targets


def main() -> None:
    """Until the time is over, or something breaks."""
    name, seconds = sys.argv[1:]
    target = next(one for one in targets() if one.name == name)
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds):
            Path(corpus, str(number)).write_bytes(seed)
        options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048"]
        options += ["-max_len=20000", "-print_final_stats=1", f"-artifact_prefix={corpus}/"]
        atheris.Setup([sys.argv[0], *options, corpus], lambda data: target.run(data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
