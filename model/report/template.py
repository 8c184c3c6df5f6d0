"""The template of the trainer's page, on top of the audit's style and macros: no script, nothing from elsewhere."""

from lps.manifests.pages.style import MACROS

RUN_STYLE = """
:root { --c0: #0072B2; --c1: #C04F00; --c2: #00785a; --c3: #a8528a; --c4: #8a6100; --c5: #2f86b8; --c6: #1a1a1a; }
@media screen and (prefers-color-scheme: dark) { :root { --c0: #4aa8e0; --c1: #f0803a; --c2: #35c79b; --c3: #e29cc6;
  --c4: #e8b53f; --c5: #8fd0f5; --c6: #e4e2dd; } }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); --dash: 7 4; } .s2 { --c: var(--c2); --dash: 2 3; }
.s3 { --c: var(--c3); --dash: 9 3 2 3; } .s4 { --c: var(--c4); --dash: 12 4; } .s5 { --c: var(--c5); --dash: 4 2; }
.s6 { --c: var(--c6); --dash: 1 5; }
.stamp { border: 3px solid var(--bad); background: var(--bad-bg); color: var(--bad); border-radius: 6px;
  padding: 12px 18px; margin: 14px 0; font-size: 17px; } .stamp strong { letter-spacing: .05em; font-size: 20px; }
.verdict p { overflow-wrap: anywhere; }
h3, h4, .keys, .stamp, figcaption, .fold { overflow-wrap: anywhere; } th .who { white-space: nowrap; }
.who svg { width: 26px; height: 10px; margin-right: 7px; vertical-align: baseline; }
.who, .keys li { font-weight: 600; } .who, th.long { overflow-wrap: anywhere; }
.keys { display: flex; flex-wrap: wrap; gap: 2px 20px; padding: 0; margin: 4px 0 8px; list-style: none; }
.marks { display: flex; flex-wrap: wrap; gap: 4px; }
caption { text-align: left; padding: 8px 12px; font-size: 13.5px; color: var(--dim); }
thead th.wrap { white-space: normal; } td.span { line-height: 1.3; } td .dim { font-size: 12px; }
svg.bar.span { width: 96px; height: 9px; display: block; margin: 3px 0 0; }
.n svg.bar.span { margin-left: auto; } svg rect.ink { fill: var(--ink); } .group { min-width: 12ch; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 16px; }
.plots.small { align-items: start; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
svg .curve { fill: none; stroke: var(--c); stroke-width: 2.2; stroke-linejoin: round; stroke-dasharray: var(--dash); }
svg .curve.train { stroke-width: 1.1; opacity: .7; stroke-dasharray: none; }
svg .chance { stroke: var(--dim); stroke-width: 1; stroke-dasharray: 1 4; }
svg .dot { fill: var(--c); } svg .ring { fill: none; stroke: var(--c); stroke-width: 1.8; }
.card h4 { margin: 0 0 4px; font-size: 14.5px; } .differs th { border-left: 4px solid var(--warn); }
.settings td { min-width: 9ch; } .settings .cited { color: var(--dim); }
.digest { font-size: 11.5px; min-width: 17ch; }
.errors { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); gap: 14px; padding: 0;
  margin: 8px 0 18px; list-style: none; }
.errors > li { border: 1px solid var(--rule); border-radius: 6px; padding: 10px 12px; min-width: 0; font-size: 13px; }
.errors img, .errors .blank { display: block; width: 100%; border-radius: 3px; margin-bottom: 6px; }
.errors img { height: auto; } .errors .blank { aspect-ratio: 6; display: grid; place-items: center;
  color: var(--dim); background: var(--card); border: 1px dashed var(--rule); }
.errors .strong { font-weight: 700; }
figure { margin: 0; } figure.card { background: #fff; color: #1a1a1a; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; } figcaption { font-size: 13.5px; }
figcaption .who { color: inherit; }
@media screen and (prefers-color-scheme: dark) { figure.card { background: #f2f1ee; } }
@media print {
  .plots, .plots.small { grid-template-columns: 1fr 1fr; gap: 8px; } .plots .card { display: block; padding: 6px 8px; }
  .errors { grid-template-columns: 1fr 1fr; gap: 8px; } .errors > li, .stamp, figure { break-inside: avoid; }
  .plots .card table { font-size: 7.5pt; } .plots .card th, .plots .card td { padding: 1px 4px; }
  .plots .card .who svg { width: 13px; margin-right: 3px; }
  .settings th, .settings td { overflow-wrap: break-word; min-width: 0; }
  .settings .digest { font-size: 7pt; overflow-wrap: anywhere; min-width: 24mm; }
  .box { break-inside: avoid; } caption { padding: 4px 6px; }
  td .dim { font-size: 8pt; } svg.bar.span { width: 60px; }
}
"""

