/** Style and script of the picture of storage. */

export const STYLE = `
:root { color-scheme: light dark; --ink:#1d2433; --soft:#5d677a; --line:#dde2ea; --ground:#f5f7fa; --paper:#fff;
  --l0:#e2a03f; --l1:#4778c8; --image:#3c9d69; --state:#9268c9; --wal:#8b95a7; --open:#c9d0db; --start:#c2452d; --child:#1f8a8a; }
@media (prefers-color-scheme: dark) { :root { --ink:#e4e8f0; --soft:#9aa5b8; --line:#323a48; --ground:#151a22; --paper:#1d2430;
  --open:#3d4757; --wal:#6c7789; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--ground); color:var(--ink); font:14px/1.45 system-ui, "DejaVu Sans", sans-serif; }
main { max-width:1140px; margin:0 auto; padding:24px 24px 60px; }
h1 { font-size:24px; margin:0; } h2 { font-size:19px; margin:30px 0 10px; } h3 { font-size:16px; margin:0; }
small { color:var(--soft); font-weight:400; } header p, .panel p { color:var(--soft); margin:2px 0 8px; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit, minmax(160px, 1fr)); gap:10px; margin:18px 0; }
.tile { background:var(--paper); border:1px solid var(--line); border-radius:8px; padding:10px 14px; }
.tile b { display:block; font-size:19px; } .tile span { color:var(--soft); font-size:12.5px; }
.legend { display:flex; flex-wrap:wrap; gap:6px 18px; color:var(--soft); font-size:12.5px; }
.legend span { display:inline-flex; align-items:center; gap:6px; }
table { width:100%; border-collapse:collapse; background:var(--paper); border:1px solid var(--line); font-size:13px; }
th, td { text-align:left; padding:6px 10px; border-bottom:1px solid var(--line); white-space:nowrap; }
th { color:var(--soft); font-weight:600; font-size:12px; } td:last-child { width:22%; } a { color:var(--l1); }
.bars i { display:block; height:6px; margin:2px 0; border-radius:3px; background:var(--open); min-width:2px; }
.bars i.own { background:var(--l0); }
.panel { background:var(--paper); border:1px solid var(--line); border-radius:8px; padding:14px 16px 8px; margin:16px 0; }
svg { display:block; } .panel svg { width:100%; height:auto; }
.plot { fill:none; stroke:var(--line); } .grid { stroke:var(--line); stroke-width:1; }
.tick { fill:var(--soft); font:11px ui-monospace, "DejaVu Sans Mono", monospace; } .label { fill:var(--soft); font-size:11.5px; }
.layer, .legend rect { stroke:var(--paper); stroke-width:1; }
.l0 { fill:var(--l0); } .l1 { fill:var(--l1); } .image { fill:var(--image); } .state { fill:var(--state); } .wal { fill:var(--wal); stroke:var(--paper); }
.open { fill:var(--open); fill-opacity:.55; stroke:var(--soft); stroke-dasharray:4 3; }
.shared { opacity:.38; } .stretch { fill:var(--line); } .s1 { fill:var(--open); }
[data-t]:hover { filter:brightness(1.12); stroke:var(--ink); stroke-width:1.4; }
.mark { stroke-width:1.5; stroke-dasharray:6 4; } .mark.start, .mark.window { stroke:var(--start); } .mark.child { stroke:var(--child); }
.marktext { font-size:11.5px; } .marktext.start, .marktext.window { fill:var(--start); } .marktext.child { fill:var(--child); }
#tip { position:fixed; z-index:9; max-width:520px; padding:8px 11px; border-radius:6px; background:#10151eee; color:#f1f4f9;
  font-size:12.5px; white-space:pre-wrap; overflow-wrap:anywhere; pointer-events:none; box-shadow:0 4px 18px #0005; }
#tip[hidden] { display:none; }
`;

/** Shows the details of what the pointer is on. */
export const SCRIPT = `
const tip = document.getElementById('tip');
document.addEventListener('mousemove', (event) => {
  const target = event.target.closest ? event.target.closest('[data-t]') : null;
  tip.hidden = !target;
  if (!target) return;
  tip.textContent = target.dataset.t;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8)) + 'px';
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 8)) + 'px';
});
`;
