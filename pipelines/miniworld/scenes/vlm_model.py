"""The scenes' vision-language model before it has learned anything but to see: a LLaVA, and its processor."""

from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.miniworld.questions import CAPTION, NO, YES
from mmalign.miniworld.scenes import IMAGE_SIZE
from mmalign.miniworld.vlm_examples import INSTRUCTION
from pipelines.miniworld.scenes.clip_tower import vision_weights
from pipelines.miniworld.scenes.words import grammar_words

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

PAD, END, ANSWER, UNKNOWN, IMAGE = "<|pad|>", "<|end|>", "<|answer|>", "<|unknown|>", "<image>"
PATCH, CONTEXT = 8, 192
IMAGE_TOKENS = (IMAGE_SIZE // PATCH) ** 2
_TEMPLATE = (
    "{% for m in messages %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|answer|>{% endif %}"
)


def words() -> list[str]:
    """Everything that is said: words of captions and questions, marks, and the numbers of a box."""
    text = f"is are there exactly one thing things the where {CAPTION} {INSTRUCTION} {YES} {NO}"
    marks = ["[", "]", ",", ".", "?"]
    plain = {word.strip(".").lower() for word in text.split()}
    return [*sorted({*grammar_words(), *plain}), *marks, *map(str, range(IMAGE_SIZE + 1))]


def build_processor() -> "LlavaProcessor":
    """One token a word, mark or number; upper and lower case are the same."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Punctuation, Sequence, WhitespaceSplit
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([PAD, END, ANSWER, UNKNOWN, IMAGE, *words()])}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = Lowercase()
    core.pre_tokenizer = Sequence([WhitespaceSplit(), Punctuation("isolated")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE, "answer_token": ANSWER},
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = CLIPImageProcessor(
        size=size, do_center_crop=False, crop_size=size, image_mean=[0.75] * 3, image_std=[0.25] * 3
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )


def build_model(processor: "LlavaProcessor") -> "LlavaForConditionalGeneration":
    """Build an untrained LLaVA."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=384, num_hidden_layers=5, num_attention_heads=4, image_size=IMAGE_SIZE,
        patch_size=PATCH, hidden_act="gelu",
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
            image_seq_length=IMAGE_TOKENS,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def see_as(model: "LlavaForConditionalGeneration", clip: Path) -> None:
    """Give a model the image tower of the open_clip model in the folder ``clip``."""
    missing = model.model.vision_tower.load_state_dict(vision_weights(clip), strict=False).missing_keys
    if any("position_ids" not in name for name in missing):
        raise ValueError(f"{clip} is no image tower of this shape: it lacks {', '.join(missing)}")
