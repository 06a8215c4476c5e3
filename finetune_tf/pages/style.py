"""The style sheet of a page: light and dark, narrow and wide screens, paper."""

STYLE = """
:root { color-scheme: light dark;
  --ink: #1f2933; --faint: #5b6875; --line: #d7dde3; --paper: #ffffff; --panel: #f5f7f9;
  --accent: #1d5fa3; --second: #b4531a; --third: #3d7a3f; --fourth: #7a4fa3;
  --wrong: #b3261e; --over: #ffffff; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e3e8ed; --faint: #9fabb7; --line: #3b454f; --paper: #14181d; --panel: #1d2329;
  --accent: #6fb0f2; --second: #f0a069; --third: #86c988; --fourth: #c3a0ea;
  --wrong: #f2867f; --over: #10151a; } }
@media print { :root {
  --ink: #000000; --faint: #444444; --line: #bbbbbb; --paper: #ffffff; --panel: #ffffff;
  --accent: #1d5fa3; --second: #b4531a; --third: #3d7a3f; --fourth: #7a4fa3;
  --wrong: #b3261e; --over: #ffffff; } }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 68rem; padding: 1rem; line-height: 1.5;
  font-family: system-ui, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial,
    "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; padding-top: .5rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; }
a { color: var(--accent); }
.faint, figcaption, caption, .tile-note { color: var(--faint); font-size: .875rem; }
.verdict { font-size: 1.1rem; border-inline-start: .3rem solid var(--accent);
  padding: .4rem .8rem; background: var(--panel); }
.verdict.unclear { border-color: var(--faint); } .verdict.worse { border-color: var(--wrong); }
.warning { border-inline-start: .3rem solid var(--wrong); padding: .3rem .8rem;
  background: var(--panel); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: .8rem 0;
  list-style: none; font-size: .9rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: .8rem 0; }
.tile { flex: 1 1 9rem; min-width: 0; background: var(--panel); padding: .6rem .8rem;
  border-radius: .3rem; }
.tile-title { font-size: .875rem; } .tile-value { font-size: 1.6rem; font-weight: 600; }
.scrolls { overflow-x: auto; margin: .6rem 0; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: start; padding: .2rem 0; }
th, td { text-align: start; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
td { overflow-wrap: break-word; min-width: 4rem; } td.number { min-width: 0; }
td bdi { display: inline-block; max-width: 18rem; } .place { white-space: nowrap; }
thead { break-after: avoid; }
.passage { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 12rem; max-width: 36rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: .4rem 0; flex: 1 1 18rem; max-width: 30rem; min-width: 0; }
svg.chart { display: block; width: 100%; height: auto; font-size: 12px; }
svg.matrix { max-width: 36rem; }
svg.bar { display: inline-block; width: 8rem; height: 1rem; min-width: 6rem;
  vertical-align: middle; }
svg text { fill: var(--ink); } svg .middle { text-anchor: middle; } svg .end { text-anchor: end; }
svg .small { font-size: 9px; } svg text.over { fill: var(--over); }
.grid { stroke: var(--line); } .reference { stroke: var(--faint); stroke-dasharray: 4 3; }
.interval { stroke: var(--accent); stroke-width: 3; opacity: .55; }
.line { fill: none; stroke-width: 2; } .point { fill: var(--accent); opacity: .45; }
.field { fill: var(--panel); stroke: var(--line); stroke-width: .5; }
.filled, .cell.right { fill: var(--accent); } .cell.wrong { fill: var(--wrong); }
.line.series-0 { stroke: var(--accent); } .dot.series-0 { fill: var(--accent); }
.line.series-1 { stroke: var(--second); stroke-dasharray: 6 3; }
.dot.series-1 { fill: var(--second); }
.line.series-2 { stroke: var(--third); } .dot.series-2 { fill: var(--third); }
.line.series-3 { stroke: var(--fourth); } .dot.series-3 { fill: var(--fourth); }
.key { display: inline-block; width: .8rem; height: .8rem; margin-inline-end: .3rem;
  border-radius: 50%; }
.key.series-0 { background: var(--accent); } .key.series-1 { background: var(--second); }
.key.series-2 { background: var(--third); } .key.series-3 { background: var(--fourth); }
.entry { margin-inline-end: 1rem; font-size: .875rem; }
.example { border: 1px solid var(--line); border-radius: .3rem; padding: .6rem .8rem;
  margin: .6rem 0; }
.example p { margin: .2rem 0; }
.explanation img { width: 14rem; max-width: 100%; height: auto; image-rendering: pixelated;
  margin-inline-end: .5rem; }
.explanation .passage { max-width: none; }
.for { border-bottom: 2px solid rgb(0,114,178); background: rgba(0,114,178,.5); }
.against { border-bottom: 2px dashed rgb(213,94,0); background: rgba(213,94,0,.5); }
.pictures { display: flex; flex-wrap: wrap; gap: .6rem; }
.pictures figure { flex: 0 1 10rem; } .pictures img { max-width: 100%; height: auto; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .3rem;
  padding: .6rem .8rem; overflow-x: auto; font-size: .85rem; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
details summary { cursor: pointer; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  h2, h3, caption { break-after: avoid; } figure, tr, .example, .tile { break-inside: avoid; }
  .scrolls, pre, .explanation { overflow: visible; } pre { white-space: pre-wrap; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
