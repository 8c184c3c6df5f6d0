"""The template of the audit's page: one file, no script, nothing loaded from elsewhere.

STYLE and MACROS are those of the trainer's page, too.
"""

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

CHECKS = """
<h2 id="checks">Checks</h2>
{% for group in page.groups %}
<h3 id="class-{{ group.letter }}">{{ group.letter }} · {{ group.title }}</h3>
{% for check in group.checks %}
<details class="check {{ check.mark.tone }}" id="check-{{ check.id }}"{% if check.unfolded %} open{% endif %}>
<summary>{{ tag(check.mark) }}<span class="id">{{ check.id }}</span><span class="title">{{ check.title }}</span>
{% if check.said %}<span class="said">{{ check.said }}</span>{% endif %}</summary>
<div class="body"><dl>
<dt>Rule</dt><dd>{{ (check.rule or "not stated") | coded }}</dd>
<dt>Measured</dt><dd>{{ check.measured or "–" }}</dd>
{% if check.limit %}<dt>Limit</dt><dd>{{ check.limit }}</dd>{% endif %}
<dt>Looked at</dt><dd>{{ "{:,}".format(check.n_checked) }}; {{ "{:,}".format(check.n_offenders) }} break the rule</dd>
<dt>If it fails</dt><dd>severity {{ check.severity }}</dd>
{% if check.note %}<dt>Note</dt><dd>{{ check.note }}</dd>{% endif %}
{% if check.remedy %}<dt>What to do</dt>
<dd{% if check.unfolded %} class="remedy"{% endif %}>{{ check.remedy | coded }}</dd>{% endif %}
</dl>
{% if check.sample %}
<div class="box"><table><thead><tr><th>What</th><th>Which</th><th>Why</th></tr></thead><tbody>
{% for found in check.sample %}
<tr><td>{{ found.kind }}</td><td class="mono">{{ found.key }}</td><td class="long">{{ found.detail }}</td></tr>
{% endfor %}</tbody></table></div>
{% if check.n_offenders > check.sample | length %}
<p class="dim">{{ check.sample | length }} of {{ "{:,}".format(check.n_offenders) }} shown.</p>{% endif %}
{% endif %}
{% if check.numbers %}<details class="fold"><summary>Numbers</summary>
<pre class="wrap">{{ check.numbers }}</pre></details>{% endif %}
{% if check.sql %}<details class="fold"><summary>SQL (DuckDB)</summary><pre>{{ check.sql }}</pre></details>{% endif %}
</div></details>
{% endfor %}{% endfor %}
"""

BIAS = """
<h2 id="bias">Real beside fake</h2>
<p>Where the two differ, a detector can tell them apart without looking at a face. The distance is that of
Kolmogorov and Smirnov: 0 where the distributions are equal, 1 where they do not touch. Left: share of each class by
value, real above the line, fake below; the outermost bars hold what lies outside. Right: cumulative share,
<span class="key"></span> real, <span class="key fake"></span> fake.</p>
{% if not page.charts %}<p class="dim">Nothing to draw: no video or clip with a known label was measured.</p>{% endif %}
<div class="charts">
{% for chart in page.charts %}
<section class="card"><h3>{{ chart.title }}</h3>
<p class="dim">{{ chart.said }}</p>
<div class="pairs">{{ chart.histogram }}{{ chart.ecdf }}</div>
<div class="box"><table><thead><tr><th>Class</th><th class="n">{{ chart.of }}</th><th class="n">5 %</th>
<th class="n">median</th><th class="n">95 %</th></tr></thead><tbody>
{% for row in chart.rows %}
<tr><td>{{ label(row.label) }}</td>{% for cell in row.cells %}<td class="n">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></section>
{% endfor %}</div>
{% if page.tallies %}
<h3>Kinds of files</h3>
<div class="box"><table><thead><tr><th>Trait</th><th>Value</th>
<th class="edge center" colspan="3">{{ label("real") }}</th>
<th class="edge center" colspan="3">{{ label("fake") }}</th></tr></thead><tbody>
{% for tally in page.tallies %}{% for value, counts in tally.rows[:12] %}
<tr><th scope="row">{{ tally.title if loop.first }}</th><td class="long">{{ value }}</td>
{{ share(counts[0], tally.totals[0], "real") }}{{ share(counts[1], tally.totals[1], "fake") }}</tr>
{% endfor %}{% if tally.rows | length > 12 %}
<tr><td></td><td class="dim" colspan="7">{{ tally.rows | length - 12 }} rarer values are not shown</td></tr>
{% endif %}{% endfor %}</tbody></table></div>
{% endif %}
"""

