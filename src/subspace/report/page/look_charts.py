"""CSS of charts."""

from __future__ import annotations

__all__ = ["CHARTS"]

CHARTS = """
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:30px 36px}
.pair.small{--left:54px;grid-template-columns:repeat(auto-fit,minmax(min(100%,250px),1fr));gap:28px 32px;
align-items:end}
.pair.tiny{grid-template-columns:repeat(auto-fill,minmax(min(100%,160px),1fr));--left:40px}
@media (min-width:700px){.pair.tiny{grid-template-columns:repeat(auto-fill,minmax(220px,1fr))}}
figure{margin:0;min-width:0}
.chart{container-type:inline-size}
figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 12px;margin-bottom:12px;font-size:14px}
.small figcaption,.small .hint{display:block}
.plot{position:relative;margin:0 min(calc(var(--names,0px) * .88 + 14px),38%) 24px var(--left,44px);
border-bottom:1px solid var(--soft)}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
polyline{fill:none;vector-effect:non-scaling-stroke;stroke-linejoin:round;stroke-linecap:round}
.raw{stroke-width:1;opacity:.22}
.line{stroke-width:2}
.band{opacity:.17;stroke:none}
.point{fill:none;vector-effect:non-scaling-stroke;stroke-linecap:round;stroke-width:6}
.front{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:4 4}
.hair{position:absolute;top:0;bottom:0;width:1px;background:var(--soft);pointer-events:none}
.grid{position:absolute;left:0;right:0;height:0;border-top:1px solid var(--line)}
.ytick{position:absolute;right:100%;transform:translateY(-50%);padding-right:8px;font-size:12px;font-style:normal;
white-space:nowrap;color:var(--soft)}
.xtick{position:absolute;top:100%;transform:translateX(-50%);padding-top:4px;font-size:12px;color:var(--soft);
white-space:nowrap}
.xaxis{margin:0 0 0 var(--left,44px);font-size:12px;color:var(--soft)}
.name{position:absolute;transform:translateY(-50%);padding-left:8px;max-width:min(calc(var(--names) + 20px),38cqw);
font-size:13px;font-weight:600;line-height:18px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;
text-shadow:0 0 3px var(--paper),0 0 3px var(--paper),0 0 3px var(--paper)}
.scatter{--left:56px;margin-right:10px;max-width:760px}
.scatter~.xaxis{--left:56px}
.spot{position:absolute;width:12px;height:12px;margin:-6px 0 0 -6px;border-radius:50%;border:2px solid var(--paper)}
.spot::after{content:"";position:absolute;inset:-8px}
.spot.beaten{opacity:.6}
.spot.small{width:9px;height:9px;margin:-4.5px 0 0 -4.5px;border-width:1px;opacity:var(--strength)}
.spot.chosen{outline:2px solid var(--ink);outline-offset:1px;opacity:1}
.cross{position:absolute;top:0;transform:translate(-50%,-50%);color:var(--bad);font-style:normal;font-weight:700}
.called{position:absolute;text-shadow:0 0 3px var(--paper),0 0 3px var(--paper),0 0 3px var(--paper);
font-size:13px;font-weight:600;line-height:16px;white-space:nowrap;pointer-events:none}
.called.right{transform:translate(10px,-50%)}
.called.left{transform:translate(calc(-100% - 10px),-50%)}
.called.over{transform:translate(-50%,calc(-100% - 8px))}
.called.beneath{transform:translate(-50%,9px)}
.swatch{display:inline-block;width:10px;height:10px;margin-right:8px;border-radius:2px}
i.d1{background-image:radial-gradient(circle,var(--paper) 26%,transparent 32%)}
i.d2{background-image:linear-gradient(135deg,transparent 50%,var(--paper) 50%)}
i.d3{background-image:linear-gradient(45deg,var(--paper) 50%,transparent 50%)}
.rows{display:grid;gap:0}
.row{display:grid;grid-column:1/-1;grid-template-columns:subgrid;align-items:center;gap:0 16px}
.forest{grid-template-columns:minmax(70px,max-content) max-content minmax(120px,1fr) max-content}
.bars{grid-template-columns:minmax(80px,max-content) 1fr max-content}
.label{font-weight:600;overflow-wrap:anywhere;max-width:26ch}
.letters{min-width:1ch;font:italic 15px Georgia,serif;color:var(--soft)}
.track{position:relative;height:34px;min-width:60px}
.track i{position:absolute;display:block;font-style:normal}
.zero{top:0;bottom:0;width:1px;background:var(--ink)}
.upright{top:0;bottom:0;width:1px;background:var(--line)}
.whisker{top:15px;height:4px;border-radius:2px;opacity:.45}
.dot{top:10px;width:14px;height:14px;margin-left:-7px;border-radius:50%;border:2px solid var(--paper)}
.seed{top:26px;width:5px;height:5px;margin-left:-2.5px;border-radius:50%;opacity:.7}
.axis .track{height:20px}
.under{top:2px;transform:translateX(-50%);font-size:12px;color:var(--soft);white-space:nowrap}
.value{white-space:nowrap}
.value b{font-weight:600}
.from{color:var(--soft);font-size:13px;padding-left:6px}
.track.flat{height:28px}
.bar{left:0;top:9px;bottom:9px;border-radius:1px;opacity:.85}
.rows .bar{padding:0;border:0}
.mark{top:3px;bottom:3px;width:2px;margin-left:-1px;background:var(--ink)}
.matrix{font-size:13px;border-collapse:separate;border-spacing:2px}
.matrix th,.matrix td{border:0}
.matrix thead th{padding:0 2px 4px;color:var(--ink)}
.matrix thead th span{display:inline-block;max-width:10ch;overflow:hidden;text-overflow:ellipsis;
vertical-align:bottom}
.matrix th[scope=row]{position:sticky;left:0;background:var(--paper);padding-right:10px;color:var(--ink);
font-weight:600;text-align:left;border:0;max-width:22ch;overflow:hidden;text-overflow:ellipsis}
.matrix th[scope=row]{vertical-align:middle}
.matrix thead td{padding:0}
.matrix tbody td,.matrix tbody td:not(.n):not(:first-child){min-width:58px;height:32px;padding:0 6px;
text-align:center}
.matrix.fine tbody td{min-width:18px;height:18px;padding:0}
.matrix.fine thead th span{writing-mode:vertical-rl;max-width:none;max-height:12ch}
.better{background:var(--good-wash);color:var(--good);font-weight:600}
.worse{background:var(--bad-wash);color:var(--bad);font-weight:600}
.open{background:var(--shade);color:var(--soft)}
.looks{display:flex;flex-wrap:wrap;gap:4px 20px;margin:8px 0 0;font-size:13px;color:var(--soft)}
.looks i{display:inline-block;width:14px;height:10px;margin-right:7px;border-radius:2px}
.stack{display:flex;height:18px;gap:2px}
.stack i{min-width:2px}
.stack .right,.looks .right{background:var(--good)}
.stack .wrong,.looks .wrong{background:var(--bad)}
.stack .split,.looks .split{background:var(--c1)}
.looks+.scroll{margin-top:14px}
.legend{display:flex;align-items:center;gap:10px;margin:6px 0 12px;font-size:13px;color:var(--soft)}
.legend i{width:140px;height:12px;border-radius:3px;
background:linear-gradient(90deg in oklab,var(--cold),var(--heat))}
.cells{display:grid;grid-template-columns:max-content repeat(var(--layers),minmax(0,1fr));gap:2px;align-items:center}
.cells i{height:26px;border-radius:2px;font-size:13px;line-height:26px;font-style:normal;text-align:center;
overflow:hidden;background:color-mix(in oklab,var(--heat) var(--v,0%),var(--cold))}
.cells i:not([style]){background:none}
.cells .hot{color:#fff}
@media (prefers-color-scheme:dark){.cells .hot,.cells .warm{color:#0b0f14}}
.fine{gap:1px}
.cells .all{grid-column:2/-1}
.kind{max-width:13ch;padding-right:8px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;font-size:13px;
color:var(--soft)}
.tick{font-size:12px;text-align:center;color:var(--soft);white-space:nowrap}
.sub{display:block;font-size:13px;font-weight:400;color:var(--soft)}
.soft{font-weight:600;color:var(--soft)}
.gates td,.gates td:first-child{vertical-align:top;white-space:normal}
.gates td:not(:first-child){min-width:150px}
.gates td:first-child{padding-left:18px;overflow-wrap:break-word}
.gates td:first-child .swatch{position:absolute;left:0;top:12px}
.gates th{white-space:normal;vertical-align:bottom}
.good{color:var(--good);font-weight:600}
.bad{color:var(--bad);font-weight:600}
@media (max-width:620px){
.forest{grid-template-columns:minmax(0,max-content) max-content 1fr}
.forest .row{row-gap:0;padding:6px 0 2px}
.forest .value{text-align:right}
.forest .track{grid-column:1/-1;grid-row:2;margin:0 12px}
.forest .axis{padding:0}
.bars{grid-template-columns:minmax(0,1fr)}
.bars .row{padding:4px 0}
.value{white-space:normal}
}
"""