RUN_MACROS = """
{%- macro who(w) %}<span class="who {{ w.style }}"><svg viewBox="0 0 26 10" aria-hidden="true">
<polyline class="curve" points="0,5 26,5"/></svg>{{ w.name | breakable }}</span>{% endmacro %}
{%- macro figures(rows, heads, caption, grouped) %}
<div class="box"><table><caption>{{ caption }}</caption><thead><tr>
<th scope="col">Detector</th>{% if grouped %}<th scope="col">Group</th>{% endif %}
<th scope="col" class="n">Real + fake</th>
{% for head in heads %}<th scope="col" class="n wrap">{{ head }}</th>{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr><th scope="row">{{ who(row.who) }}</th>
{% if grouped %}<td class="group">{{ row.group | breakable }}</td>{% endif %}<td class="n">{{ row.n }}</td>
{% for cell in row.cells %}<td class="n span">{{ cell.value }}
{% if cell.span %}<br><span class="dim">{{ cell.span }}</span>{% endif %}{{ cell.bar }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{%- endmacro %}
{%- macro plot(view) %}
<section class="card"><h4>{{ view.title }}{% if view.said %} <span class="dim">{{ view.said }}</span>{% endif %}</h4>
{{ view.chart }}
<div class="box"><table><thead><tr><th scope="col">Run</th><th scope="col" class="n">training</th>
<th scope="col" class="n">validation</th><th scope="col" class="n">best step</th></tr></thead><tbody>
{% for row in view.rows %}<tr><th scope="row">{{ who(row.who) }}</th><td class="n">{{ row.train }}</td>
<td class="n">{{ row.validation }}</td><td class="n">{{ row.best }}</td></tr>{% endfor %}
</tbody></table></div></section>
{%- endmacro %}
{%- macro settings(rows, caption) %}
<div class="box"><table class="settings"><caption>{{ caption }}</caption><thead><tr><th scope="col">Setting</th>
<th scope="col" class="cited">Paper's recipe</th>
{% for w in page.runs %}<th scope="col">{{ who(w) }}</th>{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr{% if row.differs %} class="differs"{% endif %}>
<th scope="row"><code>{{ row.name }}</code>{% if row.differs %} <span class="dim">≠</span>{% endif %}</th>
<td class="cited long">{{ row.cited }}</td>
{% for cell in row.cells %}<td class="long{% if "sha" in row.name %} mono digest{% endif %}">{{ cell }}</td>{% endfor %}
</tr>{% endfor %}</tbody></table></div>
{%- endmacro %}
"""