MATRIX = """
<h2 id="splits">Splits</h2>
{% if page.matrix.rows %}
<p>Split set <code>{{ page.split_set or "?" }}</code>. A group is what the split rule keeps together: videos that
share people or sources. One group can hold several methods, so groups do not add up.</p>
<div class="box"><table><thead>
<tr><th rowspan="2">Label</th><th rowspan="2">Method</th>
{% for name in page.matrix.splits %}<th colspan="3" class="edge center">{{ name }}</th>{% endfor %}</tr>
<tr>{% for name in page.matrix.splits %}<th class="n edge">videos</th><th class="n">clips</th>
<th class="n">groups</th>{% endfor %}</tr></thead><tbody>
{% for row in page.matrix.rows %}
<tr><td>{{ label(row.label) }}</td><td class="long method">{{ row.method or "–" }}</td>
{% for cell in row.cells %}<td class="n edge">{{ cell[0] }}</td><td class="n">{{ cell[1] }}</td>
<td class="n">{{ cell[2] }}</td>{% endfor %}</tr>{% endfor %}</tbody>
<tfoot>{% for row in page.matrix.totals %}<tr><td colspan="2">{{ row.title }}</td>
{% for cell in row.cells %}<td class="n edge">{{ cell[0] }}</td><td class="n">{{ cell[1] }}</td><td></td>{% endfor %}
</tr>{% endfor %}</tfoot></table></div>
{% else %}<p class="dim">Not known: no split set could be read.</p>{% endif %}
{% if page.leaks.rows %}
<h3 id="leaks">What held-out videos share with other splits</h3>
<p>Share of the videos behind the arrow that have at least one such key in common with the split before it; in
brackets, what a random split of the same sizes gives.</p>
<div class="box"><table><thead><tr><th>In common</th>
{% for pair in page.leaks.pairs %}<th class="n edge">{{ pair }}</th>{% endfor %}</tr></thead><tbody>
{% for row in page.leaks.rows %}<tr><td>{{ row.title }}</td>
{% for share, beside in row.cells %}
<td class="n edge">{{ share }}{% if beside %} <span class="dim">({{ beside }})</span>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}
"""

