"""What rewards are called elsewhere: how to have them here, or what is missing for them.

Keys are in lower case, of letters and digits only, which is how `Registry` looks a name up.
"""

_IMAGE_REWARD = (
    "ImageReward (THUDM) reads picture and prompt together in BLIP, by cross-attention, and no component here is a "
    "BLIP; rewards pickscore and hpsv2 were trained for the same purpose, or call the package image-reward from a rule "
    "of your own (@mmalign.rule)."
)
_HPSV3 = (
    "HPSv3 is a head on Qwen2-VL, which no component here reads; rewards hpsv2 and pickscore were trained for the same "
    "purpose, or call the package hpsv3 from a rule of your own (@mmalign.rule)."
)
_CLIP_SCORE = "it is reward clip with score: clip_score."
_AESTHETIC = "LAION's predictor is reward laion_aesthetic; mlp_head takes any other."
_CLAP = "reward clap takes any CLAP model as its checkpoint, and clap_music is LAION's for music."
_MATHS = "mathematical equality with a truth is reward math_equal; exact_match compares texts."

OTHER_NAMES = {
    "pick": "PickScore is reward pickscore.",
    "pickapic": "PickScore is reward pickscore.",
    "pickscorev1": "PickScore is reward pickscore.",
    "hps": "HPS v2 and v2.1 are reward hpsv2.",
    "hpsv21": "HPS v2 and v2.1 are reward hpsv2; its checkpoint says which.",
    "hpsscore": "HPS v2 and v2.1 are reward hpsv2.",
    "hpsv3": _HPSV3,
    "imagereward": _IMAGE_REWARD,
    "imagerewardv1": _IMAGE_REWARD,
    "imagerewardv10": _IMAGE_REWARD,
    "clipscore": _CLIP_SCORE,
    "aestheticscore": _AESTHETIC,
    "aestheticpredictor": _AESTHETIC,
    "laionaesthetics": _AESTHETIC,
    "laionaestheticv2": _AESTHETIC,
    "audiobox": "Audiobox Aesthetics is reward aesthetics.",
    "audioboxaesthetics": "Audiobox Aesthetics is reward aesthetics.",
    "clapscore": _CLAP,
    "laionclap": _CLAP,
    "musicclap": _CLAP,
    "fid": "the Fréchet distance is reward frechet, fad for sounds; each names its encoder and its reference.",
    "kid": "it is reward mmd (kad for sounds), which names its encoder and its reference.",
    "accuracy": _MATHS,
    "accuracyreward": _MATHS,
    "mathverify": _MATHS,
    "jpegcompressibility": "it is reward compressibility.",
    "jpegincompressibility": "it is reward compressibility with a negative weight.",
}
