"""A reward of one's own, on the package's parser: 1 where the answer's event starts with the target's, 0 from 2 s on.

accelerate launch recipes/rlvr.py --config my.yaml --rewards custom_reward:start_reward temporal_iou

where this file lies in the folder of my.yaml, in the working folder or on PYTHONPATH. Run by itself, it scores three
answers.
"""

from timelens_plugins.rewards import read_completions

TOLERANCE = 2.0  # seconds


def start_reward(completions, spans, query=None, **columns):
    """One number in 0..1 for each completion; an answer without a span gets 0."""
    rewards = []
    for answer, targets in zip(read_completions(completions, query), spans, strict=True):
        distance = min((abs(answer.spans[0].start - start) for start, _ in targets), default=0) if answer.spans else 9
        rewards.append(max(0.0, 1.0 - distance / TOLERANCE))
    return rewards


if __name__ == "__main__":
    answers = ["The event happens in 3.5 - 12.0 seconds.", "From 5 to 9 seconds.", "I cannot tell."]
    for text, reward in zip(answers, start_reward(answers, spans=[[(4.0, 10.0)]] * 3), strict=True):
        print(f"{reward:.2f}  {text}")
