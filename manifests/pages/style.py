"""Style and macros of every page."""

STYLE = """
:root { color-scheme: light; --paper: #ffffff; --card: #f6f6f3; --rule: #d9d9d3; --ink: #1a1a1a; --dim: #595959;
  --real: #0072B2; --fake: #D55E00; --unknown: #6b6b6b; --track: #e4e4df; --link: #00568a;
  --good: #00694f; --good-bg: #e4f3ee; --warn: #7a5200; --warn-bg: #fdf1d4; --bad: #a5001f; --bad-bg: #fbe6e8;
  --open: #4c4c78; --open-bg: #ececf6; }
@media screen and (prefers-color-scheme: dark) { :root { color-scheme: dark; --paper: #131517; --card: #1c1f22;
  --rule: #363b40; --ink: #e4e2dd; --dim: #a3a6a8; --real: #3d9bd6; --fake: #e8762b; --unknown: #9a9a9a;
  --track: #2b3034; --link: #7cc0ec; --good: #6fd3ae; --good-bg: #12291f; --warn: #e8bb5a; --warn-bg: #2d2410;
  --bad: #ff8b94; --bad-bg: #371519; --open: #b3b3e6; --open-bg: #22223a; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
h1, h2, h3 { line-height: 1.25; margin: 0; }
h2 { font-size: 21px; margin: 44px 0 12px; padding-top: 14px; border-top: 2px solid var(--rule); }
h3 { font-size: 16px; margin: 24px 0 8px; }
p { margin: 6px 0; max-width: 78ch; }
a { color: var(--link); }
code, pre, .mono { font-family: ui-monospace, "DejaVu Sans Mono", Consolas, monospace; font-size: 12.5px; }
code, .mono, .long { overflow-wrap: anywhere; }
.dim { color: var(--dim); }
.eyebrow { font-size: 12.5px; letter-spacing: .06em; text-transform: uppercase; color: var(--dim); margin: 0 0 6px; }
.verdict { border: 1px solid var(--tone); border-left-width: 12px; background: var(--tone-bg); border-radius: 6px;
  padding: 20px 24px; }
.verdict .word { font-size: clamp(30px, 7vw, 52px); font-weight: 800; letter-spacing: -.01em; line-height: 1.05;
  color: var(--tone); }
.verdict p { font-size: 17px; margin: 10px 0 0; max-width: none; }
.slim { width: 1%; white-space: nowrap; } .method { min-width: 13ch; }
.good { --tone: var(--good); --tone-bg: var(--good-bg); } .warn { --tone: var(--warn); --tone-bg: var(--warn-bg); }
.bad { --tone: var(--bad); --tone-bg: var(--bad-bg); } .open { --tone: var(--open); --tone-bg: var(--open-bg); }
.plain { --tone: var(--dim); --tone-bg: transparent; }
.tag { display: inline-block; min-width: 96px; text-align: center; padding: 1px 8px; border-radius: 4px; color:
  var(--tone); background: var(--tone-bg); border: 1px solid var(--tone); font-size: 12px; font-weight: 700;
  letter-spacing: .03em; white-space: nowrap; }
.counts { display: flex; flex-wrap: wrap; gap: 8px 18px; margin: 16px 0 0; padding: 0; list-style: none; }
nav { margin: 18px 0 0; display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px; }
.box { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px; margin: 8px 0 14px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 6px 12px; text-align: left; vertical-align: top; border-top: 1px solid var(--rule); }
thead th { border-top: 0; background: var(--card); font-weight: 600; white-space: nowrap; }
tbody tr:first-child td, tbody tr:first-child th { border-top: 0; }
thead + tbody tr:first-child td, thead + tbody tr:first-child th { border-top: 1px solid var(--rule); }
tbody th { font-weight: 500; } tfoot td, tfoot th { border-top: 2px solid var(--rule); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.edge { border-left: 1px solid var(--rule); } .center { text-align: center; }
.identity th { width: 190px; color: var(--dim); font-weight: 500; white-space: nowrap; }
.label { white-space: nowrap; }
.label::before { content: ""; display: inline-block; width: 10px; height: 10px; margin-right: 6px; }
.label.real::before { background: var(--real); }
.label.fake::before { background: var(--fake); transform: rotate(45deg) scale(.82); }
.label.unknown::before { border: 2px solid var(--unknown); border-radius: 50%; }
details > summary { cursor: pointer; }
.check { border: 1px solid var(--rule); border-left: 5px solid var(--tone); border-radius: 5px; margin: 6px 0; }
.check > summary { display: grid; grid-template-columns: 104px 40px minmax(0, 1fr) 16px; gap: 2px 12px;
  padding: 8px 12px; align-items: baseline; }
.check > summary::-webkit-details-marker { display: none; }
.check > summary::after { content: "▸"; color: var(--dim); grid-row: 1; grid-column: 4; }
.check[open] > summary::after { content: "▾"; }
.check > summary .said { grid-column: 3; font-size: 13.5px; color: var(--dim); overflow-wrap: anywhere; }
.check[open] > summary { background: var(--card); }
.check .body { padding: 4px 14px 12px; border-top: 1px solid var(--rule); }
.id { font-weight: 700; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: 104px minmax(0, 1fr); gap: 5px 14px; margin: 10px 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.remedy { border-left: 3px solid var(--tone); padding-left: 10px; }
.fold { margin: 8px 0; } .fold > summary { color: var(--link); font-size: 14px; }
pre { margin: 6px 0; padding: 10px 12px; background: var(--card); border: 1px solid var(--rule); border-radius: 5px;
  overflow-x: auto; white-space: pre; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); gap: 16px; }
.card { border: 1px solid var(--rule); border-radius: 6px; padding: 12px 14px; min-width: 0; }
.card h3 { margin: 0 0 2px; font-size: 15px; } .pairs { display: flex; flex-wrap: wrap; gap: 8px; }
.pairs > svg { flex: 1 1 200px; min-width: 0; }
.card .box { border: 0; margin: 4px 0 0; } .card table { font-size: 12.5px; } .card th, .card td { padding: 2px 8px; }
.card th:first-child, .card td:first-child { padding-left: 0; } .card thead th { background: none; color: var(--dim); }
svg.chart { display: block; width: 100%; height: auto; }
svg text { font: 10.5px system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink); }
svg text.dim { fill: var(--dim); }
svg rect.real { fill: var(--real); } svg rect.fake { fill: var(--fake); } svg rect.track { fill: var(--track); }
svg .axis { stroke: var(--dim); stroke-width: 1; } svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
svg .line.real { stroke: var(--real); } svg .line.fake { stroke: var(--fake); stroke-dasharray: 6 4; }
svg.bar { width: 110px; height: 9px; vertical-align: middle; }
.key { display: inline-block; width: 26px; border-top: 2.5px solid var(--real); vertical-align: middle; }
.key.fake { border-top: 2.5px dashed var(--fake); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 14px 10px;
  margin: 8px 0 18px; padding: 0; list-style: none; }
.tile { font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; min-width: 0; }
.tile img, .tile .blank { display: block; width: 96px; height: 96px; border-radius: 3px; margin-bottom: 4px; }
.tile .blank { display: grid; place-items: center; text-align: center; color: var(--dim); background: var(--card);
  border: 1px dashed var(--rule); padding: 4px; }
.twins { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 270px), 1fr)); gap: 12px; padding: 0;
  list-style: none; margin: 8px 0; }
.twins > li { border: 1px solid var(--rule); border-radius: 6px; padding: 10px 12px; }
.twins .two { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; }
.reject { border: 1px solid var(--rule); border-left: 4px solid var(--unknown); border-radius: 4px; padding: 8px 10px; }
.reject.real { border-left-color: var(--real); }
.reject.fake { border-left-color: var(--fake); border-left-style: double; }
.rejects { grid-template-columns: repeat(auto-fill, minmax(min(100%, 220px), 1fr)); }
.note { border-left: 4px solid var(--warn); background: var(--warn-bg); padding: 8px 14px; border-radius: 4px; }
footer { margin-top: 48px; padding-top: 14px; border-top: 2px solid var(--rule); font-size: 13.5px; color: var(--dim); }
@media (max-width: 520px) {
  main { padding: 14px 12px 40px; } th, td { padding: 5px 8px; } .verdict { padding: 16px; }
  .check > summary { grid-template-columns: 104px minmax(0, 1fr) 16px; }
  .check > summary::after { grid-column: 3; }
  .check > summary .title, .check > summary .said { grid-column: 1 / -1; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0 0; } dd { margin-bottom: 7px; }
  .identity th { width: auto; white-space: normal; }
}
@media print {
  @page { size: A4; margin: 14mm 13mm; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; }
  .fold:not([open]) { display: none; } .check > summary { list-style: none; }
  .check[open] > summary { break-after: avoid; }
  .check > summary::after, .check[open] > summary::after { content: none; }
  .slim, .id { white-space: nowrap; overflow-wrap: normal; } h2 + p { break-after: avoid; }
  .check dl { font-size: 9pt; gap: 1px 12px; } .check .body { padding: 2px 12px 8px; } dl, pre { break-inside: avoid; }
  .box { overflow: visible; border-radius: 0; } table { font-size: 9pt; } thead { display: table-header-group; }
  th, td { overflow-wrap: anywhere; white-space: normal; padding: 3px 6px; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; overflow: visible; font-size: 7.5pt; padding: 4px 8px; }
  tr, .card, .tile, .twins > li, .verdict, .check > summary { break-inside: avoid; }
  h2, h3 { break-after: avoid; } h2 { margin-top: 22px; } a { color: inherit; text-decoration: none; }
  .charts { grid-template-columns: 1fr; gap: 6px; } .card table { font-size: 8pt; }
  .card { display: grid; grid-template-columns: 2fr 1fr; gap: 0 14px; align-items: center; padding: 6px 10px; }
  .card h3 { grid-column: 1; } .card > p { grid-column: 2; grid-row: 1; font-size: 9pt; } .pairs { flex-wrap: nowrap; }
}
"""


MACROS = """
{%- macro head(title, style) -%}
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<title>{{ title }}</title><style>{{ style }}</style></head>
{%- endmacro %}
{%- macro tag(mark) %}<span class="tag {{ mark.tone }}">{{ mark.symbol }} {{ mark.word }}</span>{% endmacro %}
{%- macro label(name) %}<span class="label {{ name }}">{{ name }}</span>{% endmacro %}
{%- macro share(n, total, name) -%}
<td class="n edge">{{ "{:,}".format(n) }}</td>
<td class="n">{{ "{:.1%}".format(n / total) if total else "–" }}</td>
<td>{{ bar(n / total if total else 0, name) }}</td>
{%- endmacro %}
{%- macro tile(t) -%}
<div class="tile">
{%- if t.image %}<img src="{{ t.image }}" width="96" height="96" alt="frame of {{ t.uri }}">
{%- else %}<span class="blank">{{ t.blank }}</span>{% endif %}
{{ label(t.label) }}{% for line in t.lines %}<br>{{ line }}{% endfor %}
<br><span class="dim">{{ t.uri | breakable }}</span></div>
{%- endmacro %}
"""
