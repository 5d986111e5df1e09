"""The one way from a folder or a Hub id to a model: every adapter, reward, judge and encoder loads through here.

| file | what it opens |
|---|---|
| `folders` | a local folder, or a Hub id's files without pickles and code |
| `files` | JSON of a bounded size; safetensors, whole; a folder that would run code of its own is refused |
| `complete` | what the weights lack, hold besides, or hold in another shape |
| `networks` | a network of transformers or diffusers |
| `texts` | tokenizers, processors, configurations |
| `pipelines` | a diffusers pipeline, component by component |
| `clip` | a model and a tokenizer of open_clip |
| `exclusive` | one thing is loaded at a time, quietly, and nothing ever asks a question |

Nothing here runs code of a checkpoint, opens a pickle, or answers with weights that were drawn at random.
"""
