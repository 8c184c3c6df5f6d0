"""croissant.json of a data set: Croissant 1.1 (MLCommons), which tools read the tables with.

Record sets are the manifests of videos, clips and shards. Where a clip comes from is told in terms of PROV: each record
of `clips` names the record of its source video and that of its shard.
"""

from collections.abc import Iterator

import pyarrow as pa

from lps.manifests.canonical import pretty_json, visible_json
from lps.manifests.cards.facts import CardFacts
from lps.manifests.columns import PATHS
from lps.manifests.index import PLAN_JSON, PLAN_SPLITS, PLAN_VIDEOS
from lps.manifests.schemas import Row

MAX_SOURCES = 100
"""Source data sets that are named; a table of sources may name one for each of its videos."""
NOT_STATED = "not stated: for who publishes this data set to fill in"
NO_DATE = "0001-01-01"
"""Readers warn where there is no date of publication, and nobody knows it when the data set is written."""
TYPES = {
    pa.bool_(): "sc:Boolean", pa.int8(): "cr:Int8", pa.int16(): "cr:Int16", pa.int32(): "cr:Int32",
    pa.int64(): "cr:Int64", pa.uint8(): "cr:UInt8", pa.uint16(): "cr:UInt16", pa.uint32(): "cr:UInt32",
    pa.uint64(): "cr:UInt64", pa.float32(): "cr:Float32", pa.float64(): "cr:Float64", pa.string(): "sc:Text",
}  # fmt: skip
RECORDS = {
    "videos": ("video_id", "Source videos: every input has a record, also one that gave no clip."),
    "clips": ("clip_id", "Clips: where each lies in its tar, and which frames and pixels of its video it shows."),
    "shards": ("shard_id", "Shards: WebDataset tars, each with clips of one split."),
}
"""Record set -> its key and what it is."""
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the specification recommends, and PROV."""


def croissant(facts: CardFacts) -> bytes:
    """Return the record. Equal facts give equal bytes."""
    dataset = str(facts.plan.get("dataset", "videos"))
    total = facts.total
    record = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"face-clips-{dataset}",
        "description": f"{total.n_clips} clips of faces from {total.n_videos} source videos, real and fake, made by "
        "lps-prep. README.md tells more, the manifests tell all.",
        "version": f"1.{len(facts.split_sets) - 1}.0",
        "citeAs": f"@misc{{lps-{facts.index['plan_sha256'][:12]}, title = {{Face clips of {dataset}}}, "
        f"note = {{made by lps-prep, plan {facts.index['plan_sha256']}}}}}",
        "license": {"@type": "CreativeWork", "name": NOT_STATED},
        "datePublished": NO_DATE,
        "keywords": ["deepfake detection", "face", "video"],
        "prov:wasDerivedFrom": _sources(facts),
        "prov:wasGeneratedBy": _activity(facts),
        "distribution": [*_files(facts), _shards()],
        "recordSet": [_record_set(facts, name) for name in RECORDS],
    }
    return visible_json(pretty_json(record))


def _sources(facts: CardFacts) -> list[Row]:
    """Return the data sets that the source videos are of, as entities."""
    counts = facts.counts(lambda kind: (kind.dataset,))
    return [
        {"@type": "prov:Entity", "prov:label": name, "description": f"{count.n_videos} source videos"}
        for (name,), count in list(counts.items())[:MAX_SOURCES]
    ]


def _activity(facts: CardFacts) -> Row:
    version = facts.plan.get("versions", {}).get("lps-prep", "")
    return {
        "@type": "prov:Activity",
        "prov:label": "lps-prep run",
        "description": f"Localizer {facts.params.get('localizer')}, plan {facts.index['plan_sha256']}, parameters "
        f"{facts.index['params_sha256']}: {PLAN_JSON} has all of them.",
        "prov:wasAssociatedWith": {
            "@type": "prov:SoftwareAgent",
            "prov:label": f"lps-prep {version} (writer version {facts.plan.get('writer_version')})",
        },
    }


def _files(facts: CardFacts) -> Iterator[Row]:
    """Yield the files whose digests are known: manifests, rule records, and the plan that all follows from."""
    for path, entry in sorted(facts.index["manifests"].items()):
        yield {**_file(path, entry["sha256"]), "contentSize": f"{entry['bytes']} B"}
    for path, sha256 in (
        (PLAN_JSON, facts.index["plan_sha256"]),
        (PLAN_VIDEOS, facts.plan["videos_sha256"]),
        (PLAN_SPLITS, facts.plan["splits_sha256"]),
    ):
        yield _file(path, sha256)


def _file(path: str, sha256: str) -> Row:
    kind = "application/x-parquet" if path.endswith(".parquet") else "application/json"
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "encodingFormat": kind,
        "sha256": sha256,
    }


def _shards() -> Row:
    return {
        "@type": "cr:FileSet",
        "@id": "tars",
        "name": "tars",
        "description": "WebDataset shards. The record set `shards` has the SHA-256 of each.",
        "encodingFormat": "application/x-tar",
        "includes": "shards/*/*.tar",
        "prov:wasDerivedFrom": {"@id": "clips"},
    }


def _record_set(facts: CardFacts, name: str) -> Row:
    key, said = RECORDS[name]
    fields = [_field(name, column) for column in facts.columns[name]]
    record: Row = {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": said,
        "key": {"@id": f"{name}/{key}"},
        "field": [field for field in fields if field],
    }
    if name == "clips":
        record["prov:wasDerivedFrom"] = {"@id": "videos"}
    return record


def _field(name: str, column: pa.Field) -> Row | None:
    """Return a column as a field; None for one of records, for which the manifest has to be read itself."""
    shape, kind = [], column.type
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        shape.append(str(kind.list_size) if pa.types.is_fixed_size_list(kind) else "-1")
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return None
    unit = (column.metadata or {}).get(b"unit", b"").decode()
    if pa.types.is_fixed_size_binary(kind):
        unit = ", ".join(filter(None, (unit, f"{kind.byte_width} bytes")))
    field: Row = {
        "@type": "cr:Field",
        "@id": f"{name}/{column.name}",
        "name": column.name,
        "dataType": TYPES.get(kind, "sc:Text"),
        "source": {"fileObject": {"@id": PATHS[name]}, "extract": {"column": column.name}},
    }
    if unit:
        field["description"] = unit
    if shape:
        field |= {"isArray": True, "arrayShape": ",".join(shape)}
    return field | SAID.get(field["@id"], {})


SAID: dict[str, Row] = {
    "videos/original_video_id": {"equivalentProperty": "prov:wasDerivedFrom"},
    "clips/video_id": {"equivalentProperty": "prov:wasDerivedFrom"},
    "clips/shard_id": {"equivalentProperty": "prov:atLocation"},
    "videos/label": {"dataType": ["cr:Int8", "cr:Label"]},
    "clips/label": {"dataType": ["cr:Int8", "cr:Label"]},
}
"""What is said of single fields: a fake comes from its original, a clip from its video, and it lies in its shard."""
