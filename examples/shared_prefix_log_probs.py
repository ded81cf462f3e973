"""Shared-prefix log-probabilities in a loop of one's own: a video is encoded and prefilled once for all answers.

    python examples/shared_prefix_log_probs.py CHECKPOINT VIDEO "a person opens the fridge"

Samples a group of answers, scores them, and takes one policy-gradient step, with the centred lengths of the answers'
spans as a stand-in for advantages.
"""

import sys

import torch
from transformers import GenerationConfig

from timelens_plugins.answers import parse_spans
from timelens_plugins.clips import load_clip
from timelens_plugins.families.load import load_model
from timelens_plugins.shared_prefix import PromptTree, generate_group, log_probs
from timelens_plugins.video import sample_frames

checkpoint, video, query = sys.argv[1:]
model, processor = load_model(checkpoint, dtype=torch.float32)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

clip = sample_frames(video, processor.frame_sampling)
prompt = load_clip(processor, clip).prompt(processor.grounding_messages(clip, query))
sampling = GenerationConfig(do_sample=True, max_new_tokens=32)
[completions] = generate_group(model, prompt, sampling, completions=4)
answers = processor.batch_decode(completions, skip_special_tokens=True)

lengths = torch.tensor([sum((span.length for span in parse_spans(text, query=query)), 0.0) for text in answers])
advantages = lengths - lengths.mean()
scores = log_probs(model, PromptTree.group(prompt, completions)).split()
loss = -sum(a * lp.sum() for a, lp in zip(advantages, scores, strict=True)) / len(answers)
loss.backward()
optimizer.step()

for text, score in zip(answers, scores, strict=True):
    print(f"{score.sum().item():8.2f} nats  {text!r}")
print(f"loss {loss.item():.4f}; {len(prompt)} tokens of prompt were computed once, not {len(answers)} times")
