"""A run file of a tiny language model and the modules that it allows."""

from __future__ import annotations

RULES = ["tests.run.text_rules"]


GRPO = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 8, alpha: 16}}}}
policy: {{name: tokens, max_new_tokens: 10, eval_temperature: 1.0}}
rewards:
  good: {{name: "tests.run.text_rules:share_of", word: good}}
objective: {{name: grpo, group_size: 8, beta: 0.01}}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{steps: 14, prompts_per_step: 4, lr: 2.0e-2}}
evaluation:
  judges:
    brief: {{name: "tests.run.text_rules:brief", role: judge}}
"""
