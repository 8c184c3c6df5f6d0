"""The template of the audit's page: one file, no script, nothing loaded from elsewhere.

STYLE and MACROS are those of the trainer's page, too.
"""

from lps.manifests.pages.style import MACROS

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
