"""The tokenizer that the tunes' models share: every word of the grammar is one token."""

from typing import TYPE_CHECKING

from mmalign.miniworld.tunes.language import grammar_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Start and end included; the longest caption of the grammar needs nine.
MAX_TOKENS = 10
START, PAD, END, UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"  # numbered as RoBERTa does


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """Words in lower case between a start and an end; other words are unknown."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate([START, PAD, END, UNKNOWN, *grammar_words()])}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = Lowercase()
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(word, vocabulary[word]) for word in (START, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=START,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def tokenize(tokenizer: "PreTrainedTokenizerFast", captions: list[str]) -> dict:
    """``input_ids`` and ``attention_mask``, each ``(n, MAX_TOKENS)``."""
    padding = {"padding": "max_length", "max_length": MAX_TOKENS, "truncation": True, "return_tensors": "pt"}
    encoding = tokenizer(captions, **padding)
    return {name: encoding[name] for name in ("input_ids", "attention_mask")}
