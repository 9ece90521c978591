"""Worker of our side: ``python -m compare_cases.run_ours '{"how": "rollout", "slots": 64, "prompts": FILE}'``."""

from __future__ import annotations

from compare_cases.attention import attention_share
from compare_cases.lengths import draw_lengths
from compare_cases.ours import WARM_UP_TOKENS, Rollouts, learn_once, trainer
from compare_cases.serving import Session, options, serve
from compare_cases.workload import NEW_TOKENS, facts, read_prompts
from textgym_agents.models.flat_step import PAYS_AFTER


def main() -> None:
    asked, session = options(), Session()
    known, how = read_prompts(asked["prompts"]), asked["how"]
    slots = asked.get("slots", 64)
    told: dict[str, object] = {"facts": facts("stable-baselines3", "gymnasium")}
    if how == "rollout":
        lengths = draw_lengths(slots) if asked.get("mixed") else None
        rollouts = Rollouts(known, slots, asked.get("new_tokens", NEW_TOKENS), lengths, asked.get("n_positions", 128))
        for _ in range(-(-PAYS_AFTER // asked.get("new_tokens", NEW_TOKENS))):
            rollouts.play()
        rollouts.check()
        if asked.get("profile"):
            told["profile"] = attention_share(rollouts.play)
        serve(rollouts.play, session, **told)
    elif how == "train":
        algorithm = trainer(known, asked["algorithm"], asked.get("epochs", 1), slots)
        algorithm.learn(WARM_UP_TOKENS)
        serve(lambda: learn_once(algorithm, slots * NEW_TOKENS), session, **told)
    else:
        raise ValueError(f"Expected `how` to be 'rollout' or 'train', actual: {how!r}")


if __name__ == "__main__":
    main()
