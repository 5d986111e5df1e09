"""The parts of a run as protocols; see also `core/objective.py`.

An adapter is glue around one pretrained family and knows no RL; a policy is maths around an adapter and knows no model
names; an objective names the capability it drives (`needs`). Nobody inherits: a dataclass with these members is one.
"""

from mmalign.core.protocols.adapters import (
    Adapter,
    AdapterTraits,
    Decoding,
    LatentAdapter,
    ScoreAdapter,
    TokenAdapter,
)
from mmalign.core.protocols.data import (
    DataSource,
)
from mmalign.core.protocols.policies import (
    AnyPolicy,
    DensityPolicy,
    DiffPolicy,
    GuidedPolicy,
    JointDensityPolicy,
    Policy,
    ScorePolicy,
    StepPolicy,
    VelocityPolicy,
    Weights,
)
from mmalign.core.protocols.rewards import (
    Adaptive,
    Bounds,
    Combination,
    Encoder,
    FrameEncoder,
    ImageEncoder,
    PointSource,
    Reward,
    SetReward,
    Stateful,
    Synchronized,
    TextEncoder,
)
from mmalign.core.protocols.values import (
    Accelerator,
    Condition,
    Foreign,
    Gather,
    Inputs,
    Mean,
    Metrics,
    Prediction,
    Probe,
    one_alone,
    one_process,
)

__all__ = [
    "Accelerator",
    "Adapter",
    "AdapterTraits",
    "Adaptive",
    "AnyPolicy",
    "Bounds",
    "Combination",
    "Condition",
    "DataSource",
    "Decoding",
    "DensityPolicy",
    "DiffPolicy",
    "Encoder",
    "Foreign",
    "FrameEncoder",
    "Gather",
    "GuidedPolicy",
    "ImageEncoder",
    "Inputs",
    "JointDensityPolicy",
    "LatentAdapter",
    "Mean",
    "Metrics",
    "PointSource",
    "Policy",
    "Prediction",
    "Probe",
    "Reward",
    "ScoreAdapter",
    "ScorePolicy",
    "SetReward",
    "Stateful",
    "StepPolicy",
    "Synchronized",
    "TextEncoder",
    "TokenAdapter",
    "VelocityPolicy",
    "Weights",
    "one_alone",
    "one_process",
]
