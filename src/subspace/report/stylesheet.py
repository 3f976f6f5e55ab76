"""The look of the page: one column, quiet colours, day and night, from a phone to a wide screen."""

from __future__ import annotations

from subspace.report.groups import DARK, LIGHT

__all__ = ["COLD", "HEAT", "stylesheet"]

COLD, HEAT = "#e3efef", "#0b5563"
"""Ends of the colours of a map, by day: a hue that no line has."""


def stylesheet() -> str:
    """Return the CSS of the page."""
    day = "".join(f"--c{index}:{colour};" for index, colour in enumerate(LIGHT))
    night = "".join(f"--c{index}:{colour};" for index, colour in enumerate(DARK))
    classes = "".join(
        f".c{index}{{stroke:var(--c{index})}}.b{index}{{background:var(--c{index})}}"
        f".t{index}{{color:color-mix(in srgb,var(--c{index}) 80%,var(--ink))}}"  # words want more contrast than lines
        for index in range(len(LIGHT))
    )
    return (
        f":root{{color-scheme:light dark;--paper:#fbfbf9;--card:#fff;--ink:#18202b;--soft:#59636f;--line:#e3e6ea;"
        f"--shade:#f1f3f5;--good:#0b7d5c;--cold:{COLD};--heat:{HEAT};{day}}}"
        f"@media (prefers-color-scheme:dark){{:root{{--paper:#11151b;--card:#191f27;--ink:#e9edf2;--soft:#9ca7b4;"
        f"--line:#2c343f;--shade:#212833;--good:#41c99d;--cold:#1f3238;--heat:#7fe0e6;{night}}}}}{_CSS}{classes}"
    )


