"""The style sheet of reports, kept in code so that every install has it."""

STYLE = """
:root {
  color-scheme: light;
  --ink: #1c2430; --dim: #5a6472; --line: #d9dee5; --soft: #f4f6f8; --page: #ffffff;
  --hit: #00694f; --hit-soft: #d3f0e4; --late: #8a5200; --late-soft: #ffe9c2;
  --repeat: #0057a0; --repeat-soft: #d9eaff; --wrong: #b3261e; --wrong-soft: #fbdcd8;
  --odd: #73348f; --odd-soft: #f0dff7;
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 80rem;
  color: var(--ink); background: var(--page);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial,
  sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .5rem; }
h3 small { margin-left: .6em; font-weight: 400; }
header p { margin: .3rem 0 1rem; color: var(--dim); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; }
a { color: #00579c; }
small, .note, .intro, .dim { color: var(--dim); }
small, .note { font-size: .84rem; }
.intro { max-width: 46rem; margin: 0 0 1rem; }
.s { width: 1em; height: 1em; vertical-align: -.14em; fill: none; stroke: currentColor;
  stroke-width: 1.9; stroke-linecap: round; stroke-linejoin: round; }
.sprites { position: absolute; width: 0; height: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr));
  gap: .8rem; margin: 1rem 0; }
.figures div { background: var(--soft); border-radius: .5rem; padding: .8rem 1rem; }
.figures dt { font-size: .88rem; color: var(--dim); }
.figures dd { margin: 0; }
.figures b { display: block; font-size: 1.85rem; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr));
  gap: 1.2rem 2rem; }
figure { margin: 0; min-width: 0; }
figcaption, caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
.plot { display: block; width: 100%; height: auto; max-width: 34rem; }
.plot text { font-size: 13px; fill: var(--ink); font-variant-numeric: tabular-nums; }
.plot .dim { fill: var(--dim); }
.plot .end { text-anchor: end; }
.plot .mid { text-anchor: middle; }
.rule { stroke: var(--line); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.keys { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: .2rem 0 0;
  padding: 0 0 0 .4rem; font-size: .84rem; }
.keys svg { margin-right: .4rem; vertical-align: middle; }
.scroll { overflow-x: auto; margin: 0 0 1.6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem .38rem 0; text-align: left; vertical-align: top; }
thead th { font-size: .84rem; font-weight: 600; color: var(--dim); vertical-align: bottom;
  border-bottom: 1px solid var(--ink); line-height: 1.3; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { font-weight: 600; white-space: nowrap; }
.grid tbody th { white-space: normal; }
.grid td.n { min-width: 3.4rem; }
td.n { white-space: nowrap; min-width: 4.6rem; }
thead th { max-width: 6.4rem; }
td.n small { display: block; font-size: .76rem; line-height: 1.25; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; list-style: none; margin: .8rem 0;
  padding: 0; font-size: .88rem; }
.legend span { display: inline-block; min-width: 1.7em; text-align: center;
  border-radius: .25rem; margin-right: .35em; }
.strip { table-layout: fixed; margin: 0 0 .8rem; font-size: .74rem; line-height: 1.2; }
.strip th, .strip td { padding: 0; border: 0 !important; text-align: center;
  vertical-align: middle; width: 54px; height: 24px; }
.strip th[scope=row] { width: 52px; text-align: left; font-weight: 400; color: var(--dim); }
.strip thead th { height: 16px; font-weight: 400; border: 0; }
.strip img { display: block; width: 54px; height: auto; max-height: 96px; object-fit: contain;
  border-right: 1px solid #fff; }
.strip td.blank { background: repeating-linear-gradient(45deg, #eef0f3 0 4px, #fff 4px 8px); }
.strip .s { width: 17px; height: 17px; vertical-align: middle; }
.strip tr.gold td, .strip tr.said td { background: var(--soft);
  border: 1px solid #fff !important; }
.strip tr.gold td.window { box-shadow: inset 0 0 0 1px #9aa6b5; }
.strip tr.gold td.held, .strip tr.said td.held { background: #dfe5ec; }
.strip.large th[scope=col], .strip.large td, .strip.large img { width: 108px; }
tr td.hit, tr.said td.hit, .legend .hit { background: var(--hit-soft) !important;
  color: var(--hit); }
tr td.wrong-text, .legend .wrong-text { background: repeating-linear-gradient(45deg,
  var(--hit-soft) 0 5px, var(--wrong-soft) 5px 10px) !important; color: var(--wrong); }
tr td.late, .legend .late { background: var(--late-soft) !important; color: var(--late); }
tr td.repeat, .legend .repeat { background: var(--repeat-soft) !important; color: var(--repeat); }
tr td.false-alarm, tr td.missed, .legend .false-alarm,
  .legend .missed { background: var(--wrong-soft) !important; color: var(--wrong); }
tr td.malformed, .legend .malformed { background: var(--odd-soft) !important; color: var(--odd); }
.legend .window { box-shadow: inset 0 0 0 1px #9aa6b5; }
.legend .held { background: #dfe5ec; }
.said-list { font-size: .86rem; margin: 0 0 2.2rem; }
.said-list th, .said-list td { padding: .16rem .9rem .16rem 0; }
.said-list tbody tr + tr > * { border: 0; }
.said-list th { font-weight: 400; color: var(--dim); text-align: right; }
.said-list td:last-child { padding-left: .4rem; }
@media print { nav { display: none; } section, .strip { break-inside: avoid; } }
"""