PICTURES = """
<h2 id="codes">Failures and skips by code</h2>
{% if page.codes %}
<p>Videos that ended with a code, beside all inputs of their class. A code that hits one class more than the other bends
what is left.</p>
<div class="box"><table><thead><tr><th>Code</th><th>Meaning</th>
<th class="edge center" colspan="3">{{ label("real") }}</th><th class="edge center" colspan="3">{{ label("fake") }}</th>
<th class="n edge">{{ label("unknown") }}</th></tr></thead><tbody>
{% for code in page.codes %}
<tr><td class="mono slim">{{ code.code }}</td><td>{{ code.meaning }}</td>
{{ share(code.by_label[0], page.totals[0], "real") }}
{{ share(code.by_label[1], page.totals[1], "fake") }}<td class="n edge">{{ "{:,}".format(code.by_label[2]) }}</td></tr>
{% endfor %}</tbody></table></div>
{% else %}<p>No video ended with a code.</p>{% endif %}

<h2 id="pairs">Near duplicates</h2>
{% if page.pairs %}
<p>{{ page.pairs_said }}</p>
<ul class="twins">
{% for pair in page.pairs %}
<li><p><a href="#check-{{ pair.check }}">{{ pair.check }}</a> <span class="dim">{{ pair.said }}</span></p>
<div class="two">{{ tile(pair.left) }}{{ tile(pair.right) }}</div></li>
{% endfor %}</ul>
{% else %}<p class="dim">{{ page.pairs_said }}</p>{% endif %}

<h2 id="sheets">Clips of the lowest quality</h2>
{% if not page.strips %}<p class="dim">No clip to show.</p>{% endif %}
{% for strip in page.strips %}
<h3>{{ strip.title }}</h3><p class="dim">{{ strip.said }}</p>
<ul class="tiles">{% for t in strip.tiles %}<li>{{ tile(t) }}</li>{% endfor %}</ul>
{% endfor %}

<h2 id="rejects">Rejected videos, by code</h2>
{% if not page.codes %}<p class="dim">None.</p>{% endif %}
{% for code in page.codes %}
<h3><code>{{ code.code }}</code></h3>
<p class="dim">{{ code.meaning }}; {{ "{:,}".format(code.by_label | sum) }} video{{ "s" if code.by_label | sum != 1 }}
{%- if code.by_label | sum > code.tiles | length %}, {{ code.tiles | length }} shown{% endif %}.</p>
<ul class="tiles rejects">{% for t in code.tiles %}
<li class="tile reject {{ t.label }}">{{ label(t.label) }}{% for line in t.lines %}<br>{{ line }}{% endfor %}
<br><span class="dim">{{ t.uri | breakable }}</span></li>{% endfor %}</ul>
{% endfor %}
"""

PAGE = (
    """{{ head(page.verdict.word ~ " – audit of " ~ page.name, style) }}
<body><main>
<p class="eyebrow">Audit of a face-clip data set</p>
<section class="verdict {{ page.verdict.tone }}" id="verdict">
<h1 class="word">{{ page.verdict.symbol }} {{ page.verdict.word }}</h1>
<p>{{ page.verdict_said }}</p></section>
<ul class="counts">{% for count in page.counts %}<li>{{ tag(count.mark) }} {{ count.n }}</li>{% endfor %}</ul>
<nav aria-label="Contents"><a href="#identity">Identity</a><a href="#splits">Splits</a><a href="#checks">Checks</a>
<a href="#bias">Real beside fake</a><a href="#codes">Failures</a><a href="#pairs">Near duplicates</a>
<a href="#sheets">Lowest quality</a><a href="#rejects">Rejects</a></nav>
{% if page.to_do %}
<h2 id="to-do">What needs attention</h2>
<div class="box"><table><tbody>{% for check in page.to_do %}
<tr><td class="slim">{{ tag(check.mark) }}</td>
<td class="id slim"><a href="#check-{{ check.id }}">{{ check.id }}</a></td>
<td>{{ check.title }}<br><span class="dim long">{{ check.said }}</span></td></tr>{% endfor %}</tbody></table></div>
{% endif %}
{% for note in page.notes %}<p class="note long">Part of this page is missing: {{ note }}</p>{% endfor %}
<h2 id="identity">What was audited</h2>
<div class="box"><table class="identity"><tbody>{% for name, value in page.identity %}
<tr><th scope="row">{{ name }}</th><td class="mono">{{ value }}</td></tr>{% endfor %}</tbody></table></div>
"""
    + MATRIX
    + CHECKS
    + BIAS
    + PICTURES
    + """
<footer><p>{{ page.made_by }}. Self-contained: no script, nothing is loaded. Every check that a query can decide has its
SQL, on the screen and with <code>lps-audit check --explain ID</code>; it runs in DuckDB over the Parquet files of the
data set, without this program. On paper stand the checks that are unfolded. SKIP and UNKNOWN never count as
PASS.</p></footer>
</main></body></html>
"""
)

TEMPLATE = MACROS + PAGE
