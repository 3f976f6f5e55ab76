"""Simplified Chinese: the verdict and what the reader must know."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["VERDICT"]

VERDICT: Mapping[str, str] = {
    "language": "zh",
    "language_name": "中文",
    "full_stop": "。",
    "between_sentences": "",
    "list_comma": "、",
    "list_and": " 和 ",
    "list_more": "另外 {count} 个",
    "span": "{low} 至 {high}",
    "versus": "{first} – {second}",
    "points": "{value} 个百分点",
    "unknown": "未知",
    "several": "{count} 种",
    "seeds_one": "{count} 个随机种子",
    "seeds_many": "{count} 个随机种子",
    "seeds_and_items": "{seeds} × {items} 条样本",
    # 标题
    "page_title": "subspace：{title}",
    "kicker": "subspace · 方法对比",
    "title_best": "{arm} 最优。",
    "title_shared": "{arms} 并列领先。",
    "title_shared_by_many": "{arm} 领先，但另有 {count} 种方法与之难分高下。",
    "title_none": "没有方法明显胜出。",
    "title_best_on_all": "{arm} {tasks}最优。",
    "title_leads_on_all": "{arms} {tasks}领先或并列领先。",
    "title_lead_on_all": "{arms} {tasks}并列领先。",
    "title_many_lead": "{arms} 种方法中有 {count} 种{tasks}并列领先。",
    "tasks_two": "在两个任务上均",
    "tasks_many": "在全部 {count} 个任务上均",
    "title_no_leader": "没有方法{tasks}领先。",
    "title_beats": "{arms} 优于 {reference}。",
    "title_beat": "{arms} 优于 {reference}。",
    "title_unbeaten": "没有方法优于 {reference}。",
    "title_no_difference": "没有方法与 {reference} 拉开差距。",
    "title_bare": "{arm} 得分最好，但无法判断是否出于偶然。",
    "title_run": "{run}",
    "title_scored": "{count} 次运行，同类运行太少，无法判断差异是否出于偶然。",
    "title_runs": "{count} 次运行，尚无可比较的评分。",
    # 结论
    "line_leads": "最好",
    "line_reference": "参照方法",
    "line_ahead": "优于参照",
    "line_level": "与之难分高下",
    "line_level_reference": "与之难分高下",
    "line_behind": "落后于它",
    "line_perhaps_ahead": "可能优于它",
    "line_perhaps_behind": "可能落后于它",
    "line_power": "如何进一步区分",
    "line_scores": "得分",
    "score_with_interval": "{arm}，{metric} {score}，置信区间 {interval}（{data}）。",
    "score_alone": "{arm}，{metric} {score}（{data}）。",
    "gap": "{arm} 相差 {difference} [{interval}]",
    "sentence_ahead": "优于它的有：{gaps}。",
    "sentence_level": "与之难分高下的有：{arms}。",
    "if_shared": "{gaps}（假设种子对各方法的影响一样大）。",
    "sentence_perhaps_ahead": "可能优于它的有：{gaps}（假设种子对各方法的影响一样大）。",
    "sentence_perhaps_behind": "可能落后于它的有：{gaps}（假设种子对各方法的影响一样大）。",
    "sentence_behind": "落后于它的有：{gaps}。",
    "power_unknown": "没有任何重复实验，噪声大小未知。请至少运行三个随机种子。",
    "power_detectable": (
        "在 {data}的条件下，{difference}的真实差异有 {target} 的概率被检出（若仅作这一项比较，则为 {alone}）。"
    ),
    "power_alone": (
        "在 {data}的条件下，比较如此之多，没有任何差异能以 {target} 的概率被检出；若仅作一项比较，{alone}的差异则可以。"
    ),
    "power_none": "在 {data}的条件下，没有任何差异能以 {target} 的概率被检出。",
    "power_then": "{first}{then}",
    "one_point": "一个百分点的差异",
    "one_percent": "{value}（1 %）的差异",
    "power_both": "若要检出{point}，需在现有样本上训练 {seeds} 个随机种子，或以现有种子评测 {items} 条样本。",
    "power_seeds": "若要检出{point}，需训练 {seeds} 个随机种子；仅增加样本还不够。",
    "power_items": "若要检出{point}，需评测 {items} 条样本；仅增加种子还不够。",
    "power_never": "单靠增加种子或增加样本都无法检出{point}。",
    "bare_best": "{arm} 的{metric}为 {score}，在 {count} 种方法中最好。",
    "bare_one": "{arm} 训练后的{metric}为 {score}。",
    "before_was": "训练前：{before}。",
    "unscored": "尚无评分；以下为已记录的日志。",
    "unscored_loss": "{arm} 的最终验证损失为 {loss}，在 {count} 种方法中最低。",
    "facts_model": "模型",
    "facts_data": "数据",
    "facts_arms": "方法数",
    "facts_runs": "运行数",
    "facts_seeds": "随机种子",
    "facts_steps": "训练步数",
    "facts_budget": "统一预算",
    "budget_steps": "{value} 步",
    "budget_tokens": "{value} 个词元",
    "budget_seconds": "{value} 秒",
    # 读者须知
    "remark_on": "{task}：{remark}",
    "remark_other": "统计备注：{code}。",
    "remark_single_scores": "每种方法只有一个得分，且没有逐条样本的结果：微小差异可能出于偶然。",
    "remark_seed_repeated": "{arm} 的种子 {seed} 有多次运行；以 {run} 为准。",
    "remark_no_items": "按每次运行的总分判断：{run} 没有保存逐条样本的 {metric}。",
    "remark_items_differ_from_score": "按每次运行的总分判断：{run} 的逐条结果与其 {metric} 总分不符。",
    "remark_items_differ": "按每次运行的总分判断：{run} 有 {items} 条样本的题目或参考答案与其他运行不同。",
    "remark_items_missing": "{runs} 次运行缺少 {items} 条样本中的一部分；每对方法按双方共有的样本判断。",
    "remark_arms_left_out": "共有 {arms} 种方法与设置，仅对均值最好的 {judged} 种一并判断。",
    "remark_mixed_devices": "各次运行使用了不同种类的设备（{devices}）：其时间与内存不可相互比较。",
    "remark_unequal_steps": "预算不等：各次运行训练了 {low} 至 {high} 步。",
    "remark_steps_by_seconds": ("预算为 {seconds} 秒的训练时间：按事先测得的各方法速度，可训练 {low} 至 {high} 步。"),
    "remark_seconds_missed": (
        "各次运行实际用时 {low} 至 {high} 秒，而非预算的 {seconds} 秒：机器的速度或空闲程度与测速时不同，"
        "不能据此得出等时比较的结论。"
    ),
    "remark_unequal_tokens": "预算不等：各次运行训练了 {low} 至 {high} 个词元。",
    "remark_unequal_models": "不同模型或数据的运行各自成为一个任务，不会混在一起排名。",
    "remark_reference_missing": "{reference} 在此没有得分。",
    "remark_no_common_items": "{first} 与 {second} 没有共同样本，未作比较。",
    "remark_unequal_items": "并非所有方法都有全部样本；每对方法按双方共有的样本判断（全体共有 {common} 条）。",
    "remark_unequal_seeds": "种子数量不同：{seeds} 有 {fewest} 个，其他最多 {most} 个。",
    "remark_unpaired_seeds": "种子不同，未作配对比较：{pairs}。",
    "remark_one_seed": (
        "每种方法只有一个随机种子：结论只针对这些训练好的模型在新样本上的表现，换一个种子可能改变；请至少运行三个。"
    ),
    "remark_not_repeated": "每种方法只有一个得分：无法区分差异与偶然。",
    "remark_few_seeds": (
        "{seeds} 个随机种子：种子间的波动本身也只是粗略估计，因此区间较宽（最多 {t_factor} 倍标准误，而非 {normal"
        "_factor} 倍）。微小差异无法判定；建议至少使用五个种子。"
    ),
    "remark_seeds_identical": "所有种子的结果完全相同：{arms}。它们可能是同一次运行的副本。",
    "remark_arms_identical": "得分始终相同：{pairs}。",
    "remark_constant_difference": "差异恒定，没有可供判断的波动：{pairs}。",
    "remark_unequal_noise": (
        "种子对 {arm} 的影响大于其他方法（占全部种子波动的 {share}，若各方法相同则为 {even}），因此不采用共同波动"
        "的假设。"
    ),
    "remark_few_discordant": "只有不到十条样本能区分 {pairs}：对它们的判定取决于寥寥几条样本。",
    "remark_cannot_decide": (
        "这次对比无法得出结论：即使真实差异与观察到的最大差异（{largest}）一样大，也只有 {power} 的概率被检出。"
    ),
    "remark_multiplicity": "单独看，以下方法对存在差异：{pairs}；但在 {hypotheses} 次比较中，这可能出于偶然。",
    "remark_blocks_cannot_decide": (
        "任务 × 种子的区组太少（{blocks}），无法做跨任务的符号秩检验：最小可能的 p 值为 {min_p}，而所需为 {needed}。"
    ),
}
