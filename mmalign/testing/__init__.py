"""What a component owes, checked: for those who write components outside of mmalign, and for its own.

    from mmalign.testing import check_latent_adapter, check_reward
    check_reward(Brightness(), Rollout.of(["a lamp", "a cave"], images))

Every check raises one `AssertionError` that lists all that is wrong.
"""

from mmalign.testing.adapters import check_latent_adapter, check_token_adapter
from mmalign.testing.data_sources import check_data_source
from mmalign.testing.reward_parts import check_combination, check_encoder, check_point_source
from mmalign.testing.rewards import check_reward, check_set_reward

__all__ = [
    "check_combination",
    "check_data_source",
    "check_encoder",
    "check_latent_adapter",
    "check_point_source",
    "check_reward",
    "check_set_reward",
    "check_token_adapter",
]