HEADER = """
{{- head((("LEAKY – " if page.leaky else "") ~ page.verdict.word ~ " – report of " ~ page.title), style) }}
<body><main>
<p class="eyebrow">Report of training and evaluation</p>
<section class="verdict {{ page.verdict.tone }}" id="verdict">
<h1 class="word">{{ page.verdict.symbol }} {{ page.verdict.word }}</h1>
{% for line in page.verdict_said %}<p>{{ line }}</p>{% endfor %}</section>
{% if page.leaky %}
<section class="stamp" id="leaky"><strong>✕ LEAKY SPLIT</strong> below {{ page.leaky | join(", ") }}: the split set is
stamped leaky, so the same people or recordings are on both sides of it. Figures that rest on it are too good and say
nothing about people that the detector has not seen.</section>
{% endif %}
<nav aria-label="Contents"><a href="#summary">Summary</a>
{% if page.data %}<a href="#figures">Figures</a><a href="#errors">Worst errors</a>{% endif %}
{% if page.stages %}<a href="#curves">Curves</a>{% endif %}
{% if page.runs %}<a href="#settings">Configuration</a>{% endif %}<a href="#data">Data</a>
{% if page.pictures %}<a href="#pictures">Drawn figures</a>{% endif %}</nav>
<h2 id="summary">Summary</h2>
<div class="box"><table><thead><tr><th scope="col">Folder</th><th scope="col">What it is</th>
<th scope="col">State</th><th scope="col">How far, or on what</th><th scope="col">Figure</th></tr></thead><tbody>
{% for line in page.summary %}
<tr><th scope="row">{{ who(line.who) }}</th><td class="long">{{ line.kind }}</td>
<td><span class="marks">{% for mark in line.marks %}{{ tag(mark) }}{% endfor %}</span></td>
<td class="long">{{ line.how_far }}</td><td class="long">{{ line.figure }}{{ line.bar }}</td></tr>
{% endfor %}</tbody></table></div>
{% if page.notes %}
<h3 id="notes">What to know</h3>
{% for name, note in page.notes %}<p class="note long"><strong>{{ name }}:</strong> {{ note }}</p>{% endfor %}
{% endif %}
"""

JUDGED = """
{% if page.data %}
<h2 id="figures">Figures with intervals</h2>
<p>Below each figure its {{ page.level }} interval, from drawing videos again. Fake is the positive class; accuracy,
recall and precision are at p_fake &gt; 0.5. Intervals that overlap are no proof that two detectors are alike.</p>
{% for data in page.data %}
<h3>{{ data.title }}</h3>
{{ figures(data.videos, page.heads, "By video: the mean over its clips", false) }}
{% for reason in data.reasons %}<p class="dim">– {{ reason }}</p>{% endfor %}
{% if data.groups %}
{{ figures(data.groups, page.heads, "By method, against all reals, and by data set; by video", true) }}{% endif %}
<details class="fold"><summary>By clip</summary>
{{ figures(data.clips, page.heads, "By clip", false) }}</details>
{% if data.roc or data.histograms %}
<div class="plots small">
{% if data.roc %}<section class="card"><h4>ROC over videos</h4><p class="dim">up: fakes called fake; across: reals
called fake; ring: p_fake &gt; 0.5; dotted: chance</p>
{{ data.roc }}
<ul class="keys">{% for row in data.videos %}<li>{{ who(row.who) }}</li>{% endfor %}</ul></section>{% endif %}
{% for w, chart in data.histograms %}
<section class="card"><h4>Scores: {{ who(w) }}</h4><p class="dim">share of videos by p_fake; real above the line, fake
below</p>{{ chart }}</section>{% endfor %}</div>
{% else %}<p class="dim">No ROC and no distribution: there are no scores of labelled videos.</p>{% endif %}
{% endfor %}

<h2 id="errors">Worst errors</h2>
{% if not page.errors %}<p class="dim">Not known: no evaluation here has its table of scores.</p>{% endif %}
{% for view in page.errors %}
<h3>{{ view.name }} on {{ view.data }}</h3>
<p>{{ view.said }}.</p>
{% if view.note %}<p class="note long">{{ view.note }}</p>{% endif %}
<ul class="errors">{% for e in view.errors %}
<li>{% if e.image %}<img src="{{ e.image }}" width="{{ page.strip_px[0] }}" height="{{ page.strip_px[1] }}"
alt="six frames of {{ e.uri }}, {{ e.label }}, called {{ e.called }}">
{%- elif view.errors | selectattr("image") | list %}<span class="blank">no frames</span>{% endif %}
{{ label(e.label) }}, called <span class="strong">{{ e.called }}</span>, p_fake
<span class="strong">{{ "%.3f" | format(e.p_fake) }}</span>
{%- for line in e.lines %} · {{ line }}{% endfor %}
<br><span class="dim long">{{ e.uri | breakable }}</span>
{% if e.others %}<br><span class="dim">the same clip elsewhere: {% for name, p in e.others %}{{ name }}
{{ "%.3f" | format(p) }}{{ ", " if not loop.last }}{% endfor %}</span>{% endif %}</li>
{% endfor %}</ul>
{% endfor %}
{% elif page.runs %}
<p class="dim">No evaluation here: figures with intervals, ROC and errors come from <code>lps-train evaluate</code>;
give its folder, too.</p>
{% endif %}
"""

