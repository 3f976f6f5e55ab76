"""CSS of the page around its charts: type, columns, tables, what opens and what switches."""

from __future__ import annotations

__all__ = ["LAYOUT"]

LAYOUT = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
html[lang=en] [lang=zh-Hans],html[lang=zh-Hans] [lang=en]:not(html){display:none}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 "Helvetica Neue",Helvetica,"Segoe UI",Roboto,
Arial,"Liberation Sans","PingFang SC","Microsoft YaHei","Noto Sans CJK SC","WenQuanYi Micro Hei",system-ui,sans-serif;
--serif:Charter,"Bitstream Charter","Iowan Old Style","Source Serif 4",Georgia,"Liberation Serif","Noto Serif SC",
"Songti SC","Noto Serif CJK SC","WenQuanYi Micro Hei",serif;
font-variant-numeric:tabular-nums lining-nums}
.page{max-width:1180px;margin:0 auto;padding:0 32px 72px}
.bar{display:flex;justify-content:space-between;align-items:center;gap:16px;padding:18px 0 14px;
border-bottom:1px solid var(--rule);font-size:13px;color:var(--soft)}
.bar p{margin:0;letter-spacing:.02em}
.languages{display:flex;gap:2px}
.languages button,.tabs button,.keys button{font:inherit;color:inherit;background:none;border:0;cursor:pointer}
.languages button{padding:3px 8px;border-radius:4px}
.languages [aria-pressed=true]{color:var(--ink);font-weight:650}
button:focus-visible,summary:focus-visible,a:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
header{padding:40px 0 34px}
h1,h2,.glance dd,h3{text-wrap:pretty}
h1{margin:0 0 26px;max-width:26ch;font:600 clamp(30px,4.6vw,50px)/1.12 var(--serif);
letter-spacing:-.015em;overflow-wrap:anywhere}
html[lang=zh-Hans] h1{letter-spacing:0;line-height:1.25}
dl,dd{margin:0}
.glance{display:grid;gap:0;max-width:880px;border-top:1px solid var(--line)}
.glance>div{display:grid;grid-template-columns:180px 1fr;gap:4px 24px;padding:11px 0;
border-bottom:1px solid var(--line)}
.glance dt{color:var(--soft);font-size:14px;line-height:1.6;overflow-wrap:anywhere}
.glance dd{font-size:17px;line-height:1.45;overflow-wrap:anywhere}
.single>div:first-child dd{font-size:20px}
.take{display:block;margin-top:4px;font-size:14px;color:var(--soft)}
.caution{max-width:880px;margin:18px 0 0;padding:0;list-style:none;font-size:14px;color:var(--soft)}
.caution li{position:relative;margin:5px 0;padding-left:18px}
.caution li::before{content:"";position:absolute;left:0;top:.42em;border:5px solid transparent;
border-bottom:9px solid var(--c1);border-top:0}
dl.facts{display:flex;flex-wrap:wrap;gap:10px 34px;margin:26px 0 0;font-size:14px}
dl.facts div,dl.origin div{min-width:0}
dl.facts dt,dl.origin dt{color:var(--soft);font-size:13px}
dl.facts dd{font-weight:600;overflow-wrap:anywhere}
section{display:grid;grid-template-columns:200px minmax(0,1fr);gap:8px 40px;padding:26px 0 34px;
border-top:1px solid var(--line)}
.side h2{margin:0;font:600 20px/1.25 var(--serif)}
.note{margin:8px 0 0;font-size:13px;line-height:1.5;color:var(--soft);text-wrap:pretty}
.body>.note,.inside>.note{max-width:70ch;margin:0 0 10px}
h3{margin:26px 0 6px;font-size:15px;font-weight:650}
.body>h3:first-child{margin-top:0}
.task{margin:0 0 12px;font-size:14px;color:var(--soft)}
.task:not(:first-child){margin-top:30px}
.hint{font-size:13px;color:var(--soft);font-weight:400}
.scroll{overflow-x:auto;max-width:100%;background:
linear-gradient(to left,var(--paper) 50%,transparent) right/48px 100% no-repeat local,
linear-gradient(to left,color-mix(in srgb,var(--ink) 22%,transparent),transparent) right/20px 100% no-repeat scroll}
table{border-collapse:collapse;font-size:14px}
table.sortable{width:100%}
table.narrow{width:auto;min-width:min(100%,420px)}
th{padding:0;font-weight:400;color:var(--soft);font-size:13px;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--rule);vertical-align:bottom}
th button{font:inherit;color:inherit;background:none;border:0;padding:6px 10px;cursor:pointer;text-align:inherit}
th button:hover{color:var(--ink)}
th.first,td:first-child{text-align:left}
th[aria-sort] button{color:var(--ink)}
th[aria-sort=ascending] button::after{content:" ↑"}
th[aria-sort=descending] button::after{content:" ↓"}
td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
td:not(.n):not(:first-child){text-align:left}
.sortable th:not(.first){text-align:left}
.sortable td.n{text-align:left}
.sortable th:first-child button,.sortable td:first-child{padding-left:0}
.sortable td:first-child{position:sticky;left:0;background:var(--paper);font-weight:600;max-width:min(44vw,360px);
overflow:hidden;text-overflow:ellipsis}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
pre{margin:6px 0;padding:10px 12px;background:var(--shade);border-radius:4px;overflow-x:auto;white-space:pre-wrap;
overflow-wrap:anywhere}
details{margin-top:14px;border-top:1px solid var(--line)}
details+details{margin-top:0}
summary{padding:9px 0;cursor:pointer;font-size:14px;color:var(--soft);overflow-wrap:anywhere}
summary:hover,details[open]>summary{color:var(--ink)}
.teaser{display:inline-block;max-width:100%;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;
vertical-align:bottom;padding-left:10px;font-size:13px;color:var(--soft)}
.inside{padding:4px 0 18px}
.asked{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:6px 18px;font-size:14px}
.asked dt{color:var(--soft);font-size:13px}
.asked code,.answer code{white-space:pre-wrap;overflow-wrap:anywhere}
.answers{margin-top:12px;border-top:1px solid var(--line)}
.answer{display:grid;grid-template-columns:150px 64px minmax(0,1fr);gap:2px 14px;padding:6px 0 6px 10px;
border-bottom:1px solid var(--line);border-left:3px solid var(--line);font-size:14px}
.answer.right{border-left-color:var(--good)}
.answer.wrong{border-left-color:var(--bad)}
.answer b{font-weight:600;overflow-wrap:anywhere}
.origin{display:grid;gap:8px 24px}
.origin div{display:grid;grid-template-columns:110px minmax(0,1fr);gap:16px;font-size:14px}
.origin dd{overflow-wrap:anywhere}
ul{margin:0;padding-left:18px}
.files{list-style:none;padding:0;columns:2;column-gap:40px}
.files li{break-inside:avoid;margin:0 0 6px}
li{overflow-wrap:anywhere}
a{color:inherit;text-decoration-color:var(--soft);text-underline-offset:3px}
footer{padding:18px 0 0;border-top:1px solid var(--rule);font-size:13px;color:var(--soft)}
.tabs{display:flex;flex-wrap:wrap;gap:4px 20px;margin:0 0 18px;font-size:14px;color:var(--soft)}
.tabs button{padding:2px 0;border-bottom:2px solid transparent}
.tabs [aria-pressed=true]{color:var(--ink);border-bottom-color:var(--ink)}
.keys{display:flex;flex-wrap:wrap;gap:2px 18px;margin:0 0 16px;font-size:14px}
.keys button{padding:3px 0;max-width:100%;overflow-wrap:anywhere;text-align:left}
.keys [aria-pressed=false]{opacity:.4;text-decoration:line-through}
.off{display:none!important}
.tip{position:fixed;z-index:9;max-width:min(340px,90vw);padding:7px 10px;border-radius:4px;background:var(--ink);
color:var(--paper);font-size:13px;line-height:1.45;pointer-events:none;white-space:pre-line}
.tip i{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:7px}
@media (max-width:860px){
.page{padding:0 18px 48px}
header{padding:26px 0 24px}
section{grid-template-columns:minmax(0,1fr);padding:22px 0 26px;gap:14px}
.glance>div{grid-template-columns:1fr;padding:9px 0}
.glance dd,.single>div:first-child dd{font-size:16px}
.files{columns:1}
.answer{grid-template-columns:1fr auto}
.answer code{grid-column:1/-1}
.asked{grid-template-columns:1fr}
.origin div{grid-template-columns:1fr;gap:0}
}
@media print{.languages,.tabs button[aria-pressed=false]{display:none}section{break-inside:avoid}}
"""
