#!/usr/bin/env python3
"""Breaks each component once and sees that its test notices.

    tools/mutants.py [--build build] [--only WORDS]... [--list]

tests/mutants.toml says what is broken, and which tests have to fail with it. All of these must pass before anything is broken. Then one
mutant after the other is written into its source, built and tried, and the source put back, whatever happens in between; a source that
differs from the last commit is left alone, and so is everything else. --only takes mutants whose names contain the WORDS, any of them if
it is given several times. Ends with a table, and with status 1 unless every mutant was noticed. Needs python3, git and ninja.
"""
import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TEST_SECONDS = 900
PASSED = re.compile(r"^\[  PASSED  \] [1-9]\d* tests?\.", re.M)  # skipped ones do not count
VERDICTS = {0: "SURVIVED", 1: "killed", None: "does not end"}  # by a test's status; another is that of a crash


@dataclass
class Mutant:
    name: str
    file: str
    old: str
    new: str
    program: str
    filter: str  # gtest's

    def mutated(self, text):
        if text.count(self.old) != 1:
            sys.exit(f"{self.name}: its `old` stands {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


def read_mutants(words):
    mutants = [Mutant(**entry) for entry in tomllib.loads((ROOT / "tests/mutants.toml").read_text())["mutant"]]
    chosen = [mutant for mutant in mutants if not words or any(word in mutant.name for word in words)]
    for mutant in chosen:
        mutant.mutated((ROOT / mutant.file).read_text())
    # Neighbours are compiled together, so that what was compiled with one file put back is cached for the next.
    return sorted(chosen, key=lambda mutant: (mutant.program, mutant.file)) or sys.exit(f"no mutant has {' or '.join(words)} in its name")


def require_committed(files):
    changed = subprocess.run(["git", "status", "--porcelain", "--", *files], cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True).stdout
    if changed:
        sys.exit(f"to be broken and put back, these must be as in the last commit:\n{changed}".rstrip())


def stop(number, _):
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def run(command, seconds=None, **options):
    """(status, output) of a command; the status is None where it took longer. Signals are let in here alone, so that none falls between
    changing a source and putting it back; what they find running ends with this."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    process = subprocess.Popen(command, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True, **options)
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None, ""
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def compile_programs(build, mutants):
    return run(["ninja", "-C", str(build), *sorted({mutant.program for mutant in mutants})])


def run_tests(build, program, names):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GTEST_")} | {"OMP_WAIT_POLICY": "passive"}
    return run([str(build / "tests" / program), f"--gtest_filter={names}"], TEST_SECONDS, cwd=build, env=environment)


def require_passing(build, mutants):
    status, output = compile_programs(build, mutants)
    if status != 0:
        sys.exit(f"does not compile as it is:\n{output[-3000:]}")
    for program, name in sorted({(mutant.program, name) for mutant in mutants for name in mutant.filter.split(":")}):
        status, output = run_tests(build, program, name)
        if status != 0 or not PASSED.search(output):
            sys.exit(f"{program} --gtest_filter={name} does not pass as it is, or there is no such test:\n{output[-3000:]}")


def try_out(build, mutant):
    path = ROOT / mutant.file
    text = path.read_bytes()
    try:
        path.write_bytes(mutant.mutated(text.decode()).encode())
        status, output = compile_programs(build, [mutant])
        verdict = "does not compile"
        if status == 0:
            status, output = run_tests(build, mutant.program, mutant.filter)
            verdict = VERDICTS.get(status, "crashes")
    finally:
        path.write_bytes(text)  # with a new time, or what was made of the mutant would pass for up to date
    if verdict != "killed":
        print(output[-3000:], file=sys.stderr)
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(ROOT / "build"), help="a folder that cmake has configured for ninja")
    parser.add_argument("--only", action="append", default=[], metavar="WORDS", help="mutants whose names contain this")
    parser.add_argument("--list", action="store_true", help="name the mutants and their tests, and break nothing")
    options = parser.parse_args()
    mutants, build = read_mutants(options.only), Path(options.build).resolve()
    if options.list:
        print("\n".join(f"{mutant.name}\n    {mutant.file}: {mutant.program} --gtest_filter={mutant.filter}" for mutant in mutants))
        return 0
    require_committed(sorted({mutant.file for mutant in mutants}))
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    require_passing(build, mutants)
    table = []
    for mutant in mutants:
        begun = time.monotonic()
        verdict = try_out(build, mutant)
        table.append((verdict, f"{verdict:<16} {time.monotonic() - begun:5.0f} s  {mutant.name}"))
        print(f"{len(table)}/{len(mutants)} {table[-1][1]}", file=sys.stderr, flush=True)
    compile_programs(build, mutants)  # of the sources as they are
    killed = sum(verdict == "killed" for verdict, _ in table)
    print("\n".join([*(row for _, row in table), f"{killed} of {len(mutants)} mutants were killed"]))
    return int(killed < len(mutants))


if __name__ == "__main__":
    sys.exit(main())