_CSS = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1040px;margin:0 auto;padding:48px 24px 64px}
header{margin-bottom:32px}
.kicker{margin:0;font-size:13px;letter-spacing:.08em;text-transform:uppercase;color:var(--soft)}
h1{margin:6px 0 10px;font-size:clamp(28px,5vw,42px);line-height:1.15;letter-spacing:-.02em;overflow-wrap:anywhere;
text-wrap:balance}
.lead{margin:0;max-width:62ch;font-size:clamp(17px,2vw,19px);color:var(--ink);text-wrap:pretty}
.caution{margin:6px 0 0;max-width:62ch;color:var(--soft)}
dl.facts{display:flex;flex-wrap:wrap;gap:10px 36px;margin:24px 0 0}
dl.facts div{min-width:0}
dl.facts dt{font-size:13px;color:var(--soft)}
dl.facts dd{margin:0;font-weight:600;overflow-wrap:anywhere}
section{margin-top:24px;padding:24px;background:var(--card);border:1px solid var(--line);border-radius:14px}
h2{margin:0 0 4px;font-size:20px;letter-spacing:-.01em}
.note{margin:0 0 18px;max-width:70ch;text-wrap:pretty;font-size:14px;color:var(--soft)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:32px;margin-top:14px}
figure{margin:0;min-width:0}
.chart{container-type:inline-size}
figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:2px 12px;margin-bottom:14px;font-size:15px}
.hint{font-size:13px;color:var(--soft)}
.plot{position:relative;margin:0 min(calc(var(--names) * .88 + 14px),38%) 26px var(--left,42px);
border-bottom:1px solid var(--soft)}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
polyline{fill:none;vector-effect:non-scaling-stroke;stroke-linejoin:round;stroke-linecap:round}
.raw{stroke-width:1;opacity:.26}
.line{stroke-width:2.4}
.line:hover{stroke-width:4}
.point{fill:none;vector-effect:non-scaling-stroke;stroke-linecap:round;stroke-width:6.5}
.grid{position:absolute;left:0;right:0;height:0;border-top:1px solid var(--line)}
.ytick{position:absolute;right:100%;transform:translateY(-50%);padding-right:8px;font-size:12px;font-style:normal;
white-space:nowrap;color:var(--soft)}
.xtick{position:absolute;top:100%;transform:translateX(-50%);padding-top:4px;font-size:12px;color:var(--soft)}
.xaxis{margin:0 0 0 var(--left,42px);font-size:12px;color:var(--soft)}
.keys{display:flex;flex-wrap:wrap;gap:2px 22px;margin:-6px 0 18px;font-size:14px;font-weight:600}
.small{--left:54px;gap:28px 32px;align-items:end}
.small figcaption{display:block}
.small .hint{display:block}
h3{margin:32px 0 2px;font-size:17px;letter-spacing:-.01em}
.legend{display:flex;align-items:center;gap:10px;font-size:13px;color:var(--soft)}
.legend i{width:140px;height:12px;border-radius:3px;background:linear-gradient(90deg in oklab,var(--cold),var(--heat))}
.cells{display:grid;grid-template-columns:max-content repeat(var(--layers),minmax(0,1fr));gap:2px;align-items:center}
.cells i{height:26px;border-radius:3px;font-size:13px;line-height:26px;font-style:normal;text-align:center;
overflow:hidden;background:color-mix(in oklab,var(--heat) var(--v,0%),var(--cold))}
.cells i:not([style]){background:none}
.cells .hot{color:#fff}
@media (prefers-color-scheme:dark){.cells .hot,.cells .warm{color:#0b0f14}}
.fine{gap:1px}
.fine i{border-radius:2px}
.cells .all{grid-column:2/-1}
.kind{max-width:13ch;padding-right:8px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;font-size:13px;
color:var(--soft)}
.tick{font-size:12px;text-align:center;color:var(--soft);white-space:nowrap}
.name{position:absolute;transform:translateY(-50%);padding-left:8px;max-width:min(calc(var(--names) + 20px),38cqw);
font-size:13px;font-weight:650;line-height:18px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;
text-shadow:0 0 3px var(--card),0 0 3px var(--card),0 0 3px var(--card)}
.rows{display:grid;gap:4px;margin-top:14px}
.rows{grid-template-columns:minmax(80px,max-content) 1fr max-content}
.row{display:grid;grid-column:1/-1;grid-template-columns:subgrid;align-items:center;gap:4px 18px;padding:6px 0}
.label{font-weight:600;overflow-wrap:anywhere;max-width:26ch}
.track{position:relative;height:20px;min-width:60px;border-radius:10px;background:linear-gradient(var(--line),var(--line))
center/100% 1px no-repeat}
.track.flat{background:var(--shade);border-radius:5px;overflow:hidden}
.track i{position:absolute;display:block}
.way{top:8px;height:4px;border-radius:2px;opacity:.42}
.dot{top:3px;width:14px;height:14px;margin-left:-7px;border-radius:50%;border:2px solid var(--card)}
.dot.before{background:var(--card);border:2px solid var(--soft)}
.seed{top:7px;width:6px;height:6px;margin-left:-3px;border-radius:50%;opacity:.6}
.bar{left:0;top:0;bottom:0;border-radius:5px;opacity:.85}
.mark{top:0;bottom:0;width:3px;margin-left:-1.5px;background:var(--ink)}
.value{white-space:nowrap;text-align:right}
.value.two{display:flex;flex-direction:column;line-height:1.3}
.from{color:var(--soft);font-size:14px}
table{width:100%;margin-top:14px;border-collapse:collapse;font-size:15px}
th{padding:8px 12px;text-align:right;font-size:13px;font-weight:600;color:var(--soft);white-space:nowrap;
border-bottom:1px solid var(--line)}
td{padding:10px 12px;text-align:right;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
th:first-child,td:first-child{padding-left:0;text-align:left}
th:last-child,td:last-child{padding-right:0}
td.run{font-weight:600;overflow-wrap:anywhere}
.best{color:var(--good)}
.swatch{display:inline-block;width:10px;height:10px;margin-right:9px;border-radius:3px}
.sub{display:block;white-space:nowrap;font-size:13px;color:var(--soft)}
ul{margin:10px 0 0;padding-left:20px}
li{margin:3px 0;overflow-wrap:anywhere}
a{color:var(--c0);text-underline-offset:3px}
footer{margin-top:28px;font-size:14px;color:var(--soft)}
@media (max-width:720px){
main{padding:28px 16px 40px}
section{padding:18px 16px;border-radius:12px}
.rows{grid-template-columns:1fr max-content}
.track{grid-column:1/-1;grid-row:2}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
tr{display:grid;grid-template-columns:1fr 1fr;gap:2px 16px;padding:12px 0;border-bottom:1px solid var(--line)}
tr:last-child{border-bottom:0}
td,td:first-child,td:last-child{display:flex;justify-content:space-between;gap:10px;padding:2px 0;border:0;
text-align:right}
td::before{content:attr(data-label);font-size:13px;color:var(--soft);white-space:nowrap}
td.run{grid-column:1/-1;justify-content:flex-start;gap:0;padding-bottom:4px}
td.run::before{content:none}
}
@media (max-width:560px){tr{grid-template-columns:1fr}}
@media print{section{break-inside:avoid}}
"""
