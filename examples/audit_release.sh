#!/usr/bin/env bash
# Auditors: is a data set fit to be released, and what changed since the release before?
#
#   examples/audit_release.sh ffpp/ reports/
#   examples/audit_release.sh ffpp-v2/ reports/ ffpp-v1/
#
# Writes report.html to read, report.json for machines and, with a second data set, changes.txt. Its exit code is that of
# the audit; where that is 0, that of the comparison: 1 if videos moved between the splits. So it can end a CI job.
set -euo pipefail

usage='usage: audit_release.sh DATA REPORTS [DATA_BEFORE]'
data=${1:?$usage}
reports=${2:?$usage}
before=${3:-}
mkdir -p "$reports"

lps-audit show "$data"

# Level full reads every byte of every tar and compares all pairs of videos.
audit=0
lps-audit check "$data" --level full --json "$reports/report.json" --html "$reports/report.html" || audit=$?
case $audit in
    0) verdict='fit. Read what is UNKNOWN: that was not shown to hold' ;;
    1) verdict='not fit: leaking, biased or not reproducible. lps-audit check --explain ID says what to do' ;;
    5) verdict='not intact: bytes are not what they must be. Restore what the report names' ;;
    *) verdict='not proven: the audit could not be done, or not all of it' ;;
esac

moved=0
if [ -n "$before" ]; then
    lps-audit diff "$before" "$data" >"$reports/changes.txt" || moved=$?
    cat "$reports/changes.txt"
fi

echo "$data: $verdict ($reports/report.html)"
if [ "$audit" != 0 ]; then exit "$audit"; fi
exit "$moved"