TRAINED = """
{% if page.stages %}
<h2 id="curves">Curves</h2>
<p>Thin: training, at every logged step; with dots: validation; ring: the step that was kept as best. Losses of
different stages are different things, so each stage has its own charts.</p>
{% for stage in page.stages %}
<h3>{{ stage.stage }}</h3>
<ul class="keys">{% for w in stage.names %}<li>{{ who(w) }}</li>{% endfor %}</ul>
<div class="plots">{% for view in stage.charts %}{{ plot(view) }}{% endfor %}</div>
{% if stage.folded %}<details class="fold"><summary>{{ stage.folded | length }} further
value{{ "s" if stage.folded | length > 1 }}</summary>
<div class="plots">{% for view in stage.folded %}{{ plot(view) }}{% endfor %}</div></details>{% endif %}
{% endfor %}{% endif %}
{% if page.runs %}
<h2 id="settings">Configuration</h2>
{% if page.settings %}
{% set several = ", or between runs (≠)" if page.runs | length > 1 else "" %}
{{ settings(page.settings, "What differs from the paper's recipe" ~ several) }}
{% else %}<p>Nothing differs from the paper's recipe.</p>{% endif %}
<details class="fold"><summary>All {{ page.all_settings | length }} settings</summary>
{{ settings(page.all_settings, "Every setting, resolved") }}</details>
{% endif %}
<h2 id="data">Data</h2>
<div class="box"><table class="settings"><caption>What was learnt from and judged on{{ "; ≠ differs" if
page.stamps | length > 1 }}</caption><thead><tr><td></td>
{% for view in page.stamps %}<th scope="col" class="wrap">{{ who(view.who) }}<br>
<span class="dim">{{ view.what }}</span></th>{% endfor %}</tr></thead><tbody>
<tr><th scope="row">Split set is</th>{% for view in page.stamps %}<td>{{ tag(view.mark) }}</td>{% endfor %}</tr>
{% for row in page.identity %}<tr{% if row.differs %} class="differs"{% endif %}>
<th scope="row">{{ row.name }}{% if row.differs %} <span class="dim">≠</span>{% endif %}</th>
{% for cell in row.cells %}<td class="long{% if "SHA" in row.name %} mono digest{% endif %}">{{ cell }}</td>{% endfor %}
</tr>{% endfor %}</tbody></table></div>
{% if page.pictures %}
<h2 id="pictures">Drawn figures</h2>
<div class="plots">{% for p in page.pictures %}
<figure class="card"><img src="{{ p.image }}" width="{{ p.size[0] }}" height="{{ p.size[1] }}"
alt="{{ p.title }}, of {{ p.who.name }}"><figcaption>{{ p.title }} · {{ p.who.name }}</figcaption></figure>
{% endfor %}</div>
{% endif %}
<footer><p>{{ page.made_by }}. Self-contained: no script, nothing is loaded. A run's validation figures chose its
checkpoint; only an evaluation on data that chose nothing tells how good a detector is.</p></footer>
</main></body></html>
"""

TEMPLATE = MACROS + RUN_MACROS + HEADER + JUDGED + TRAINED
