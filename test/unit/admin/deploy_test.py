"""Holds metrics, docs/metrics.md, the dashboard and the alerts to each other, with promtool as the judge.

    deploy_test.py ROOT PRINT_METRICS
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
PRINT_METRICS = sys.argv.pop(1)
PROMETHEUS = ROOT / "deploy/prometheus"
# What the library that reads the format makes of a histogram or a summary.
SUFFIXES = {"histogram": ["_bucket", "_sum", "_count"], "summary": ["_sum", "_count"]}
# A gauge whose name was there before the rules for names.
COMPLAINT = 'memkv_blocks_total non-counter metrics should not have "_total" suffix'


def promtool(*arguments, given=None):
    try:
        return subprocess.run(["promtool", *map(str, arguments)], input=given, capture_output=True, text=True,
                              timeout=60, check=False)
    except FileNotFoundError:
        raise AssertionError("promtool is missing: run scripts/install-dependencies") from None


def documented():
    """Series that docs/metrics.md promises, with their labels."""
    found = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        row = re.match(r"\| `((?:memkv|process)_\w+)` \| (\w+) \|([^|]*)\|", line)
        if row is None:
            continue
        name, kind, labels = row.groups()
        labels = set(re.findall(r"`(\w+)`", labels))
        if kind == "histogram":
            labels.add("le")
        for suffix in SUFFIXES.get(kind, [""]):
            found[name + suffix] = labels
    return found


def used(expression):
    """Series that an expression names, each with the labels it selects by."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    return [(name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector or "")))
            for name, selector in re.findall(r"\b((?:memkv|process)_\w+)(?:\{([^}]*)\})?", text)]


class Deploy(unittest.TestCase):
    def test_systemd_knows_every_line_of_the_unit(self):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd-analyze is not there")
        text = (ROOT / "deploy/systemd/memkv.service").read_text()
        self.assertEqual(text.count("ExecStart=/usr/bin/memkv start "), 1)
        with tempfile.TemporaryDirectory() as folder:
            for wrong, unit in ((False, text), (True, text.replace("RestartSec=5", "RestartSecond=5"))):
                path = pathlib.Path(folder, "memkv.service")
                path.write_text(unit.replace("/usr/bin/memkv", "/bin/true"))
                made = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True,
                                      text=True, timeout=60, check=False)
                # Other units of this machine may have complaints of their own.
                said = [line for line in made.stderr.splitlines() if "memkv.service" in line]
                self.assertEqual(bool(said), wrong, made.stderr)

    def check_names(self, expression, where):
        for name, labels in used(expression):
            self.assertIn(name, documented(), where)
            strange = labels - documented()[name] - {"instance", "job"}
            self.assertFalse(strange, f"{where}: {name} has no such labels")

    def test_promtool_has_one_complaint_about_the_metrics_the_known_one(self):
        text = subprocess.run([PRINT_METRICS], capture_output=True, text=True, timeout=30, check=True).stdout
        result = promtool("check", "metrics", given=text)
        self.assertEqual((result.stdout + result.stderr).strip(), COMPLAINT)

    def test_promtool_would_complain_about_text_that_is_none(self):
        self.assertNotEqual(promtool("check", "metrics", given="memkv_a{ 1\n").returncode, 0)

    def test_promtool_accepts_the_rules_and_the_example(self):
        for arguments in [("check", "rules", PROMETHEUS / "alerts.yaml"),
                          ("check", "config", PROMETHEUS / "prometheus.yaml"),
                          ("test", "rules", PROMETHEUS / "alerts-test.yaml")]:
            result = promtool(*arguments)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_every_alert_is_tested_for_firing(self):
        alerts = re.findall(r"- alert: (\w+)", (PROMETHEUS / "alerts.yaml").read_text())
        self.assertEqual(len(alerts), len(set(alerts)))
        tested = re.findall(r'alertname="(\w+)"', (PROMETHEUS / "alerts-test.yaml").read_text())
        self.assertEqual(sorted(alerts), sorted(tested))

    def test_alerts_and_their_tests_use_metrics_that_are_documented(self):
        for name in ["alerts.yaml", "alerts-test.yaml"]:
            text = "\n".join(line for line in (PROMETHEUS / name).read_text().splitlines()
                             if not line.lstrip().startswith("#"))
            series = used(text)
            self.assertGreater(len(series), 40)
            self.check_names(text, name)

    def test_the_dashboard_uses_metrics_that_are_documented(self):
        text = (ROOT / "deploy/grafana/memkv.json").read_text()
        dashboard = json.loads(text)
        variables = {each["name"] for each in dashboard["templating"]["list"]}
        self.assertIn("datasource", variables)
        ids = [panel["id"] for panel in dashboard["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        expressions = 0
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                expressions += 1
                self.check_names(target["expr"], panel["title"])
                self.assertEqual(target["datasource"]["uid"], "${datasource}")
                for variable in re.findall(r"\$(\w+)", target["expr"] + panel["title"]):
                    self.assertIn(variable, variables | {"__rate_interval"})
        for each in dashboard["templating"]["list"]:
            if each["type"] == "query":
                self.check_names(each["query"]["query"], each["name"])
        self.assertGreater(expressions, 50)

    def test_the_expressions_of_the_dashboard_are_valid(self):
        dashboard = json.loads((ROOT / "deploy/grafana/memkv.json").read_text())
        rules = [{"record": f"memkv:panel{panel['id']}:{target['refId']}",
                  "expr": target["expr"].replace("$__rate_interval", "1m").replace("$", "")}
                 for panel in dashboard["panels"] for target in panel.get("targets", [])]
        text = json.dumps({"groups": [{"name": "dashboard", "rules": rules}]})
        result = promtool("check", "rules", "/dev/stdin", given=text)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn(f"{len(rules)} rules found", result.stdout)

    def test_panels_do_not_overlap(self):
        taken = set()
        for panel in json.loads((ROOT / "deploy/grafana/memkv.json").read_text())["panels"]:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24)
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    self.assertNotIn((x, y), taken, panel["title"])
                    taken.add((x, y))


if __name__ == "__main__":
    unittest.main(verbosity=2)
