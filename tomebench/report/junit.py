"""Findings of the gate as a JUnit XML file for CI systems: one suite per tier, one case per finding."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from xml.etree import ElementTree

from tomebench.gate.records import TIERS
from tomebench.gate.verdict import Finding, Verdict
from tomebench.report.escape import clean
from tomebench.report.verdicts import last_line


def junit_xml(findings: Sequence[Finding], *, subject: str, now: datetime.datetime, trouble: str | None = None) -> str:
    """Write findings as JUnit XML (the strict variant of the widely used schema).

    ``worse`` is a failure; ``inconclusive``, ``incomparable`` and ``missing`` are errors, which CI systems show as red
    too; ``same`` and ``better`` pass. A gate that compared nothing is an error of its own, in the suite ``gate``: a
    file without any case would be shown as green.

    Args:
        findings: of the gate.
        subject: name of what was checked.
        now: time of the check.
        trouble: why nothing could be compared.
    """
    root = ElementTree.Element("testsuites")
    for tier in (t for t in TIERS if any(f.tier == t for f in findings)):
        own = [finding for finding in findings if finding.tier == tier]
        failures = sum(f.verdict == "worse" for f in own)
        errors = sum(f.verdict in ("inconclusive", "incomparable", "missing") for f in own)
        with _suite(root, tier, now, tests=len(own), failures=failures, errors=errors) as suite:
            for finding in own:
                name = " ".join(filter(None, (finding.cell, finding.quantity)))
                _case(suite, tier, name, subject, finding.verdict, finding.detail)
    if not findings:
        with _suite(root, "gate", now, tests=1, failures=0, errors=1) as suite:
            _case(suite, "gate", "comparison", subject, "missing", trouble or last_line(findings))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


@contextmanager
def _suite(
    root: ElementTree.Element, name: str, now: datetime.datetime, *, tests: int, failures: int, errors: int
) -> Iterator[ElementTree.Element]:
    """Add a suite; its cases are added within the context, as the schema has them between other elements."""
    counts = {"tests": tests, "failures": failures, "errors": errors, "time": 0}
    attributes = {"id": str(len(root)), "package": "tomebench", "name": name, "hostname": "localhost"}
    attributes |= {"timestamp": now.strftime("%Y-%m-%dT%H:%M:%S"), **{key: str(n) for key, n in counts.items()}}
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    ElementTree.SubElement(suite, "properties")
    yield suite
    ElementTree.SubElement(suite, "system-out")
    ElementTree.SubElement(suite, "system-err")


def _case(suite: ElementTree.Element, room: str, name: str, subject: str, verdict: Verdict, detail: str) -> None:
    attributes = {"name": clean(name), "classname": clean(f"tomebench.{room}.{subject}"), "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    if verdict in ("same", "better"):
        return
    kind = "failure" if verdict == "worse" else "error"
    ElementTree.SubElement(case, kind, {"message": clean(detail), "type": verdict}).text = clean(detail)
