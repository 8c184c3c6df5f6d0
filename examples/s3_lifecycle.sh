#!/usr/bin/env bash
# Data engineers on S3: the rules that let a bucket remove what killed runs leave in it, as JSON for a data set's prefix.
#
#   examples/s3_lifecycle.sh ffpp > lifecycle.json        # of s3://BUCKET/ffpp
#   aws s3api get-bucket-lifecycle-configuration --bucket BUCKET        # put replaces all rules: add those that are there
#   aws s3api put-bucket-lifecycle-configuration --bucket BUCKET --lifecycle-configuration file://lifecycle.json
#
# What a killed `lps-prep run` leaves in OUT, besides what is whole:
#   - uploads of shards of 100 MB and more that were under way: parts that no listing shows, and that are paid for;
#   - runs/leases/RUN.json, one small file. The next run removes it, if there is one; a live run writes its own every 30 s;
#   - in a bucket with versions, a version of the lease for each of these writes.
# runs/cache/ is no rest: it lets the next run skip what it has read. After 30 days without a run it goes, too, and is made
# anew. Everything else below OUT is the data set, or tells how it was made: no rule names it.
#
# Run in our tests: put, and got back the same, with moto, a server that stands for S3, which does not act on rules. Not run:
# the aws command, Amazon's S3, other stores.
set -euo pipefail

prefix=${1:?usage: s3_lifecycle.sh PREFIX}
case $prefix in s3://*/*) prefix=${prefix#s3://*/} ;; esac # the URL does, too
prefix=${prefix%/}
case $prefix in
    '' | /* | *://* | *[\"\\]*) echo "'$1' is no prefix of a data set: PREFIX is that of s3://BUCKET/PREFIX, without quotes" >&2; exit 2 ;;
esac

cat <<JSON
{
  "Rules": [
    {
      "ID": "lps-prep/$prefix: uploads that broke off",
      "Status": "Enabled",
      "Filter": {"Prefix": "$prefix/"},
      "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}
    },
    {
      "ID": "lps-prep/$prefix: leases of killed runs",
      "Status": "Enabled",
      "Filter": {"Prefix": "$prefix/runs/leases/"},
      "Expiration": {"Days": 1},
      "NoncurrentVersionExpiration": {"NoncurrentDays": 1}
    },
    {
      "ID": "lps-prep/$prefix: headers that were read",
      "Status": "Enabled",
      "Filter": {"Prefix": "$prefix/runs/cache/"},
      "Expiration": {"Days": 30},
      "NoncurrentVersionExpiration": {"NoncurrentDays": 1}
    }
  ]
}
JSON
